"""How numbers, durations and settings read in tables, run names and messages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llmemf.errors import InputError


def number(value: Any) -> str:
    """A setting in a few characters: 0.001 -> 1e-3, 0.25 -> 0.25, (id, text) -> id+text."""
    if isinstance(value, list | tuple):
        return "+".join(str(part) for part in value)
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or 0.009995 <= abs(value) < 10_000:
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


def seconds(text: str, where: str) -> float:
    """Read a duration: `90m`, `2h`, `1h30m`, `45s`, or a number of seconds.

    Raises:
        InputError: it cannot be read, or is not positive.
    """
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else [0.0]
    total = sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1)))
    if total <= 0:
        raise InputError(f"{where} {text}: a time like 90m, 2h, 1h30m or 7d is expected")
    return total


def size(count: float) -> str:
    """Bytes as a short text: `820 B`, `4.1 MB`, `2.3 GB` (powers of 1,000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def percent(share: float, digits: int = 0) -> str:
    """A share as `57 %` or `56.7 %`."""
    return f"{100 * share:.{digits}f} %"


def chance(share: float) -> str:
    """A probability that was estimated, and is never quite 0 or 1: `57 %`, `less than 1 %`, `more than 99 %`."""
    return "less than 1 %" if share < 0.01 else "more than 99 %" if share > 0.99 else percent(share)


def json_text(content: Any) -> str:
    """JSON that every reader takes: NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, default=str, allow_nan=False)


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def plural(count: int, noun: str) -> str:
    """`1 trial`, `12 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
