"""The record of a sweep, `sweep.yaml` in its folder: all that it was started with, and so all that it needs to continue."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from llmemf.command_line import command_line
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError, nearest
from llmemf.io import write_text
from llmemf.removed import without_removed
from sweeps.state.home import Stored, located

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=Stored)
RECORD = "sweep.yaml"
DISK_NAMES = {"varied_keys": "shown"}
"""Fields of a record that have another key in `sweep.yaml`."""
TUNE = "tune"
"""Folder of a sweep that Ray Tune writes for itself; no sweep needs it to resume."""
GROUPS = {"comparisons": "comparison", "ablations": "ablation", "reruns": "rerun", "studies": "study"}
"""Folder of a storage beside `sweeps` -> kind of the groups in it, whose own sweeps are named GROUP--ROW."""


class SweepSettings(BaseModel):
    """The settings of a sweep: those of a scenario file, with the options of the command line in place of some."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    model: str = "llm_emf"
    """The system; `llmemf models` lists them."""
    search: Literal["auto", "optuna", "grid", "random"] = "auto"
    """auto: spread points, then a Gaussian process over settings and epochs; optuna: grid points, then TPE refines; grid: every grid point once; random: draws from the continuous space."""
    trials: int = Field(40, ge=1)
    """Number of trials; `grid` runs the whole grid unless the command line says otherwise."""
    grid_points: int | None = Field(None, ge=0)
    """How many grid points `optuna` runs first; by default all, or half of the trials where the grid is larger."""
    scheduler: Literal["asha", "none"] = "asha"
    """asha: stop trials that fall behind (asynchronous successive halving); none: let all run to their end."""
    grace_period: int = Field(3, ge=1)
    """ASHA: epochs before a trial can be stopped."""
    reduction_factor: float = Field(3, gt=1)
    """ASHA: one of so many trials passes each rung; the next rung has so many times the epochs."""
    confirm: float = Field(0.2, ge=0, le=1)
    """Share of the search's epochs, at most, in which its best trials run again with new seeds; 0 runs none again."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of grid order, sampler and trials."""
    fixed: dict[str, Any] = {}
    """Settings of every trial, where they differ from the model's defaults."""
    space: dict[str, Any] = {}
    """What is searched; see `sweeps.search.space`. Empty: the model's default space."""
    constraints: list[str] = []
    """Comparisons that every grid point must fulfil, for example `alpha + beta <= 1`."""


class Observation(BaseModel):
    """A trial of an earlier sweep: what a new one learns from it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    settings: dict[str, Any]
    """Its value of every setting of the new sweep's space."""
    values: dict[int, float]
    """Objective (best so far) after some of its epochs, the last one included."""


class SweepRecord(Stored, SweepSettings):
    """All that a sweep was started with: `sweep.yaml` in its folder."""

    keep: int = Field(5, ge=1)
    """How many trials keep their weights, the best ones."""
    varied_keys: list[str] = []
    """Settings that differ between trials."""
    points: list[dict[str, Any]] = []
    """Points that are trained first, ahead of the grid: those of `--points`, and the best of the earlier sweep."""
    warm_start: str = ""
    """The earlier sweep or file whose results feed the search; `none` where that was turned off."""
    observations: list[Observation] = []
    """Those results, so that a resumed sweep proposes what it would have proposed whatever became of the earlier one."""
    status: Literal["planned", "running", "interrupted", "completed", "incomplete", "failed"] = "planned"
    """completed: every trial has a value; incomplete: the search has ended, but trials failed; failed: every trial did."""

    @property
    def is_searched(self) -> bool:
        """Whether the search has ended and its best trial stands, also where some trials failed."""
        return self.status in ("completed", "incomplete")

    @property
    def settings(self) -> SweepSettings:
        """Those of its settings that a scenario file may have, as a copy."""
        return SweepSettings(**self.model_dump(include=set(SweepSettings.model_fields)))

    @property
    def file(self) -> Path:
        return Path(self.storage) / "sweeps" / self.name / RECORD

    def save(self) -> None:
        """Write `sweep.yaml`; it appears whole or not at all."""
        content = {DISK_NAMES.get(key, key): value for key, value in json.loads(self.model_dump_json()).items()}
        write_text(self.folder / RECORD, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))

    @classmethod
    def load(cls, folder: Path) -> SweepRecord:
        """Read the record of a sweep; storage and database are those of the folder where it lies now, see `located`.

        Raises:
            InputError: there is none, it was damaged, or it has a setting that was removed since.
        """
        where, names = str(folder / RECORD), {on_disk: name for name, on_disk in DISK_NAMES.items()}
        stored = without_removed(read_yaml(folder / RECORD), where)
        values = located({"confirm": 0, **{names.get(key, key): value for key, value in stored.items()}}, folder)
        for section in ("fixed", "space"):
            if isinstance(values.get(section), dict):
                values[section] = without_removed(values[section], where, values.get("model", ""))
        return build_config(cls, values, where=where)


def storage_folder(storage: Path) -> Path:
    """Where sweeps are stored, absolute; there may be nothing yet.

    Raises:
        InputError: no folder can be there.
    """
    found = storage.resolve()
    if file := next((path for path in (found, *found.parents) if path.is_file()), None):
        raise InputError(f"--storage {storage}: {file} is a file: name a folder, or move the file away")
    return found


def stored_sweeps(storage: Path) -> list[SweepRecord]:
    """All sweeps of a storage folder; one that cannot be read is left out with a notice.

    Raises:
        InputError: no folder can be there.
    """
    storage = storage_folder(storage)
    return readable(sorted(path.parent for path in (storage / "sweeps").glob(f"*/{RECORD}")), SweepRecord.load)


def newest_sweeps(storage: Path, *, with_parts: bool = False) -> list[SweepRecord]:
    """The sweeps of a storage folder, the newest first; those of groups only `with_parts`."""
    records = [record for record in stored_sweeps(storage) if with_parts or not group_of(storage, record.name)]
    return sorted(records, key=lambda record: record.created, reverse=True)


def readable(folders: Iterable[Path], load: Callable[[Path], Record]) -> list[Record]:
    """Stored sweeps or groups; one that cannot be read is left out with a notice."""
    records = []
    for folder in folders:
        try:
            records.append(load(folder))
        except InputError as error:
            left_out(str(error))
    return records


@functools.cache
def left_out(why: str) -> None:
    """Say, once in a process, which of the stored sweeps and groups cannot be read and why."""
    log.warning("left out: %s", why)


def newest(records: Iterable[Record], scenario: str | None) -> Record | None:
    """The newest of some records, or of those of a scenario."""
    matching = [record for record in records if scenario in (None, record.requested, record.scenario)]
    return max(matching, key=lambda record: record.created, default=None)


def find_sweep(storage: Path, flag: str = "", *, name: str | None = None, scenario: str | None = None) -> SweepRecord:
    """The record of a stored sweep: the named one, or the newest (of a scenario).

    Args:
        flag: the option that asked for it, "" for an argument.

    Raises:
        InputError: there is none (existing ones are offered), or it is damaged.
    """
    root, where = storage_folder(storage) / "sweeps", f"{flag}: " if flag else ""
    existing = sorted(path.parent.name for path in root.glob(f"*/{RECORD}"))
    if name is not None:
        if name in existing:
            return SweepRecord.load(root / name)
        for folder, kind in GROUPS.items():
            if (group := storage / folder / name).exists():
                page = group / f"{kind}.html"
                see = page if page.exists() else group
                raise InputError(f"{where}{name} is no sweep but a group of sweeps ({kind}): see {see}")
        own = [known for known in existing if not group_of(storage, known)] or existing
        hint = nearest(name, own) if own else f"no sweep is stored in {root}"
        raise InputError(f"{where}there is no sweep {name!r}: {hint}")
    # A group continues its own sweeps, unless the user names one of them.
    found = newest(newest_sweeps(storage), scenario)
    if found is None:
        start = command_line("sweep", "--scenario", scenario or "sample")
        known = (
            f"stored sweeps: {', '.join(existing)}"
            if existing
            else f"start one with `{start}`, or name another --storage"
        )
        wanted = "no sweep" if scenario is None else f"no sweep of scenario {scenario!r}"
        raise InputError(f"{where}{wanted} in {root}; {known}")
    return found


def group_of(storage: Path, name: str) -> str:
    """The group (`comparison NAME`, ...) of this storage that made a sweep, "" where none did."""
    parts = name.split("--")
    owners = ["--".join(parts[:count]) for count in range(1, len(parts))]
    found = (
        f"{kind} {owner}" for root, kind in GROUPS.items() for owner in owners if (storage / root / owner).exists()
    )
    return next(found, "")
