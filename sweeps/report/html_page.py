"""The frame of a chart: axes, ticks, and a plane that stretches to any width while its text and dots keep their size.

Lines are SVG in a plane of 1000 x 1000 that is stretched; dots and labels are HTML, placed in percent. So one chart fits a
phone, a desk and paper, and is readable without a script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from llmemf import text_format


@dataclass(frozen=True)
class Axis:
    """A range of values along one side.

    Attributes:
        ticks: position (0 to 1) and label.
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
    first = math.ceil(low / step - 1e-9)
    values = [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
    axis = Axis(low, high, label=label)
    return Axis(low, high, False, tuple((axis.at(v), f"{v:.{places}f}") for v in values), label)


def log_axis(low: float, high: float, *, label: str = "", count: int = 5) -> Axis:
    """A logarithmic axis with ticks at 1, 2 or 5 times powers of ten, as many as have room."""
    axis = Axis(low, high, True)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        values = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(values) <= count:
            break
    values = values[:: max(1, math.ceil(len(values) / count))]
    return Axis(low, high, True, tuple((axis.at(value), text_format.number(value)) for value in values), label)


def whole_axis(last: int, *, label: str = "", first: int = 1) -> Axis:
    """An axis of whole numbers (epochs)."""
    step = max(1, math.ceil((last - first) / 8))
    axis = Axis(first, max(last, first), label=label)
    ticks = [(axis.at(value), str(value)) for value in range(first, last + 1, step)]
    return Axis(first, max(last, first), False, tuple(ticks), label)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def inset(axis: Axis, margin: float = 0.04) -> Axis:
    """The same axis with room at both ends for dots that lie there; its positions are those of `indent`."""
    return Axis(axis.low, axis.high, axis.log, tuple((indent(at, margin), text) for at, text in axis.ticks), axis.label)


def indent(at: float, margin: float = 0.04) -> float:
    return margin + (1 - 2 * margin) * at


def path(points: Iterable[tuple[float, float]]) -> str:
    """SVG path through points of the plane (0 to 1, upwards)."""
    parts = [f"{1000 * x:.0f} {1000 * (1 - y):.0f}" for x, y in points]
    return f"M{'L'.join(parts)}" if parts else ""


def dot(x: float, y: float, kind: str, trial: int | None = None) -> str:
    """A dot at a place of the plane; with a trial's number it answers to the pointer."""
    own = "" if trial is None else f" data-t={trial}"
    return f'<i class="d {kind}"{own} style="left:{100 * x:.1f}%;top:{100 * (1 - y):.1f}%"></i>'


def note(x: float, y: float, text: str, kind: str = "") -> str:
    """A label in the plane; at the right side it runs to the left."""
    side = " left" if x > 0.6 else ""
    return f'<b class="n{side} {kind}" style="left:{100 * x:.1f}%;top:{100 * (1 - y):.1f}%">{escape(text)}</b>'


def frame(
    lines: Sequence[str],
    marks: Sequence[str],
    *,
    x: Axis | None,
    y: Axis | None,
    says: str,
    kind: str = "",
) -> str:
    """A chart.

    Args:
        lines: SVG elements in the plane.
        marks: HTML elements in the plane.
        says: what it shows, for those who cannot see it.
        kind: class that gives its height.
    """
    grid = "".join(f'<path class="g" d="M0 {1000 * (1 - at):.0f}H1000"/>' for at, _ in (y.ticks if y else ()))
    labels = "".join(
        f'<s class="y" style="top:{100 * (1 - at):.1f}%">{escape(text)}</s>' for at, text in (y.ticks if y else ())
    )
    labels += "".join(
        f'<s class="x{_end(at, text)}" style="left:{100 * at:.1f}%">{escape(text)}</s>'
        for at, text in (x.ticks if x else ())
    )
    title = f'<span class="xl">{escape(x.label)}</span>' if x and x.label else ""
    top = f'<span class="yl">{escape(y.label)}</span>' if y and y.label else ""
    return (
        f'<div class="plot {kind}" role="img" aria-label="{escape(says, quote=True)}">{top}<div class="area">'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{grid}{"".join(lines)}</svg>'
        f"{labels}{''.join(marks)}</div>{title}</div>"
    )  # fmt: skip


def _end(at: float, text: str) -> str:
    """Long labels at the ends of an axis stay inside of it."""
    return "" if len(text) < 4 else " a" if at < 0.02 else " z" if at > 0.98 else ""
