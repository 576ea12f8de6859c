"""How numbers, durations and settings read in tables, run names and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: Any) -> str:
    """A setting in a few characters: 0.001 -> 1e-3, 0.25 -> 0.25, (id, text) -> id+text."""
    if isinstance(value, list | tuple):
        return "+".join(str(part) for part in value)
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.5g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def settings(values: Mapping[str, Any]) -> str:
    """`lr=1e-3 alpha=0.3`."""
    return " ".join(f"{key}={number(value)}" for key, value in values.items())


def duration(seconds: float) -> str:
    """`0:42`, `12:05`, `3:07:00`."""
    total = max(0, round(seconds))
    hours, rest = divmod(total, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `12 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
