"""What a sweep is given beforehand: points of a file, and what earlier sweeps saw of the same scenario and model."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmemf import text_format
from llmemf.config import parse_value
from llmemf.errors import InputError
from llmemf.scenarios.manifest import MANIFEST, read_manifest
from sweeps.core.settings import as_values
from sweeps.search.grid_points import PointCheck
from sweeps.search.rungs import milestones
from sweeps.search.space import Space
from sweeps.state.sweep_record import Observation, SweepRecord, find_sweep, group_of, stored_sweeps
from sweeps.state.sweep_state import SweepState

OFF = "none"
TRAINED_FIRST = 3
"""So many of the best earlier points a warm sweep trains itself, before anything else."""
FREE_SETTINGS = ("epochs", "patience", "seed")
"""Settings that may differ between sweeps that learn from each other: how long a trial runs does not change its epochs."""
MEASURE = ("monitor", "selection", "ties", "valid_cases")
"""Settings that say what the objective is."""


def read_points(path: Path, space: Space, check: PointCheck) -> list[dict[str, Any]]:
    """The points of a CSV file whose columns are settings, in its order, each once.

    Raises:
        InputError: the file cannot be read, lacks a setting of the space, or names no point, or one that this sweep cannot train.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, [*map(str.strip, row)]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--points {path} cannot be read: {error}") from None
    if lacking := [key for key in space.varied_keys if key not in columns]:
        searched = ", ".join(space.varied_keys)
        raise InputError(
            f"--points {path} has no column {lacking[0]}: each setting that is searched needs one ({searched})"
        )
    found: dict[tuple, dict[str, Any]] = {}
    for line, cells in lines:
        if not any(cells):
            continue
        row = dict(itertools.zip_longest(columns, cells, fillvalue=""))
        point = _point(row, f"{path}, line {line}", space, check)
        if problem := check.problem(point):
            raise InputError(f"{path}, line {line}: {problem}")
        found.setdefault(space.trained_as(point), point)
    if not found:
        raise InputError(f"--points {path} has no row")
    return list(found.values())


def _point(row: Mapping[str, str], where: str, space: Space, check: PointCheck) -> dict[str, Any]:
    """The settings of a row, checked and with four digits.

    Raises:
        InputError: a value is missing or invalid, lies outside of the space, or contradicts a fixed setting.
    """

    def value_of(key: str) -> Any:
        text = row[key]
        values = as_values(check.config_class, key, parse_value(text, where=where), where=where) if text else []
        if len(values) != 1:
            raise InputError(f"{where}: {key} = {text!r}: one value is expected")
        return values[0]

    single = {key: list(value) if isinstance(value, tuple) else value for key, value in space.fixed.items()}
    given = {key: value_of(key) for key in space.keys if key in row}
    for key, value in {**check.fixed, **single}.items():
        if key not in FREE_SETTINGS and row.get(key) and (own := value_of(key)) != value:
            raise InputError(f"{where}: {key} = {own}, but this sweep has {value}: give --set {key}={own}")
    try:
        return space.snapped({**single, **given})
    except InputError as error:
        raise InputError(f"{where}: {error}: change the row, or the space with --set") from None


def add_points(record: SweepRecord, points: Iterable[dict[str, Any]], space: Space, known: Iterable) -> int:
    """Note the points in a record that it does not have and that no trial has.

    Args:
        known: configurations of the trials so far.

    Returns:
        their number.
    """
    seen = {space.trained_as(settings) for settings in (*known, *record.points)}
    new = [point for point in points if space.trained_as(point) not in seen]
    record.points += new
    return len(new)


def warm_start(record: SweepRecord, wanted: str | None, space: Space, check: PointCheck) -> list[str]:
    """Give a new sweep what earlier ones saw, and have it train their best points first.

    Args:
        wanted: the earlier sweep; `none`, or None for the newest finished sweep alike, if there is one.

    Returns:
        what to tell the user.

    Raises:
        InputError: the one that is wanted cannot be used.
    """
    learns = record.search not in ("grid", "random")
    if wanted == OFF or (wanted is None and not learns):
        record.warm_start = OFF if wanted else ""
        return []
    if not learns:
        raise InputError(f"--warm-start {wanted}: --search {record.search} does not learn from results")
    notes = []
    if wanted is None:
        earlier = _newest_alike(record)
        if earlier is None:
            return []
    else:
        earlier = SweepRecord.load(find_sweep(Path(record.storage), "--warm-start", name=wanted, scenario=None))
        _same_measure(earlier, record, check)
        if earlier.fingerprint != _fingerprint(record):
            notes.append(f"the data of {record.scenario} has changed since sweep {earlier.name}")
    seen = _seen(earlier, space, check)
    if not seen:
        if wanted is None:
            return []
        raise InputError(f"--warm-start {wanted}: none of its results lies in this sweep's space")
    record.warm_start, record.observations = earlier.name, seen
    longest = max(max(item.values) for item in seen)
    ranked = sorted((item for item in seen if max(item.values) == longest), key=lambda item: -item.values[longest])
    points: dict[tuple, dict[str, Any]] = {}
    for item in ranked:
        points.setdefault(space.trained_as(item.settings), item.settings)
    best = [point for point in points.values() if not check.problem(point)]
    first = add_points(record, best[: min(TRAINED_FIRST, max(1, record.trials // 4))], space, ())
    said = (
        f"WARM START: {text_format.plural(len(seen), 'trial')} of {earlier.name} (best {ranked[0].values[longest]:.4f}) feed the "
        f"search, {'the best is' if first == 1 else f'the best {first} are'} trained first; --warm-start none turns this off"
    )
    return [said, *notes]


def _newest_alike(record: SweepRecord) -> SweepRecord | None:
    """The newest finished sweep of the storage that had the same data, model and space."""
    fingerprint = _fingerprint(record)

    def facts(one: SweepRecord) -> tuple:
        fixed = {key: value for key, value in one.fixed.items() if key not in FREE_SETTINGS}
        same = one.model_copy(update={"fixed": fixed})
        return one.scenario, one.model, same.model_dump_json(include={"fixed", "space", "constraints"})

    alike = [
        one
        for one in stored_sweeps(Path(record.storage))
        if one.is_searched
        and one.fingerprint == fingerprint
        and facts(one) == facts(record)
        and not group_of(Path(one.storage), one.name)
    ]
    return max(alike, key=lambda one: one.created, default=None)


def _fingerprint(record: SweepRecord) -> str | None:
    folder = Path(record.data_root) / record.scenario
    return read_manifest(folder).fingerprint if (folder / MANIFEST).exists() else None


def _same_measure(earlier: SweepRecord, record: SweepRecord, check: PointCheck) -> None:
    """Raises:
    InputError: the numbers of an earlier sweep mean something else.
    """
    for key in ("scenario", "model"):
        if getattr(earlier, key) != getattr(record, key):
            raise InputError(
                f"--warm-start {earlier.name}: its {key} is {getattr(earlier, key)}, this sweep's {getattr(record, key)}"
            )
    for key in MEASURE:
        if key in check.config_class.model_fields:
            default = check.config_class.model_fields[key].default
            theirs, ours = earlier.fixed.get(key, default), check.fixed.get(key, default)
            if theirs != ours:
                raise InputError(f"--warm-start {earlier.name}: its {key} is {theirs}, this sweep's {ours}")


def _seen(earlier: SweepRecord, space: Space, check: PointCheck) -> list[Observation]:
    """What an earlier sweep saw inside the space, up to the last epoch of the new one, thinned to some epochs."""
    defaults = {key: check.config_class.model_fields[key].default for key in space.keys}
    found = []
    for trial in SweepState.load(earlier).records.values():
        settings = {**defaults, **earlier.fixed, **trial.config}
        # Settings that one of the two searches must agree.
        agree = all(settings[key] == check.fixed.get(key, settings[key]) for key in trial.config)
        reached = dict(enumerate(trial.values[: check.fixed["epochs"]], start=1))
        if not reached or trial.outcome not in ("completed", "pruned") or not agree:
            continue
        with suppress(InputError):  # it lies outside
            point = space.snapped({key: settings[key] for key in space.keys})
            found.append(Observation(settings=point, values=milestones(reached)))
    return found
