"""What the parts of the GPU benchmark share: shapes, made-up data of Movie-Book's size, a device with its clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.features.matrix import FeatureMatrix
from llmemf.models import model_class
from llmemf.scenarios.scenario import Sequences
from llmemf.training import Trainer


@dataclass(frozen=True)
class Shape:
    """How large everything is."""

    num_x: int
    num_y: int
    sequences: int
    cases: int
    candidates: int
    batch: int
    id_width: int
    feature_width: int
    product: int
    copied: int
    rounds: int
    steps: int

    @property
    def widths(self) -> tuple[int, int, int]:
        return self.id_width, self.feature_width, self.feature_width

    @property
    def num_items(self) -> int:
        return self.num_x + self.num_y

    def flops_per_pair(self) -> int:
        """Of the objective: logits and expectations of three modalities, the table's gradient of the ids."""
        return 2 * (3 * self.id_width + 4 * self.feature_width)


REAL = Shape(36_845, 63_937, 58_515, 7_644, 999, 256, 256, 512, 8192, 2**32, 7, 30)
DRY = Shape(150, 260, 60, 12, 20, 16, 16, 32, 64, 2**20, 2, 2)


def movie_book(shape: Shape, seed: int = 0) -> TrialData:
    """Histories of 9 to 15 items, 11.98 on average, about half of them of X; features drawn at random."""
    draw = np.random.default_rng(seed)
    lengths = 9 + draw.binomial(6, 2.98 / 6, shape.sequences)
    of_x = np.clip(draw.binomial(lengths, 4.79 / 9.65), 3, lengths - 3)
    rows = [
        draw.permutation(
            np.concatenate([draw.integers(0, shape.num_x, x), shape.num_x + draw.integers(0, shape.num_y, n - x)])
        )
        for n, x in zip(lengths, of_x)
    ]
    picked = [rows[number % len(rows)] for number in range(shape.cases)]
    valid = Sequences.from_rows(np.arange(shape.cases), picked)
    low = np.where(valid.targets >= shape.num_x, shape.num_x, 0)[:, None]
    high = np.where(valid.targets >= shape.num_x, shape.num_items, shape.num_x)[:, None]
    candidates = draw.integers(low, high, (shape.cases, shape.candidates))
    candidates = np.where(candidates == valid.targets[:, None], -1, candidates).astype(np.int32)

    def features(kind: str) -> FeatureMatrix:
        values = draw.standard_normal((shape.num_items, shape.feature_width), dtype=np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        return FeatureMatrix(kind, "random", values, np.ones(shape.num_items, bool), "made up")

    return TrialData(
        domains=("x", "y"),
        num_x=shape.num_x,
        num_items=shape.num_items,
        num_users=max(shape.sequences, shape.cases),
        train=Sequences.from_rows(np.arange(shape.sequences), rows),
        valid=valid,
        valid_candidates=candidates,
        text=features("text"),
        image=features("image"),
        fingerprint="made up",
    )


class Bench:
    """What the parts share: the device, the shapes, the data, what was found so far."""

    def __init__(self, device: torch.device, shape: Shape) -> None:
        self.device, self.shape, self.found = device, shape, {}

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def data(self) -> TrialData:
        return movie_book(self.shape)

    def trainer(self, **changes) -> Trainer:
        given = {"model": "llm_emf", "device": str(self.device), "batch_size": self.shape.batch, "precision": "bf16",
                 "id_dim": self.shape.id_width, "epochs": 1, "eval_batch_size": 512, **changes}  # fmt: skip
        trainer = Trainer(build_config(model_class("llm_emf").config_class, given), self.data)
        trainer.model.train()
        return trainer

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], rounds: int | None = None) -> float:
        """Median time of a piece of work, the device's included, after two runs that do not count."""
        times = []
        for number in range(2 + (rounds or self.shape.rounds)):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            if number > 1:
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def rate(self) -> float:
        """FLOP/s of the large matrix product; without it what was measured on an H200."""
        return self.found.get("ceilings", {}).get("TFLOP/s, fp16", 790.0) * 1e12

    def bandwidth(self) -> float:
        return self.found.get("ceilings", {}).get("TB/s, copy", 4.3) * 1e12
