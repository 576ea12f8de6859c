"""Tables of text: what a cell and a table are, and how numbers read in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from sweeps.groups.significance import Spread, Test

PAGE_ONLY = 9
LEVELS = {
    "NDCG@5": 1, "HR@1": 1, "HR@5": 1, "MRR, all items": 2, "NDCG@5, all items": 4, "NDCG@10, all items": 4, "its 95 %": PAGE_ONLY,
    "against": PAGE_ONLY, "95 % interval": 1, "best epoch": 1, "epochs": 1, "parameters": 1, "search time": 2, "settings": 3,
}  # fmt: skip
"""Heading -> level: where the terminal is too narrow, the columns of the highest levels are left out; `PAGE_ONLY` are those
of Markdown and HTML alone."""
TEXTS = ("", "ranked among", "settings", "what it changes", "searched", "problem")
"""Headings of columns that stand at the left and may wrap, as the first column does."""


class Cell(NamedTuple):
    """A text and what it is: `best`, `second`, `winner`, a state of a row, or "" for nothing special."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Block:
    """One table.

    Attributes:
        lines: heading of a column -> cell, for each line; a text alone is the heading of a section.
        remark: said below it.
        chart: the metric of the rows that the HTML page draws above it, "" for none.
    """

    title: str
    lines: list[dict[str, Cell] | str]
    remark: str = ""
    chart: str = ""

    @property
    def rows(self) -> list[dict[str, Cell]]:
        """The lines that are no heading."""
        return [line for line in self.lines if isinstance(line, dict)]

    @property
    def headings(self) -> list[str]:
        return list(self.rows[0]) if self.rows else []

    def only(self, keep: Callable[[str], bool]) -> Block:
        """The same with its first column and some of the others."""
        kept = [heading for place, heading in enumerate(self.headings) if place == 0 or keep(heading)]
        lines = [line if isinstance(line, str) else {key: line[key] for key in kept} for line in self.lines]
        return replace(self, lines=lines)

    def is_filled(self, heading: str) -> bool:
        """Whether a line has something in this column."""
        return any(line[heading].text not in ("", "-") for line in self.rows)

    def texts(self) -> list[int]:
        """Places of the columns that stand at the left."""
        return [place for place, heading in enumerate(self.headings) if place == 0 or heading in TEXTS]


def level_of(heading: str) -> int:
    """How early a narrow terminal leaves out a column."""
    return LEVELS.get(heading, 3 if heading.startswith("paper") and "NDCG" in heading else 0)


def number(spread: Spread | None, digits: int = 2) -> str:
    """`5.05 ± 0.12`, or `5.05` of a single seed."""
    if spread is None:
        return "-"
    return f"{spread.mean:.{digits}f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}")


def p_value(test: Test | None) -> str:
    """An adjusted p value as text."""
    if test is None or math.isnan(test.adjusted):
        return "-"
    return "<0.001" if test.adjusted < 0.001 else f"{test.adjusted:.3f}"


def digits(value: float | None, form: str = ".4f") -> str:
    """A number as text, by default a fraction with four digits; `-` for none."""
    return "-" if value is None else format(value, form)


def mean_and_interval(spread: Spread | None) -> dict[str, str]:
    """Standard deviation and 95 % interval of a mean, as columns."""
    low, high = (spread.low, spread.high) if spread else (None, None)
    interval = "-" if low is None else f"{digits(low)} to {digits(high)}"
    return {"sd": digits(spread.deviation if spread else None), "95 % interval": interval}
