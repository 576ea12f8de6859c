"""Made-up data of the published shape, in the sizes that a benchmark asks for."""

from __future__ import annotations

import numpy as np

from llmemf.batches import TrialData
from llmemf.features.matrix import FeatureMatrix
from llmemf.scenarios.sequences import Sequences

SHARE_X = 36845 / 100782
"""Films among the items of Movie-Book."""


def made_up(
    items: int, sequences: int, cases: int = 2, *, width: int = 512, candidates: int = 1, seed: int = 0
) -> TrialData:
    """Histories of 6 to 15 items, at least 3 of each domain, and random features of unit length.

    Args:
        cases: validation cases; they are the first training histories again.
        width: of a feature.
        candidates: stored ones per case; those that meet the target are left out.
    """
    rng = np.random.default_rng(seed)
    num_x = round(items * SHARE_X)
    rows = []
    for _ in range(max(sequences, cases)):
        length = int(rng.integers(6, 16))
        of_x = int(rng.integers(3, length - 2))
        drawn = np.concatenate([rng.integers(0, num_x, of_x), rng.integers(num_x, items, length - of_x)])
        rows.append(rng.permutation(drawn))
    valid = Sequences.from_rows(np.arange(cases), rows[:cases])
    in_y = (valid.targets >= num_x)[:, None]
    stored = rng.integers(np.where(in_y, num_x, 0), np.where(in_y, items, num_x), (cases, candidates))
    stored = np.where(stored == valid.targets[:, None], -1, stored).astype(np.int32)

    def features(kind: str) -> FeatureMatrix:
        values = rng.standard_normal((items, width), dtype=np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        return FeatureMatrix(kind, "random", values, np.ones(items, bool), "made up")

    return TrialData(
        domains=("x", "y"),
        num_x=num_x,
        num_items=items,
        num_users=len(rows),
        train=Sequences.from_rows(np.arange(sequences), rows[:sequences]),
        valid=valid,
        valid_candidates=stored,
        text=features("text"),
        image=features("image"),
        fingerprint="made up",
    )
