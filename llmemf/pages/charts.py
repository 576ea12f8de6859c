"""The charts of all pages as plain data, which the macros of `charts.html` draw.

Lines are SVG in a plane of 1000 x 1000 that is stretched to any width; dots and labels are HTML, placed in percent, and keep
their size. So one chart fits a phone, a desk and paper, and is readable without a script. Places in the plane run from 0 to
1, to the right and upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llmemf import text_format

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A range of values along one side.

    Attributes:
        ticks: place and label.
    """

    low: float
    high: float
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    label: str = ""

    def at(self, value: float) -> float:
        """Place of a value: 0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return 0.5 if high == low else (value - low) / (high - low)


@dataclass(frozen=True)
class Line:
    """A line through points.

    Attributes:
        kind: class that gives its colour.
        key: number of what it stands for; the pointer highlights all lines and dots of one key.
    """

    points: Sequence[Point]
    kind: str
    key: int | None = None

    @property
    def path(self) -> str:
        """As an SVG path."""
        places = "L".join(f"{1000 * x:.0f} {1000 * (1 - y):.0f}" for x, y in self.points)
        return f"M{places}" if places else ""


@dataclass(frozen=True)
class Dot:
    """A dot; attributes as those of `Line`."""

    x: float
    y: float
    kind: str
    key: int | None = None


@dataclass(frozen=True)
class Label:
    """A text in the plane; at the right side it runs to the left unless it stands above its place."""

    x: float
    y: float
    text: str
    kind: str = ""


@dataclass
class Plot:
    """A chart in a plane.

    Attributes:
        says: what it shows, for those who cannot see it.
        kind: class that gives its height.
        x, y: axes at the lower and the left side, None for none.
        upright: place and axis of those that stand in the plane (parallel coordinates).
        corners: labels of a triangle's corners: left, right, top.
    """

    says: str
    kind: str
    x: Axis | None = None
    y: Axis | None = None
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    upright: list[tuple[float, Axis]] = field(default_factory=list)
    corners: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bar:
    """A bar with its label and number; all lengths are shares of the whole width.

    Attributes:
        interval: both ends of the line in it, None for none.
        mark: place of the dotted mark, None for none.
        kind: class that gives its colour.
    """

    length: float
    label: str = ""
    number: str = ""
    says: str = ""
    interval: tuple[float, float] | None = None
    mark: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Interval:
    """A dot with its interval on a shared scale."""

    at: float
    low: float
    high: float
    kind: str = ""


@dataclass(frozen=True)
class IntervalRow:
    """Dots of one label below one another, and their numbers."""

    label: str
    intervals: list[Interval]
    numbers: list[str]
    counts: list[str]


def linear_axis(low: float, high: float, *, label: str = "", count: int = 4, pad: float = 0.0) -> Axis:
    """An axis with ticks at round numbers.

    Args:
        pad: share of the range that is added at both ends.
    """
    if high <= low:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    low, high = low - pad * (high - low), high + pad * (high - low)
    step = _round_step((high - low) / count)
    places = next(places for places in range(12) if abs(round(step, places) - step) < 1e-6 * step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    axis = Axis(low, high, label=label)
    return replace(axis, ticks=tuple((axis.at(n * step), f"{n * step:.{places}f}") for n in range(first, last + 1)))


def log_axis(low: float, high: float, *, label: str = "", count: int = 4) -> Axis:
    """A logarithmic axis with ticks at 1, 2 or 5 times powers of ten, as many as have room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        values = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(values) <= count:
            break
    axis, each = Axis(low, high, True, label=label), max(1, math.ceil(len(values) / count))
    return replace(axis, ticks=tuple((axis.at(value), text_format.number(value)) for value in values[::each]))


def whole_axis(last: int, *, label: str = "", first: int = 1) -> Axis:
    """An axis of whole numbers (epochs)."""
    axis, step = Axis(first, max(last, first), label=label), max(1, math.ceil((last - first) / 8))
    return replace(axis, ticks=tuple((axis.at(value), str(value)) for value in range(first, last + 1, step)))


def text_axis(texts: Sequence[str], *, label: str = "") -> Axis:
    """An axis of texts, each in the middle of its part."""
    return Axis(0, 1, ticks=tuple(((index + 0.5) / len(texts), text) for index, text in enumerate(texts)), label=label)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def inset(axis: Axis, margin: float = 0.04) -> Axis:
    """The same axis with room at both ends for dots that lie there; its places are those of `indent`."""
    return replace(axis, ticks=tuple((indent(at, margin), text) for at, text in axis.ticks))


def indent(at: float, margin: float = 0.04) -> float:
    """Place on an axis with room at both ends."""
    return margin + (1 - 2 * margin) * at
