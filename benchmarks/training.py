"""Beside the objective: the data path, validation and its ranks, for LLM-EMF at the paper's widths.

    python benchmarks/training.py [--items 11198] [--sequences 768] [--cases 100] [--rounds 5] [--threads 2] [--json out.json]

- data path: rows per second out of tensors that live on the device, against a DataLoader over Python lists with torch's
  default collation, as published code has it;
- validation: the time to rank the cases of an epoch on stored candidates and on the full catalogue, as a share of the
  epoch (cases and sequences in the proportion of Movie-Book, 7,644 to 58,515);
- validation and ranking case by case against batches: the same ranks, taken one user at a time, with the encoding of histories
  and from encoded ones on;
- encoders: one step of all nine with padding computed, against real items alone;
- ranks in fp32 against the same model in float64: how many cases differ.

Runs are interleaved and medians compared. Data is made up: histories of 6 to 15 items, random features.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from figures import interleaved, parser, report
from made_up import made_up
from torch.utils.data import DataLoader

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.models import attention, model_class
from llmemf.ranking import rank_cases
from llmemf.training import Trainer

CANDIDATES = 999
PAD_LENGTH = 15


def make_trainer(items: int, sequences: int, cases: int) -> Trainer:
    data = made_up(items, sequences, cases, candidates=CANDIDATES)
    settings = {"model": "llm_emf", "device": "cpu", "batch_size": 256, "epochs": 1}
    return Trainer(build_config(model_class("llm_emf").config_class, settings), data)


class ListDataset(torch.utils.data.Dataset):
    """Every sequence as padded Python lists made on request."""

    def __init__(self, data: TrialData) -> None:
        self.rows = [data.train.row(index).tolist() for index in range(len(data.train))]
        self.num_x, self.pad = data.num_x, data.num_items

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        row = self.rows[index]
        parts = []
        for items in ([i for i in row if i < self.num_x], [i for i in row if i >= self.num_x], row):
            parts += [
                [self.pad] * (PAD_LENGTH - len(padded[-PAD_LENGTH:])) + padded[-PAD_LENGTH:]
                for padded in (items[:-1], items[1:])
            ]
        return [torch.tensor(part) for part in parts]


def resident_rows(trainer: Trainer) -> int:
    order = torch.randperm(len(trainer.train_sequences))
    for index in order.split(256):
        trainer.train_sequences.batch(index)
    return len(order)


def listed_rows(loader: DataLoader) -> int:
    return sum(len(batch[0]) for batch in loader)


def ranks_in_batches(trainer: Trainer) -> dict[str, np.ndarray]:
    return rank_cases(
        trainer.model, trainer.valid_sequences, trainer.data.valid_candidates,
        batch_size=trainer.config.eval_batch_size,
    )  # fmt: skip


def ranks_case_by_case(trainer: Trainer) -> np.ndarray:
    """(cases, 2) sampled and full rank, one user at a time on the host."""
    model, sequences, found = trainer.model.eval(), trainer.valid_sequences, []
    with torch.inference_mode():
        for case, candidates in enumerate(trainer.data.valid_candidates):
            batch = sequences.batch(torch.tensor([case]))
            target = int(batch.targets)
            domain = int(target >= model.num_x)
            scores = model.score_all(batch, domain)[0].cpu().numpy()
            offset = model.num_x if domain else 0
            own = scores[target - offset]
            stored = scores[candidates[candidates >= 0] - offset]
            found.append([1 + sum(float(s) > own for s in stored), 1 + int((scores > own).sum())])
    return np.array(found)


def from_encoded(trainer: Trainer, work: Callable[[Trainer], object]) -> Callable[[], object]:
    """A way of ranking without its encoders: their states are those of a first run, handed out in its order."""
    tower, kept = trainer.model.towers[0], []
    encode_views = tower._states_of

    def remember(views, inputs):
        kept.append(encode_views(views, inputs))
        return kept[-1]

    def run() -> object:
        states = iter(kept)
        tower._states_of = lambda views, inputs: next(states)
        try:
            return work(trainer)
        finally:
            del tower._states_of

    tower._states_of = remember
    work(trainer)
    del tower._states_of
    return run


def differing_ranks(trainer: Trainer) -> float:
    """Share of cases whose rank among all items differs between fp32 and float64."""
    single = ranks_in_batches(trainer)
    double = copy.copy(trainer)
    double.model = copy.deepcopy(trainer.model).double()
    return float(np.mean(ranks_in_batches(double)["full"] != single["full"]))


def encode(trainer: Trainer, *, packed: bool) -> None:
    """The encoders of one batch, forwards and backwards."""
    tower, batch = (
        trainer.model.train().towers[0],
        trainer.train_sequences.batch(torch.arange(min(256, len(trainer.train_sequences)))),
    )
    before, attention.Layout = attention.Layout, functools.partial(attention.Layout, packed=packed)
    try:
        for name, view in batch.views.items():
            inputs = [tower.tables[m].input_rows(view.items) for m in tower.modalities]
            states = tower.states(view.items < trainer.model.num_items, name, inputs)
            sum(state.sum() for state in states).backward()
    finally:
        attention.Layout = before


def measure(items: int, sequences: int, cases: int, rounds: int, threads: int) -> dict[str, float]:
    """All figures of this benchmark by name."""
    torch.set_num_threads(threads)
    trainer = make_trainer(items, sequences, cases)
    loader = DataLoader(ListDataset(trainer.data), batch_size=256, shuffle=True)
    work = {
        "resident": lambda: resident_rows(trainer),
        "lists": lambda: listed_rows(loader),
        "encoders, padded": lambda: encode(trainer, packed=False),
        "encoders": lambda: encode(trainer, packed=True),
        "epoch": lambda: trainer._train_epoch(1),
        "validation": lambda: ranks_in_batches(trainer),
        "case by case": lambda: ranks_case_by_case(trainer),
        "ranking": from_encoded(trainer, ranks_in_batches),
        "ranking, case by case": from_encoded(trainer, ranks_case_by_case),
    }
    middle = interleaved(work, rounds)
    return {
        **{f"seconds, {name}": value for name, value in middle.items()},
        "data path, lists / ours": middle["lists"] / middle["resident"],
        "encoders, padded / ours": middle["encoders, padded"] / middle["encoders"],
        "validation / epoch": middle["validation"] / (middle["epoch"] + middle["validation"]),
        "validation, case by case / ours": middle["case by case"] / middle["validation"],
        "ranking, case by case / ours": middle["ranking, case by case"] / middle["ranking"],
        "cases whose fp32 rank differs": differing_ranks(trainer),
    }


def main() -> None:
    given = parser(__doc__, items=11198, sequences=768, cases=100, rounds=5, threads=2).parse_args()
    report(measure(given.items, given.sequences, given.cases, given.rounds, given.threads), given.json)


if __name__ == "__main__":
    main()
