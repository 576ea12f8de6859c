"""SASRec beside RecBole's own, out of RecBole's package: targets per second at equal width, depth, catalogue and length.

    python benchmarks/peers.py [--items 11198] [--sequences 1024] [--dim 64] [--rounds 5] [--threads 2] [--json out.json]

RecBole is no dependency of this project. Its package pins old versions of others, so that it is best put beside the
environment instead of into it:

    pip install --target FOLDER --no-deps recbole colorlog colorama thop texttable tabulate tensorboard \\
        tensorboard-data-server absl-py grpcio markdown werkzeug
    PYTHONPATH=FOLDER python benchmarks/peers.py

One run is an epoch of training steps: loss, gradients, the optimiser as each has it. Both have the cross entropy over all items
as their loss, dropout as each draws it, and the same made-up histories of 6 to 15 items. RecBole trains on one padded row per
prefix of a history, in its default batches of 2,048 rows; here a history is one row whose every step is a target. The rows of both
are made before the clock starts. Runs are interleaved and medians compared.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from figures import interleaved, parser, report
from made_up import made_up

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.models import model_class
from llmemf.training import Trainer

LENGTH, LAYERS, HEADS, DROPOUT = 15, 2, 2, 0.5
PEER_ROWS = 2048
"""RecBole's default `train_batch_size`."""


def num_targets(data: TrialData) -> int:
    return int((data.train.lengths - 1).sum())


def ours(data: TrialData, dim: int) -> Callable[[], None]:
    """An epoch of this project's SASRec."""
    settings = {
        "model": "sasrec", "device": "cpu", "dim": dim, "max_length": LENGTH, "encoder_layers": LAYERS, "heads": HEADS,
        "dropout": DROPOUT, "softmax_scope": "all", "objective": "full", "epochs": 1,
    }  # fmt: skip
    trainer = Trainer(build_config(model_class("sasrec").config_class, settings), data)
    return lambda: trainer._train_epoch(1)


def prefix_rows(data: TrialData) -> dict[str, torch.Tensor]:
    """Every prefix of every history as a row padded at its end, items counted from 1, as RecBole has them."""
    rows, lengths, targets = [], [], []
    for index in range(len(data.train)):
        items = data.train.row(index).astype(np.int64) + 1
        for end in range(1, len(items)):
            prefix = items[max(0, end - LENGTH) : end]
            rows.append(np.pad(prefix, (0, LENGTH - len(prefix))))
            lengths.append(len(prefix))
            targets.append(items[end])
    columns = {"item_id_list": np.stack(rows), "item_length": np.array(lengths), "item_id": np.array(targets)}
    return {name: torch.from_numpy(values) for name, values in columns.items()}


def theirs(data: TrialData, dim: int) -> Callable[[], None]:
    """An epoch of RecBole's SASRec with the optimiser that its trainer makes."""
    from recbole.model.sequential_recommender.sasrec import SASRec

    config = {
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
        "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": LENGTH, "device": torch.device("cpu"),
        "n_layers": LAYERS, "n_heads": HEADS, "hidden_size": dim, "inner_size": dim, "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02,
        "loss_type": "CE",
    }  # fmt: skip
    model = SASRec(config, SimpleNamespace(num=lambda field: data.num_items + 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    columns = prefix_rows(data)

    def epoch() -> None:
        model.train()
        for index in torch.randperm(len(columns["item_id"])).split(PEER_ROWS):
            optimizer.zero_grad()
            loss = model.calculate_loss({name: values[index] for name, values in columns.items()})
            loss.backward()
            optimizer.step()

    return epoch


def measure(items: int, sequences: int, dim: int, rounds: int, threads: int) -> dict[str, float]:
    """Targets per second of both by name, and their ratio."""
    torch.set_num_threads(threads)
    data = made_up(items, sequences)
    work = {"RecBole": theirs(data, dim), "ours": ours(data, dim)}
    rates = {name: num_targets(data) / seconds for name, seconds in interleaved(work, rounds).items()}
    return {
        **{f"targets per second, {name}": rate for name, rate in rates.items()},
        "targets per second, ours / RecBole": rates["ours"] / rates["RecBole"],
    }


def main() -> None:
    given = parser(__doc__, items=11198, sequences=1024, dim=64, rounds=5, threads=2).parse_args()
    if importlib.util.find_spec("recbole") is None:
        sys.exit("error: the package recbole is not here: python benchmarks/peers.py --help says how to put it beside")
    report(measure(given.items, given.sequences, given.dim, given.rounds, given.threads), given.json)


if __name__ == "__main__":
    main()
