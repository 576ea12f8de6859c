"""Command lines that follow from a sweep, as they can be typed where the report was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmemf.command_line import command_line
from llmemf.models import model_class
from sweeps.core.settings import FILE_OPTIONS, checked_space, load_settings, scenario_files
from sweeps.state.sweep_record import SweepRecord, SweepSettings


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
    assignments = dict(assignments or {})
    base = _scenario_settings(record)
    words: list[Any] = ["--scenario", record.requested]
    if record.model != base.model:
        words += ["--model", record.model]
    # A grid that was run whole names no number of trials.
    values = {key: getattr(record, key) for key in FILE_OPTIONS if key != "trials" or record.search != "grid"}
    for key, value in (values | changes).items():
        if value is not None and (key in changes or value != getattr(base, key)):
            words += [f"--{key.replace('_', '-')}", value]
    fixed = {key: value for key, value in record.fixed.items() if base.fixed.get(key) != value}
    if "epochs" in changes:
        fixed.pop("epochs", None)
    space: dict[str, Any] = {}
    for key, entry in record.space.items():
        if isinstance(entry, dict):
            space |= entry.get("given") or {}
        elif base.space.get(key) != entry:
            space[key] = entry
    words += _sets({**fixed, **space, **assignments})
    if record.cpus_per_trial != 1:
        words += ["--cpus-per-trial", record.cpus_per_trial]
    if Path(record.data_root) != Path("data").resolve():
        words += ["--data-root", record.data_root]
    return _line(record, "sweep", *words)


def _scenario_settings(record: SweepRecord) -> SweepSettings:
    """What the command line starts from: the scenario's file, or the model's default space."""
    files = scenario_files(Path(record.data_root))
    if record.scenario in files:
        values = load_settings(files[record.scenario])
    else:
        values = {"space": dict(model_class(record.model).default_space())}
    settings = SweepSettings(**values)
    if settings.model == record.model:
        config_class = model_class(settings.model).config_class
        settings.space = checked_space(config_class, settings.space, where=record.scenario)
    return settings


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
