"""A scenario file of one's own: its text, to be changed, and the JSON schema by which editors check and complete it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmemf.command_line import command_line
from llmemf.models import MODELS, model_class
from llmemf.models.overview import typed
from sweeps.core.settings import ScenarioFile
from sweeps.state.sweep_record import SweepSettings

SCHEMA = "scenario.schema.json"
"""File beside one's own scenario files, which name it in their first line."""


def template(scenario: str, model: str, data_root: Path) -> str:
    """The text of a scenario file: the system's default space, and every other key with its default and meaning.

    Args:
        scenario: name of the scenario.
        model: the system.
        data_root: the folder of the prepared scenarios, for the command line.
    """
    root = [] if data_root.resolve() == Path("data").resolve() else ["--data-root", data_root]
    config = model_class(model).config_class.model_fields
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        f"# What a sweep of {scenario} searches. Every key may be left out; docs/scenarios.md explains them.",
        "#",
        f"#   {command_line('sweep', '--scenario', scenario, *root)}",
        "",
    ]
    for key, field in SweepSettings.model_fields.items():
        if key in ("fixed", "space", "constraints"):
            continue
        meaning = " ".join((field.description or "").split()).rstrip(".")
        value = model if key == "model" else typed(field.default)
        lines.append(f"{key}: {value}  # {meaning}")
    lines += ["", f"fixed:  # settings of every trial; `{command_line('models', model)}` lists them"]
    lines += [f"  {key}: {typed(config[key].default)}" for key in ("batch_size", "epochs", "patience") if key in config]
    lines += [
        "",
        "space:  # what is searched: a list of values, {low: 1.0e-4, high: 1.0e-2, log: true}, or {simplex: STEP}",
    ]
    for key, values in model_class(model).default_space().items():
        if isinstance(values, dict):
            inner = ", ".join(f"{part}: {typed(value)}" for part, value in values.items())
            lines.append(f"  {key}: {{{inner}}}")
        else:
            lines.append(f"  {key}: [{', '.join(map(_number, values))}]")
    lines += ["", "constraints: []  # comparisons that every grid point must fulfil, for example alpha + beta <= 1", ""]
    return "\n".join(lines)


def _number(value: Any) -> str:
    """A value as YAML reads it: 1e-05 is a text there, 1.0e-05 a number."""
    text = typed(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def schema() -> dict[str, Any]:
    """The JSON schema of scenario files: their keys, and below `fixed` and `space` the settings of all systems."""
    found = ScenarioFile.model_json_schema()
    known: dict[str, Any] = {}
    for model in MODELS:
        properties = model_class(model).config_class.model_json_schema()["properties"]
        for key, value in properties.items():
            # Systems may differ in the bounds of a setting of one name; the sweep checks them by its own system.
            known.setdefault(key, {part: value[part] for part in ("description", "default") if part in value})
    keys = found["properties"]
    keys["model"]["enum"] = list(MODELS)
    keys["fixed"] |= {"properties": known, "additionalProperties": False}
    keys["space"] |= {
        "properties": {key: {"description": value.get("description", "")} for key, value in known.items()},
        "additionalProperties": {"type": "object", "required": ["simplex"]},
    }
    keys["ablations"]["additionalProperties"] |= {"properties": known, "additionalProperties": False}
    return found
