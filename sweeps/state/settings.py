"""What a sweep is: its scenario file, the command line over it, and the record that lets it resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from llmemf.config import TrialConfig, build_config, parse_assignment, read_yaml, unknown_keys, without_removed
from llmemf.errors import InputError, nearest
from llmemf.io import write_text
from llmemf.models import model_class

SCENARIO_FILES = Path(__file__).resolve().parent.parent / "scenarios"
RECORD = "sweep.yaml"
DISK_NAMES = {"varied_keys": "shown"}
"""Fields of a record that have another key in `sweep.yaml`."""
TUNE = "tune"
"""Folder of a sweep that Ray Tune writes for itself; nothing of it is needed to resume."""
GROUPS = ("comparisons", "ablations", "reruns")
"""Folders of a storage beside `sweeps`: what is made of sweeps of its own, named OWNER--ENTRY."""
IMMUTABLE_SETTINGS = (
    "model",
    "epochs",
    "monitor",
    "selection",
    "ties",
    "valid_cases",
    "device",
    "text_encoder",
    "image_encoder",
    "profile_encoder",
)
"""Settings that must be the same in all trials: their objectives would not be comparable, or data depends on them."""
SHARED_SETTINGS = (
    "epochs",
    "patience",
    "monitor",
    "selection",
    "batch_size",
    "eval_batch_size",
    "valid_cases",
    "max_length",
    "ties",
    "precision",
    "device",
    "objective",
    "sampled_negatives",
)
"""Settings of a scenario's file that hold for every system that has them: how long, on what, and how it is measured. What
a system is (widths, weights, modalities) stays its own."""


class SweepSettings(BaseModel):
    """One file of `sweeps/scenarios/`, with the command line's options laid over it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str = "llm_emf"
    """The system, see `llmemf.models.MODELS`."""
    search: Literal["optuna", "grid", "random"] = "optuna"
    """optuna: grid points, then TPE refines; grid: every grid point once; random: draws from the continuous space."""
    trials: int = Field(40, ge=1)
    """Number of trials; `grid` runs the whole grid unless the command line says otherwise."""
    grid_points: int | None = Field(None, ge=0)
    """How many grid points `optuna` runs first; by default all, or half of the trials where the grid is larger."""
    scheduler: Literal["asha", "none"] = "asha"
    """asha: stop trials that fall behind (asynchronous successive halving); none: let all run to their end."""
    grace_period: int = Field(3, ge=1)
    """ASHA: epochs before a trial can be stopped."""
    reduction_factor: float = Field(3, gt=1)
    """ASHA: one of so many trials goes on at each rung; the next rung has so many times the epochs."""
    seed: int = Field(0, ge=0)
    """Seed of grid order, sampler and trials."""
    fixed: dict[str, Any] = {}
    """Settings of every trial, where they differ from the model's defaults."""
    space: dict[str, Any] = {}
    """What is searched; see `sweeps.search.space`. Empty: the model's default space."""
    constraints: list[str] = []
    """Comparisons that every grid point must fulfil, for example `alpha + beta <= 1`."""


class ScenarioFile(SweepSettings):
    """What may stand in a file of `sweeps/scenarios/`."""

    ablations: dict[str, dict[str, Any]] = {}
    """Rows of one's own for `sweeps/ablation.py`: name -> settings that differ from the full model."""


class SweepRecord(SweepSettings):
    """All that a sweep was started with: `sweep.yaml` in its folder."""

    name: str
    requested: str
    """The scenario that was asked for."""
    scenario: str
    """The scenario that is used: the same, or `sample`."""
    data_root: str
    storage: str
    tracking_uri: str
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    concurrency: int | None = None
    keep: int = Field(5, ge=1)
    """How many trials keep their weights, the best ones."""
    ray_address: str | None = None
    fresh_workers: bool = False
    """Whether every trial starts a process of its own."""
    fingerprint: str = ""
    varied_keys: list[str] = []
    """Settings that differ between trials."""
    created: str = ""
    status: Literal["planned", "running", "interrupted", "completed", "failed"] = "planned"

    @property
    def folder(self) -> Path:
        return Path(self.storage) / "sweeps" / self.name

    def save(self) -> None:
        """Write `sweep.yaml`; it appears whole or not at all."""
        content = {DISK_NAMES.get(key, key): value for key, value in json.loads(self.model_dump_json()).items()}
        write_text(self.folder / RECORD, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))

    @classmethod
    def load(cls, folder: Path) -> SweepRecord:
        """Read the record of a sweep.

        Raises:
            InputError: there is none, it was damaged, or it has a setting that was removed since.
        """
        where, names = str(folder / RECORD), {on_disk: name for name, on_disk in DISK_NAMES.items()}
        stored = without_removed(read_yaml(folder / RECORD), where)
        values = {names.get(key, key): value for key, value in stored.items()}
        for section in ("fixed", "space"):
            if isinstance(values.get(section), dict):
                values[section] = without_removed(values[section], where)
        return build_config(cls, values, where=where)


def scenario_files() -> dict[str, Path]:
    """Shipped scenario files by name."""
    return {path.stem: path for path in sorted(SCENARIO_FILES.glob("*.yaml"))}


def load_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a sweep from one scenario file and check its keys.

    Raises:
        InputError: unknown keys (the nearest valid one is offered), wrong types, or a setting that stands twice.
    """
    values = read_yaml(path)
    build_config(ScenarioFile, values, where=path.name)
    values.pop("ablations", None)
    twice = sorted(set(values.get("fixed", {})) & set(space_keys(values.get("space", {}))))
    if twice:
        raise InputError(f"{path.name}: {twice[0]!r} stands in both fixed and space")
    return values


def load_ablations(path: Path) -> dict[str, dict[str, Any]]:
    """The ablations of one scenario file: name -> settings.

    Raises:
        InputError: the file has unknown keys or wrong types.
    """
    return build_config(ScenarioFile, read_yaml(path), where=path.name).ablations


def space_keys(space: dict[str, Any]) -> list[str]:
    """The settings that a `space` section names (`"alpha, beta"` are two)."""
    return [key.strip() for name in space for key in str(name).split(",")]


def apply_assignments(settings: SweepSettings, assignments: list[str], epochs: int | None = None) -> dict[str, Any]:
    """Lay `--set key=value` over the settings: one value fixes a setting, a comma list replaces its grid.

    Returns:
        Overrides for the space (`build_space`); fixed settings are changed in place.

    Raises:
        InputError: an unknown setting (the nearest one is offered) or an invalid value.
    """
    config_class = model_class(settings.model).config_class
    searched = space_keys(settings.space)
    overrides: dict[str, Any] = {}
    pairs = [parse_assignment(text) for text in assignments]
    if epochs is not None:
        pairs.append(("epochs", epochs))
    for key, value in pairs:
        problems = unknown_keys([key], config_class.model_fields, "--set")
        if problems:
            raise InputError(problems[0])
        values = as_values(config_class, key, value, where="--set")
        if key == "model":
            raise InputError("--set model: give --model")
        if len(values) > 1:
            settings.fixed.pop(key, None)
            overrides[key] = values
        elif key in searched:
            overrides[key] = values[0]
        else:
            overrides.pop(key, None)
            settings.fixed[key] = values[0]
    return overrides


def as_values(config_class: type[TrialConfig], key: str, value: Any, *, where: str) -> list[Any]:
    """Values of one setting as the model will see them: a list of checked values, one of them if it is fixed."""
    is_tuple = get_origin(config_class.model_fields[key].annotation) is tuple
    if is_tuple:
        nested = isinstance(value, list) and any(isinstance(part, list) for part in value)
        values = value if nested else [value if isinstance(value, list) else [value]]
    else:
        values = value if isinstance(value, list) else [value]
    return [checked(config_class, key, part, where=where) for part in values]


def checked(config_class: type[TrialConfig], key: str, value: Any, *, where: str) -> Any:
    """One value of one setting, in the setting's own type (1 becomes 1.0 where a float is expected).

    Raises:
        InputError: naming the value and what is valid.
    """
    field = config_class.model_fields[key]
    kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        value = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{where}: {key} = {value!r}: {error.errors()[0]['msg']}") from None
    return list(value) if isinstance(value, tuple) else value


def checked_space(config_class: type[TrialConfig], space: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The `space` section with every value checked against the model's settings.

    Raises:
        InputError: an unknown setting, an invalid value, or a setting that cannot differ between trials.
    """
    problems = unknown_keys(space_keys(space), config_class.model_fields, f"{where}: space")
    if problems:
        raise InputError(problems[0])
    result = {}
    for name, entry in space.items():
        for key in str(name).split(","):
            if key.strip() in IMMUTABLE_SETTINGS and isinstance(entry, list) and len(entry) > 1:
                raise InputError(f"{where}: {key.strip()} must be the same in all trials; give one value")
        if isinstance(entry, dict):
            if "simplex" not in entry:
                for end in ("low", "high"):
                    if end in entry:
                        checked(config_class, name, entry[end], where=f"{where}: space")
            result[name] = entry
        elif "," in str(name):
            raise InputError(f"{where}: space: {name!r}: several settings belong together only as {{simplex: STEP}}")
        else:
            result[name] = as_values(config_class, name, entry, where=f"{where}: space")
    return result


def find_sweep(storage: Path, flag: str, *, name: str | None, scenario: str | None) -> Path:
    """Folder of the sweep that goes on: the named one, or the newest (of a scenario).

    Args:
        flag: the option that asked for it.

    Raises:
        InputError: there is none; existing ones are offered.
    """
    root = storage / "sweeps"
    existing = {path.parent.name: path for path in root.glob(f"*/{RECORD}")}
    if name is not None:
        if name in existing:
            return root / name
        hint = nearest(name, existing) if existing else f"no sweep is stored in {root}"
        raise InputError(f"{flag}: there is no sweep {name!r}: {hint}")
    # The sweeps of a group go on with it, when they are not named.
    records = [SweepRecord.load(path.parent) for name, path in existing.items() if not is_of_group(storage, name)]
    matching = [record for record in records if scenario is None or scenario in (record.requested, record.scenario)]
    if not matching:
        found = f"stored sweeps: {', '.join(sorted(existing))}" if existing else "none is stored there"
        wanted = "no sweep" if scenario is None else f"no sweep of scenario {scenario!r}"
        raise InputError(f"{flag}: {wanted} in {root}; {found}")
    return root / max(matching, key=lambda record: record.created).name


def is_of_group(storage: Path, name: str) -> bool:
    """Whether a sweep was made by a comparison, an ablation or a rerun of this storage."""
    parts = name.split("--")
    owners = ["--".join(parts[:count]) for count in range(1, len(parts))]
    return any((storage / root / owner).exists() for root in GROUPS for owner in owners)
