"""What comparisons, ablations and reruns have in common: entries, each trained over seeds, and sweeps of their own.

mlruns/KINDs/NAME/                       KIND.yaml, journal.jsonl, ranks/, tables
mlruns/sweeps/NAME--ENTRY/               the search of an entry, where there is one
mlruns/sweeps/NAME--ENTRY--seeds/        its configuration over seeds: a grid over `seed`
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

from llmemf.command_line import command_line
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError, nearest
from llmemf.io import write_text
from llmemf.models import model_class
from sweeps.core.plan import Options, Plan, build_plan, plan_resume
from sweeps.core.settings import SAMPLE, scenario_files
from sweeps.state.sweep_record import RECORD, SweepRecord, SweepSettings

RESOURCES = ("cpus_per_trial", "gpus_per_trial", "concurrency", "ray_address", "fresh_workers")
DEFAULT_SEEDS = 5


@dataclass
class GroupOptions:
    """What the command lines of a comparison and of an ablation have in common."""

    scenario: str | None = None
    seeds: int | None = None
    epochs: int | None = None
    seed: int | None = None
    concurrency: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    name: str | None = None
    data_root: Path = Path("data")
    tracking_uri: str | None = None
    storage: Path = Path("mlruns")
    ray_address: str | None = None
    fresh_workers: bool | None = None
    assignments: list[str] = field(default_factory=list)


class GroupRecord(BaseModel):
    """All that a group of sweeps was started with: KIND.yaml in its folder."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: ClassVar[str]
    """comparison, ablation or rerun."""
    command: ClassVar[str]
    """The command that makes it, in sweeps/."""
    entry: ClassVar[str]
    """What an entry is called: in the journal, and in sentences."""

    name: str
    requested: str
    """The scenario that was asked for."""
    scenario: str
    """The scenario that is used: the same, or `sample`."""
    seeds: list[int]
    """Seeds of each configuration; a search has another one."""
    seed: int = 0
    """Seed of the searches and of their trials."""
    data_root: str
    storage: str
    tracking_uri: str
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    concurrency: int | None = None
    ray_address: str | None = None
    fresh_workers: bool = False
    fingerprint: str = ""
    created: str = ""
    status: Literal["planned", "running", "interrupted", "completed", "failed"] = "planned"

    @property
    def entries(self) -> list[str]:
        """Names of the entries in the order of the table."""
        raise NotImplementedError

    def model_of(self, entry: str) -> str:
        """The system that an entry trains."""
        raise NotImplementedError

    @classmethod
    def file(cls) -> str:
        return f"{cls.kind}.yaml"

    @classmethod
    def root(cls, storage: Path) -> Path:
        return storage / f"{cls.kind}s"

    @property
    def folder(self) -> Path:
        return self.root(Path(self.storage)) / self.name

    @property
    def is_fallback(self) -> bool:
        return self.scenario == SAMPLE and self.requested != SAMPLE

    def save(self) -> None:
        """Write the record; it appears whole or not at all."""
        content = json.loads(self.model_dump_json())
        write_text(self.folder / self.file(), yaml.safe_dump(content, sort_keys=False, default_flow_style=None))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a record.

        Raises:
            InputError: there is none, or it was damaged.
        """
        return build_config(cls, read_yaml(folder / cls.file()), where=str(folder / cls.file()))

    def sweep_name(self, entry: str, step: str = "search") -> str:
        return f"{self.name}--{entry}" + ("--seeds" if step == "seeds" else "")

    def sweep_folder(self, entry: str, step: str = "search") -> Path:
        return Path(self.storage) / "sweeps" / self.sweep_name(entry, step)

    def resume_command(self) -> str:
        """The command line that continues it, as it can be typed here."""
        return command_line(self.command, "--resume", "--name", self.name, storage=self.storage)


Group = TypeVar("Group", bound=GroupRecord)


def check_new(record: GroupRecord) -> None:
    """Check that a group may start under its name.

    Raises:
        InputError: the name is no good, or taken.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", record.name):
        raise InputError(
            f"--name {record.name!r}: letters, digits, '.', '_' and '-' only, starting with a letter or digit"
        )
    if (record.folder / record.file()).exists():
        raise InputError(
            f"{_a(record.kind)} named {record.name!r} exists in {record.storage}: give --resume to continue it, or another --name"
        )
    steps = [(entry, step) for entry in record.entries for step in ("search", "seeds")]
    taken = [record.sweep_name(*step) for step in steps if record.sweep_folder(*step).exists()]
    if taken:
        raise InputError(f"a sweep named {taken[0]!r} exists in {record.storage}: give another --name")


def find_group(kind: type[Group], storage: Path, name: str | None, scenario: str | None = None) -> Group:
    """The stored group that goes on: the named one, or the newest (of a scenario).

    Raises:
        InputError: there is none; existing ones are offered.
    """
    root = kind.root(storage)
    existing = sorted(path.parent.name for path in root.glob(f"*/{kind.file()}"))
    if name is not None and name not in existing:
        hint = nearest(name, existing) if existing else f"none is stored in {root}"
        raise InputError(f"--resume: there is no {kind.kind} {name!r}: {hint}")
    records = [kind.load(root / known) for known in existing if name in (None, known)]
    matching = [record for record in records if scenario is None or scenario in (record.requested, record.scenario)]
    if not matching:
        wanted = f"no {kind.kind}" if scenario is None else f"no {kind.kind} of scenario {scenario!r}"
        found = f"stored ones: {', '.join(existing)}" if existing else "none is stored there"
        raise InputError(f"--resume: {wanted} in {root}; {found}")
    record = max(matching, key=lambda record: record.created)
    # The folder may have been moved together with all that lies in it.
    record.storage = str(storage)
    return record


def resume_group(kind: type[Group], options: Any, kept: tuple[str, ...]) -> Group:
    """The stored group that a command line continues, with its resources.

    Args:
        options: of the command line; attributes as in `RESOURCES`, `storage`, `name`, `scenario`, `assignments`.
        kept: options that a stored group has once and for all.

    Raises:
        InputError: there is none, or an option would change it.
    """
    changed = [f"--{key.replace('_', '-')}" for key in kept if getattr(options, key) not in (None, False)]
    changed += ["--set"] if options.assignments else []
    if changed:
        raise InputError(f"--resume continues {_a(kind.kind)} as it was started: leave out {', '.join(changed)}")
    record = find_group(kind, options.storage.resolve(), options.name, options.scenario)
    for key in RESOURCES:
        if getattr(options, key) is not None:
            setattr(record, key, getattr(options, key))
    return record


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def used_scenario(requested: str, data_root: Path) -> str:
    """The scenario that is used for a requested one: itself, or the sample where its data is not there.

    Raises:
        InputError: nobody knows it; the nearest name is offered.
    """
    files = scenario_files()
    prepared = sorted(path.parent.name for path in data_root.glob("*/manifest.json"))
    if requested not in (SAMPLE, *prepared, *files):
        known = sorted({*files, *prepared})
        raise InputError(
            f"unknown scenario {requested!r}: {nearest(requested, known)}; see `llmemf data import --help`"
        )
    return requested if requested in (SAMPLE, *prepared) else SAMPLE


def plan_seeds(record: GroupRecord, entry: str, chosen: dict[str, Any]) -> Plan:
    """A configuration over seeds, none of them stopped by a scheduler; a closed form has no use for several.

    Args:
        chosen: its settings, without `model` and `seed`.

    Raises:
        InputError: the settings do not fit the system.
    """
    if (record.sweep_folder(entry, "seeds") / RECORD).exists():
        return stored_plan(record, entry, "seeds")
    model = record.model_of(entry)
    seeds = record.seeds[:1] if model_class(model).closed_form else record.seeds
    settings = SweepSettings(
        model=model, search="grid", trials=len(seeds), scheduler="none", seed=record.seed, fixed=chosen,
        space={"seed": seeds},
    )  # fmt: skip
    return build_plan(sweep_record(record, settings, entry, "seeds", keep=len(seeds)), whole_grid=True)


def sweep_record(
    record: GroupRecord, settings: SweepSettings, entry: str, step: str = "search", keep: int = 1
) -> SweepRecord:
    """The record of one of a group's sweeps."""
    shared = ("requested", "scenario", "data_root", "storage", "tracking_uri", *RESOURCES)
    return SweepRecord(
        **settings.model_dump(),
        **{key: getattr(record, key) for key in shared},
        name=record.sweep_name(entry, step),
        keep=keep,
        created=datetime.datetime.now().isoformat(timespec="microseconds"),
    )


def stored_plan(record: GroupRecord, entry: str, step: str) -> Plan:
    """The continuation of one of a group's sweeps."""
    resources = {key: getattr(record, key) for key in RESOURCES}
    return plan_resume(Options(name=record.sweep_name(entry, step), storage=Path(record.storage), **resources))
