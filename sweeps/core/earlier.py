"""What a sweep is given beforehand: points of a file, and what earlier sweeps saw of the same scenario and model."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmemf import text_format
from llmemf.config import TrialConfig, parse_value
from llmemf.errors import InputError
from llmemf.scenarios.manifest import MANIFEST, read_manifest
from sweeps.core.settings import as_values
from sweeps.search.grid_points import PointCheck
from sweeps.search.rungs import milestones
from sweeps.search.space import Space
from sweeps.state.sweep_record import Observation, SweepRecord, find_sweep, newest_sweeps
from sweeps.state.sweep_state import SweepState

OFF = "none"
TRAINED_FIRST = 3
"""So many of the best earlier points a warm sweep trains itself, before anything else."""
FREE_SETTINGS = ("epochs", "patience", "seed")
"""Settings that may differ between sweeps that learn from each other: how long a trial runs does not change its epochs."""
MEASURE = ("monitor", "selection", "ties", "valid_cases")
"""Settings that say what the objective is."""
EPOCH_COLUMNS = ("epoch", "epochs_run")


class Table:
    """The rows of a CSV file whose columns are settings.

    Raises:
        InputError: the file cannot be read, or lacks a setting of the space.
    """

    def __init__(self, path: Path, flag: str, space: Space, check: PointCheck) -> None:
        self.path, self.space, self.check = path, space, check
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file)
                self.columns = [name.strip() for name in next(reader, [])]
                self.rows = [
                    (reader.line_num, dict(itertools.zip_longest(self.columns, map(str.strip, row), fillvalue="")))
                    for row in reader
                    if any(cell.strip() for cell in row)
                ]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{flag} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        lacking = [key for key in space.varied_keys if key not in self.columns]
        if lacking:
            raise InputError(
                f"{flag} {path} has no column {lacking[0]}: each setting that is searched needs one "
                f"({', '.join(space.varied_keys)})"
            )

    def point(self, line: int, row: Mapping[str, str]) -> dict[str, Any]:
        """The settings of a row, checked and with four digits.

        Raises:
            InputError: a value is missing or invalid, lies outside of the space, or contradicts a fixed setting.
        """
        where = f"{self.path}, line {line}"
        point: dict[str, Any] = {}
        for key in [key for block in self.space.blocks for key in block.keys]:
            if key in self.columns:
                point[key] = self._value(key, row[key], where)
        single = {
            key: list(value) if isinstance(value, tuple) else value
            for block in self.space.blocks
            if block.kind == "fixed"
            for key, value in zip(block.keys, block.points[0])
        }
        for key, value in {**self.check.fixed, **single}.items():
            if key not in FREE_SETTINGS and row.get(key) and (own := self._value(key, row[key], where)) != value:
                raise InputError(f"{where}: {key} = {own}, but this sweep has {value}: give --set {key}={own}")
        try:
            return self.space.snapped({**single, **point})
        except InputError as error:
            raise InputError(f"{where}: {error}: change the row, or the space with --set") from None

    def _value(self, key: str, text: str, where: str) -> Any:
        values = as_values(self.check.config_class, key, parse_value(text, where=where), where=where) if text else []
        if len(values) != 1:
            raise InputError(f"{where}: {key} = {text!r}: one value is expected")
        return values[0]


def read_points(path: Path, space: Space, check: PointCheck) -> list[dict[str, Any]]:
    """The points of a file, in its order, each once.

    Raises:
        InputError: the file names no point, or one that this sweep cannot train.
    """
    table = Table(path, "--points", space, check)
    found: dict[tuple, dict[str, Any]] = {}
    for line, row in table.rows:
        point = table.point(line, row)
        if problem := check.problem(point):
            raise InputError(f"{path}, line {line}: {problem}")
        found.setdefault(space.trained_as(point), point)
    if not found:
        raise InputError(f"--points {path} has no row")
    return list(found.values())


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
        wanted: the earlier sweep or a CSV file; `none`, or None for the newest finished sweep alike, if there is one.

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
    epochs, notes = int(check.fixed["epochs"]), []
    if wanted is None:
        earlier = _newest_alike(record)
        if earlier is None:
            return []
        source, seen = earlier.name, _seen(earlier, space, check, epochs)
    elif Path(wanted).is_file():
        source, seen = str(Path(wanted).resolve()), _of_file(Path(wanted), space, check, epochs)
    else:
        earlier = find_sweep(Path(record.storage), "--warm-start", name=wanted)
        _same_measure(earlier, record, check)
        if earlier.fingerprint != _fingerprint(record):
            notes.append(f"the data of {record.scenario} has changed since sweep {earlier.name}")
        source, seen = earlier.name, _seen(earlier, space, check, epochs)
    if not seen:
        if wanted is None:
            return []
        raise InputError(f"--warm-start {wanted}: none of its results lies in this sweep's space")
    record.warm_start, record.observations = source, seen
    longest = max(max(item.values) for item in seen)
    ranked = sorted((item for item in seen if max(item.values) == longest), key=lambda item: -item.values[longest])
    points: dict[tuple, dict[str, Any]] = {}
    for item in ranked:
        points.setdefault(space.trained_as(item.settings), item.settings)
    best = [point for point in points.values() if not check.problem(point)]
    first = add_points(record, best[: min(TRAINED_FIRST, max(1, record.trials // 4))], space, ())
    trained = f", the best {'is' if first == 1 else f'{first} are'} trained first" if first else ""
    said = (
        f"WARM START: {text_format.plural(len(seen), 'trial')} of {source} (best {ranked[0].values[longest]:.4f} after epoch "
        f"{longest}) feed the search{trained}; --warm-start none turns this off"
    )
    return [said, *notes]


def _newest_alike(record: SweepRecord) -> SweepRecord | None:
    """The newest finished sweep of the storage that had the same data, model and space."""
    fingerprint = _fingerprint(record)

    def facts(one: SweepRecord) -> tuple:
        fixed = {key: value for key, value in one.fixed.items() if key not in FREE_SETTINGS}
        same = one.model_copy(update={"fixed": fixed})
        return one.scenario, one.model, same.model_dump_json(include={"fixed", "space", "constraints"})

    finished = (one for one in newest_sweeps(Path(record.storage)) if one.is_searched)
    return next((one for one in finished if one.fingerprint == fingerprint and facts(one) == facts(record)), None)


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


def _seen(earlier: SweepRecord, space: Space, check: PointCheck, epochs: int) -> list[Observation]:
    """The trials of an earlier sweep that lie in the space; settings that one of the two searches must agree."""
    found = []
    for trial in SweepState.load(earlier).records.values():
        settings = {**earlier.fixed, **trial.config}
        agree = all(settings[key] == check.fixed.get(key, settings[key]) for key in trial.config)
        if trial.values and trial.outcome in ("completed", "pruned") and agree:
            found.append((settings, dict(enumerate(trial.values, start=1))))
    return _inside(found, space, check.config_class, epochs)


def _of_file(path: Path, space: Space, check: PointCheck, epochs: int) -> list[Observation]:
    """The results of a file: settings, `objective`, and `epoch` where it is not that of the last epoch."""
    table = Table(path, "--warm-start", space, check)
    if "objective" not in table.columns:
        raise InputError(f"--warm-start {path} has no column objective")
    epoch_column = next((name for name in EPOCH_COLUMNS if name in table.columns), None)
    curves: dict[tuple, tuple[dict[str, Any], dict[int, float]]] = {}
    for line, row in table.rows:
        if not row["objective"]:
            continue
        point = table.point(line, row)
        try:
            value, epoch = float(row["objective"]), int(row[epoch_column]) if epoch_column else epochs
        except ValueError:
            raise InputError(f"{path}, line {line}: objective and epoch must be numbers") from None
        curves.setdefault((space.trained_as(point), row.get("seed")), (point, {}))[1][epoch] = value
    return _inside(curves.values(), space, check.config_class, epochs)


def _inside(
    found: Iterable[tuple[dict[str, Any], dict[int, float]]],
    space: Space,
    config_class: type[TrialConfig],
    epochs: int,
) -> list[Observation]:
    """Results inside the space, to the last epoch of the new sweep, thinned to some epochs."""
    result = []
    for settings, values in found:
        keys = [key for block in space.blocks for key in block.keys]
        defaults = {key: config_class.model_fields[key].default for key in keys}
        try:
            point = space.snapped({key: settings.get(key, defaults[key]) for key in keys})
        except InputError:
            continue
        reached = {epoch: value for epoch, value in sorted(values.items()) if epoch <= epochs}
        if reached:
            result.append(Observation(settings=point, values=milestones(reached)))
    return result
