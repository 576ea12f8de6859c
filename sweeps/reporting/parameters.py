"""The settings that were searched, as axes: where each value lies between the smallest and the largest."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmemf import text_format
from llmemf.pages.charts import Axis, linear_axis, log_axis, text_axis
from sweeps.search.block import LOG_RATIO
from sweeps.search.space import Space
from sweeps.state.trial_records import TrialRecord

LEAST_GAP = 0.15
"""Share of an axis that the values of a grid are apart where they are its ticks: their labels do not touch."""
NOT_SEARCHED = ("seed",)
"""Settings that differ between trials without being searched."""


@dataclass(frozen=True)
class Parameter:
    """One searched setting.

    Attributes:
        values: those that occur, sorted; of a numeric setting floats, otherwise texts.
        axis: its range: that of the space, or of what occurs beyond it.
        grid: values of the space's grid; empty for a range.
        is_share: whether it is one of two shares of a simplex, which 0 and 1 bound.
    """

    key: str
    values: tuple[Any, ...]
    axis: Axis
    grid: tuple[Any, ...] = ()
    is_share: bool = False

    @property
    def is_numeric(self) -> bool:
        return not isinstance(self.values[0], str)

    def position(self, value: Any) -> float | None:
        """Place of a value on the axis, 0 to 1; None where the trial does not have the setting."""
        if value is None:
            return None
        if self.is_numeric:
            return self.axis.at(float(value))
        return next((at for at, text in self.axis.ticks if text == text_format.number(value)), None)


def searched_parameters(records: Sequence[TrialRecord], space: Space | None) -> list[Parameter]:
    """The settings that differ between trials, in the order in which the sweep shows them."""
    keys = dict.fromkeys(key for record in records for key in record.varied if key not in NOT_SEARCHED)
    found = {key: [value for record in records if (value := record.varied.get(key)) is not None] for key in keys}
    return [_parameter(key, values, space) for key, values in found.items() if values]


def _parameter(key: str, values: list[Any], space: Space | None) -> Parameter:
    block = next((block for block in space.blocks if key in block.keys), None) if space else None
    grid: tuple[Any, ...] = ()
    if block is not None and block.points:
        column = block.keys.index(key)
        grid = tuple(sorted({point[column] for point in block.points}, key=lambda value: (str(type(value)), value)))
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in [*values, *grid]):
        texts = tuple(dict.fromkeys(text_format.number(value) for value in [*grid, *values]))
        return Parameter(key, texts, text_axis(texts, label=key), grid)
    is_share = block is not None and block.kind == "simplex"
    ends = [float(value) for value in [*values, *grid]]
    if block is not None and not block.points:
        ends += [block.low, block.high]
    axis = numeric_axis(key, *((0.0, 1.0) if is_share else (min(ends), max(ends))))
    marks = [(axis.at(float(value)), text_format.number(value)) for value in grid]
    if marks and all(after - before >= LEAST_GAP for (before, _), (after, _) in itertools.pairwise(marks)):
        axis = dataclasses.replace(axis, ticks=tuple(marks))
    return Parameter(key, tuple(sorted(set(map(float, values)))), axis, grid, is_share)


def numeric_axis(key: str, low: float, high: float) -> Axis:
    """Logarithmic where a range spans orders of magnitude; a single value stands in the middle."""
    if low == high:
        return Axis(low, high, ticks=((0.5, text_format.number(low)),), label=key)
    is_log = low > 0 and high / low >= LOG_RATIO
    return log_axis(low, high, label=key) if is_log else linear_axis(low, high, label=key)


def simplex_pair(parameters: Sequence[Parameter]) -> tuple[Parameter, Parameter] | None:
    """The two shares of a simplex, where the space has one."""
    shares = [parameter for parameter in parameters if parameter.is_share]
    if len(shares) == 2:
        return shares[0], shares[1]
    by_key = {parameter.key: parameter for parameter in parameters}
    return (by_key["alpha"], by_key["beta"]) if {"alpha", "beta"} <= by_key.keys() else None
