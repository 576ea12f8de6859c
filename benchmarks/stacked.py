"""Trials in one stack against the same trials one after the other, in trial-sequences per processor second.

    python benchmarks/stacked.py [--sizes tiny-16,real] [--trials 2,4,8] [--rounds 5] [--threads 1] [--json out.json]

Every size is trained by a stack of K trials and by K single trainers in turn, the same number of steps of each, in
interleaved rounds; medians are compared. Processor seconds are counted, so that what else runs on the machine tells little. Trials differ in learning rate, L2, mixture weights, lambdas and seed. Data is made
up: histories of 6 to 15 items, random features.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.figures import write
from benchmarks.models import made_up
from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.stacked.trainer import StackedTrainer
from llmemf.training import Trainer


@dataclass(frozen=True)
class Size:
    """Items, batch size, steps of a round, and settings of the model; `real` are the paper's widths, a ninth of its items."""

    items: int
    batch: int
    steps: int
    settings: dict


SIZES = {
    "tiny-16": Size(500, 32, 12, {"id_dim": 16, "item_projection": "linear", "projection_dim": 16}),
    "small-32": Size(500, 32, 12, {"id_dim": 32, "item_projection": "linear", "projection_dim": 32}),
    "sample-32": Size(
        1500, 128, 6, {"id_dim": 32, "item_projection": "linear", "projection_dim": 32, "encoder_layers": 1}
    ),
    "middle-64": Size(2500, 64, 6, {"id_dim": 64, "item_projection": "linear", "projection_dim": 64}),
    "middle-64-ids": Size(2500, 64, 6, {"id_dim": 64, "modalities": ["id"]}),
    "real": Size(11198, 64, 1, {}),
}


def configuration(number: int, size: Size, dropout: float) -> LLMEMFConfig:
    """Settings of one of the trials; no two are alike."""
    draw = np.random.default_rng(number)
    alpha, beta = draw.uniform(0.2, 0.4, 2)
    own = {
        "lr": 10 ** draw.uniform(-4, -2), "l2": 10 ** draw.uniform(-5, -3), "alpha": alpha, "beta": beta,
        "lambda1": draw.uniform(0.1, 1), "lambda2": draw.uniform(0.1, 1), "seed": number,
    }  # fmt: skip
    shared = {"model": "llm_emf", "device": "cpu", "batch_size": size.batch, "dropout": dropout, "epochs": 1000}
    return build_config(LLMEMFConfig, {**shared, **size.settings, **own})


def measure(size: Size, trials: int, rounds: int, dropout: float) -> dict[str, float]:
    """Medians of both ways, in trial-sequences per processor second, and what stacking gives."""
    data: TrialData = made_up(size.items // 3, size.items - size.items // 3, size.batch * size.steps)
    configs = [configuration(number, size, dropout) for number in range(trials)]
    singles = [Trainer(config, data) for config in configs]
    stack = StackedTrainer([Trainer(config, data) for config in configs])
    ways = {
        "stacked": stack.train_epoch,
        "in turn": lambda: [trainer._train_epoch(1) for trainer in singles],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            began = time.process_time()
            run()
            if number:
                times[name].append(time.process_time() - began)
    rates = {name: trials * len(data.train) / statistics.median(own) for name, own in times.items()}
    ratios = [single / stacked for single, stacked in zip(times["in turn"], times["stacked"])]
    return {**rates, "stacked / in turn": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES), help="of: %(default)s")
    parser.add_argument("--trials", default="2,4,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    wanted = given.sizes.split(",")
    if unknown := set(wanted) - set(SIZES):
        sys.exit(f"error: --sizes {', '.join(sorted(unknown))}: there are {', '.join(SIZES)}")
    torch.set_num_threads(given.threads)
    table = Table("size", "trials", "in turn, trial-sequences/CPU s", "stacked", "ratio", "least - most")
    found: dict[str, float] = {}
    for name, size in SIZES.items():
        if name not in wanted:
            continue
        for trials in map(int, given.trials.split(",")):
            figures = measure(size, trials, given.rounds, given.dropout)
            found[f"{name}, {trials} trials"] = figures["stacked / in turn"]
            table.add_row(
                name, str(trials), f"{figures['in turn']:,.0f}", f"{figures['stacked']:,.0f}",
                f"{figures['stacked / in turn']:.2f}", f"{figures['least']:.2f} - {figures['most']:.2f}",
            )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    write(found, given.json)


if __name__ == "__main__":
    main()
