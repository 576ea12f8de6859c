"""The settings that were searched, as axes: where each value lies between the smallest and the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmemf import text_format
from sweeps.search.space import LOG_RATIO, Space
from sweeps.state.trial_records import TrialRecord

NOT_SEARCHED = ("seed",)
"""Settings that differ between trials without being searched."""


@dataclass(frozen=True)
class Parameter:
    """One searched setting.

    Attributes:
        values: those that occur, sorted; of a numeric setting floats, otherwise texts.
        log: whether its axis is logarithmic.
        low, high: ends of its axis: of the space, or of what occurs beyond it.
        grid: values of the space's grid; empty for a range.
        share: whether it is one of two shares of a simplex, which 0 and 1 bound.
    """

    key: str
    numeric: bool
    values: tuple[Any, ...]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    grid: tuple[Any, ...] = ()
    share: bool = False

    def position(self, value: Any) -> float | None:
        """Place of a value on the axis, 0 to 1; None where the trial does not have the setting."""
        if value is None:
            return None
        if not self.numeric:
            text = text_format.number(value)
            return (self.values.index(text) + 0.5) / len(self.values) if text in self.values else None
        low, high, value = self.low, self.high, float(value)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return 0.5 if high == low else (value - low) / (high - low)


def searched_parameters(records: Sequence[TrialRecord], space: Space | None) -> list[Parameter]:
    """The settings that differ between trials, in the order in which the sweep shows them."""
    keys = list(dict.fromkeys(key for record in records for key in record.varied))
    found = []
    for key in keys:
        values = [record.varied[key] for record in records if record.varied.get(key) is not None]
        if key not in NOT_SEARCHED and values:
            found.append(_parameter(key, values, space))
    return found


def _parameter(key: str, values: list[Any], space: Space | None) -> Parameter:
    block = next((block for block in space.blocks if key in block.keys), None) if space else None
    grid = ()
    if block is not None and block.points:
        column = block.keys.index(key)
        grid = tuple(sorted({point[column] for point in block.points}, key=lambda value: (str(type(value)), value)))
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in [*values, *grid]):
        texts = [text_format.number(list(value) if isinstance(value, tuple) else value) for value in [*grid, *values]]
        return Parameter(key, False, tuple(dict.fromkeys(texts)), grid=grid)
    share = block is not None and block.kind == "simplex"
    ends = [float(value) for value in [*values, *grid]]
    if block is not None and not block.points:
        ends += [block.low, block.high]
    low, high = (0.0, 1.0) if share else (min(ends), max(ends))
    log = low > 0 and high / low >= LOG_RATIO
    return Parameter(key, True, tuple(sorted(set(map(float, values)))), low, high, log, grid, share)


def simplex_pair(parameters: Sequence[Parameter]) -> tuple[Parameter, Parameter] | None:
    """The two shares of a simplex, where the space has one."""
    shares = [parameter for parameter in parameters if parameter.share]
    if len(shares) == 2:
        return shares[0], shares[1]
    by_key = {parameter.key: parameter for parameter in parameters}
    return (by_key["alpha"], by_key["beta"]) if {"alpha", "beta"} <= by_key.keys() else None
