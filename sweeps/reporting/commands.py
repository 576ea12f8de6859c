"""Command lines that follow from a sweep, as they can be typed where the report was made."""

from __future__ import annotations

from typing import Any

from llmemf.command_line import command_line
from sweeps.state.sweep_record import SweepRecord


def resume(record: SweepRecord, *more: str) -> str:
    """The command that continues a sweep, with further options."""
    return _line(record, "sweep", "--resume", "--name", record.name, *more)


def extend(record: SweepRecord, more: int, assignments: dict[str, Any] | None = None) -> str:
    """Further trials of the same sweep, in a space that is changed by assignments."""
    return _line(record, "sweep", "--extend", more, "--name", record.name, *_sets(assignments or {}))


def rerun(record: SweepRecord, *, top: int, seeds: int) -> str:
    """The command that trains a sweep's best configurations again."""
    return _line(record, "rerun", record.name, "--top", top, "--seeds", seeds)


def again(record: SweepRecord, *, assignments: dict[str, Any] | None = None, **changes: Any) -> str:
    """A new sweep like this one, but for some options and settings.

    Args:
        assignments: settings, fixed by one value or searched over a list.
        changes: options of `sweeps/grid.py`; `epochs` is one.
    """
    options = [word for key, value in changes.items() for word in (f"--{key.replace('_', '-')}", value)]
    return _line(record, "sweep", "--like", record.name, *options, *_sets(assignments or {}))


def _sets(assignments: dict[str, Any]) -> list[str]:
    words = []
    for key, value in assignments.items():
        nested = isinstance(value, list) and any(isinstance(part, list | str) for part in value)
        text = str(value).replace("'", "") if nested else _value(value)
        words += ["--set", f"{key}={text}"]
    return words


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_value(part) for part in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _line(record: SweepRecord, script: str, *words: Any) -> str:
    return command_line(script, *(_value(word) for word in words), storage=record.storage)
