"""The rungs of successive halving."""

from __future__ import annotations

import math


def rungs(epochs: int, grace_period: int, reduction_factor: float) -> list[int]:
    """Epochs at which successive halving decides: grace, grace * factor, ... below the last epoch."""
    milestones, milestone = [], float(grace_period)
    while milestone < epochs:
        milestones.append(math.ceil(milestone))
        milestone *= reduction_factor
    return milestones
