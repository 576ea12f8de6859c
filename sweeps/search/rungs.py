"""Epochs that count: the rungs of successive halving, and those of a curve that a model looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping


def rungs(epochs: int, grace_period: int, reduction_factor: float) -> list[int]:
    """Epochs at which successive halving decides: grace, grace * factor, ... below the last epoch."""
    milestones, milestone = [], float(grace_period)
    while milestone < epochs:
        milestones.append(math.ceil(milestone))
        milestone *= reduction_factor
    return milestones


def milestones(values: Mapping[int, float]) -> dict[int, float]:
    """A curve at epochs 1, 2, 3, 4, 6, 8, 12, ... and its last one: the model needs no more of it."""
    last = max(values)
    return {epoch: value for epoch, value in values.items() if epoch == last or is_milestone(epoch)}


def is_milestone(epoch: int) -> bool:
    """Whether a model looks at this epoch of a curve: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    while epoch % 2 == 0 and epoch > 3:
        epoch //= 2
    return epoch in (1, 2, 3)
