"""Where the settings of a sweep come from: a scenario file, and `--set` of the command line in place of some of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from llmemf.command_line import command_line
from llmemf.config import TrialConfig, build_config, parse_assignment, read_yaml, unknown_keys
from llmemf.errors import InputError, nearest
from llmemf.models import model_class
from sweeps.search.space_entries import build_space
from sweeps.state.sweep_record import SweepSettings

SCENARIO_FILES = Path(__file__).resolve().parent.parent / "scenarios"
SAMPLE = "sample"
FILE_OPTIONS = (
    "search", "trials", "grid_points", "scheduler", "grace_period", "reduction_factor", "confirm", "seed",
)  # fmt: skip
"""Options of a sweep that its scenario file may decide."""
RESOURCES = ("cpus_per_trial", "gpus_per_trial", "concurrency", "ray_address", "fresh_workers")
"""Options that every command line may give anew."""
IMMUTABLE_SETTINGS = (
    "model", "epochs", "monitor", "selection", "ties", "valid_cases", "device", "text_encoder", "image_encoder",
    "profile_encoder",
)  # fmt: skip
"""Settings that must be the same in all trials: their objectives would not be comparable, or data depends on them."""
SHARED_SETTINGS = (
    "epochs", "patience", "monitor", "selection", "batch_size", "eval_batch_size", "valid_cases", "max_length", "ties",
    "precision", "device", "objective", "sampled_negatives",
)  # fmt: skip
"""Settings of a scenario's file that hold for every system that has them: how long, on what, and how it is measured. What
a system is (widths, weights, modalities) stays its own."""


class ScenarioFile(SweepSettings):
    """What may stand in a file of `sweeps/scenarios/`."""

    ablations: dict[str, dict[str, Any]] = Field({})
    """Rows of one's own for `sweeps/ablation.py`: name -> settings that differ from the full model."""


def scenario_files(data_root: Path) -> dict[str, Path]:
    """Scenario files by name: the shipped ones, and one's own beside the scenarios' folders, which come first."""
    own = [path for path in sorted(data_root.glob("*.yaml")) if path.is_file()]
    return {path.stem: path for path in [*sorted(SCENARIO_FILES.glob("*.yaml")), *own]}


def load_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a sweep from one scenario file and check its keys.

    Raises:
        InputError: unknown keys (the nearest valid one is offered), wrong types, a setting that stands twice, or a space
            that cannot be read.
    """
    values = read_yaml(path)
    build_config(ScenarioFile, values, where=path.name)
    values.pop("ablations", None)
    if values.get("space"):
        try:
            build_space(values["space"], values.get("constraints", ()))
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None
    twice = sorted(set(values.get("fixed", {})) & set(space_keys(values.get("space", {}))))
    if twice:
        raise InputError(f"{path.name}: {twice[0]!r} stands in both fixed and space")
    return values


def keys_of(name: str) -> list[str]:
    """The settings of an entry of the `space` section (`"alpha, beta"` are two)."""
    return [key.strip() for key in str(name).split(",")]


def space_keys(space: dict[str, Any]) -> list[str]:
    """The settings that a `space` section names."""
    return [key for name in space for key in keys_of(name)]


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
    if get_origin(config_class.model_fields[key].annotation) is tuple:
        nested = isinstance(value, list) and any(isinstance(part, list) for part in value)
        values = value if nested else [value if isinstance(value, list) else [value]]
    else:
        values = value if isinstance(value, list) else [value]
    return [checked(config_class, key, part, where=where) for part in values]


def checked(config_class: type[BaseModel], key: str, value: Any, *, where: str) -> Any:
    """One value of one setting, in the setting's own type (1 becomes 1.0 where a float is expected).

    Raises:
        InputError: naming the value and what is valid.
    """
    field = config_class.model_fields[key]
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        value = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{where}: {key} = {value!r}: {error.errors()[0]['msg']}") from None
    return list(value) if isinstance(value, tuple) else value


def checked_settings(
    config_class: type[TrialConfig], values: Mapping[str, Any], where: str, several: str = "one value is expected"
) -> dict[str, Any]:
    """Settings in their own types, one value each.

    Args:
        several: what to say of several values.

    Raises:
        InputError: a setting is unknown, invalid, or has several values.
    """
    for problem in unknown_keys(values, config_class.model_fields, where):
        raise InputError(problem)
    checked = {key: as_values(config_class, key, value, where=where) for key, value in values.items()}
    for key, found in checked.items():
        if len(found) > 1:
            raise InputError(f"{where}: {key}: {several}")
    return {key: found[0] for key, found in checked.items()}


def checked_space(config_class: type[TrialConfig], space: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The `space` section with every value checked against the model's settings.

    Raises:
        InputError: an unknown setting, an invalid value, or a setting that cannot differ between trials.
    """
    below = f"{where}: space"
    for problem in unknown_keys(space_keys(space), config_class.model_fields, below):
        raise InputError(problem)
    result: dict[str, Any] = {}
    for name, entry in space.items():
        for key in keys_of(name):
            if key in IMMUTABLE_SETTINGS and isinstance(entry, list) and len(entry) > 1:
                raise InputError(f"{where}: {key} must be the same in all trials; give one value")
        if isinstance(entry, dict):
            result[name] = entry if "simplex" in entry else _checked_range(config_class, name, entry, where=below)
        elif "," in str(name):
            raise InputError(f"{below}: {name!r}: several settings belong together only as {{simplex: STEP}}")
        else:
            result[name] = as_values(config_class, name, entry, where=below)
    return result


def _checked_range(config_class: type[TrialConfig], key: str, entry: dict[str, Any], *, where: str) -> dict[str, Any]:
    """A range with its ends in the setting's own type."""
    ends: dict[str, Any] = {
        end: checked(config_class, key, entry[end], where=where) for end in ("low", "high") if end in entry
    }
    if any(isinstance(value, int) for value in ends.values()):
        raise InputError(f"{where}: {key} = {entry}: {key} is a whole number; give it a list of values")
    return {**entry, **ends}


def merged_space(space: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The `space` section with the command line's values in it; a simplex that was cut becomes plain lists."""
    merged: dict[str, Any] = {}
    rest = dict(overrides)
    for name, entry in space.items():
        keys = keys_of(name)
        given = {key: rest.pop(key) for key in keys if key in rest}
        if not given:
            merged[name] = entry
        elif len(keys) == 1:
            merged[name] = given[name]
        else:
            merged[name] = {**entry, "given": {**entry.get("given", {}), **given}}
    return {**merged, **rest}


def find_settings(requested: str | None, data_root: Path, model: str | None) -> tuple[dict[str, Any], str, list[str]]:
    """Settings for a scenario, the scenario that is used, and what to tell the user about it.

    Raises:
        InputError: there is no such scenario, or its file is wrong.
    """
    used, files = used_scenario(requested, data_root), scenario_files(data_root)
    if used not in files:
        own = command_line("new-scenario", used)
        notices = [f"no scenario file: the system's default space is used; `{own}` writes one to change"]
        return {"space": dict(model_class(model or "llm_emf").search_space)}, used, notices
    values, notices = _settings_of(files[used], model)
    if files[used].parent == data_root:
        notices.insert(0, f"settings of {files[used]}")
    return values, used, notices


def used_scenario(requested: str | None, data_root: Path) -> str:
    """The scenario that is used for a requested one: itself, or the sample where its data is not there.

    Raises:
        InputError: none was requested, or nobody knows it; the nearest name is offered.
    """
    files = scenario_files(data_root)
    if requested is None:
        raise InputError(f"--scenario is missing; there are {', '.join(files)}")
    prepared = sorted(path.parent.name for path in data_root.glob("*/manifest.json"))
    if requested not in (SAMPLE, *prepared, *files):
        hint = nearest(requested, sorted({*files, *prepared}))
        how = command_line("data", "--help")
        raise InputError(f"unknown scenario {requested!r}: {hint} (`{how}` says how another one is made)")
    return requested if requested in (SAMPLE, *prepared) else SAMPLE


def drop_absent_modalities(settings: SweepSettings, overrides: dict[str, Any], folder: Path) -> list[str]:
    """Leave out the modalities of which a scenario has no content and no features, where the user names none.

    Args:
        overrides: what the command line says of the space.
        folder: of the prepared scenario.

    Returns:
        What to tell the user about it.
    """
    from llmemf.features.finding import present_modalities

    named = {*settings.fixed, *space_keys(settings.space), *overrides}
    field = model_class(settings.model).config_class.model_fields.get("modalities")
    if field is None or "modalities" in named:
        return []
    left, note = present_modalities(field.default, folder)
    if note:
        settings.fixed["modalities"] = left
    return [note] if note else []


def _settings_of(path: Path, model: str | None) -> tuple[dict[str, Any], list[str]]:
    """What a scenario's file says to a model; one that it was not written for takes what all systems share."""
    values = load_settings(path)
    written_for = values.get("model", SweepSettings.model_fields["model"].default)
    if model in (None, written_for):
        if not values.get("space"):
            fixed = values.get("fixed", {})
            space = dict(model_class(written_for).search_space)
            single = [key for key in space_keys(space) if key in fixed and not isinstance(fixed[key], list)]
            values["space"] = merged_space(space, {key: fixed.pop(key) for key in single})
        return values, []
    model_type = model_class(model)
    fixed = {
        key: value
        for key, value in values.get("fixed", {}).items()
        if key in SHARED_SETTINGS and key in model_type.config_class.model_fields
    }
    kept = {key: value for key, value in values.items() if key not in ("model", "fixed", "space", "constraints")}
    notice = (
        f"{path.name} is for {written_for}: of it {model} takes {', '.join(fixed) or 'no setting'}, which all systems share, "
        "and searches its own default space"
    )
    return {**kept, "fixed": fixed, "space": dict(model_type.search_space)}, [notice]
