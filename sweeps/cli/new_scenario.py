"""A scenario file of one's own.

llmemf new-scenario my_shop                      data/my_shop.yaml, which every sweep of my_shop then reads
llmemf new-scenario my_shop --model sasrec       for another system
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.io import writable_folder, write_text
from sweeps.core.console import CommandConsole

SCHEMA = "scenario.schema.json"
"""File beside one's own scenario files, which name it in their first line."""


def new_scenario(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The scenario, prepared or still to be.")],
    model: Annotated[str, typer.Option(help="The system whose default space it begins with.")] = "llm_emf",
    data_root: Annotated[
        Path, typer.Option(envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios.")
    ] = Path("data"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a scenario file: what a sweep of your data searches.

    It lies beside the scenario's folder, with a JSON schema for editors; sweeps and groups of sweeps find it there by its name.
    """
    from llmemf.scenarios.names import check_name
    from sweeps.core.settings import scenario_files

    check_name(name, "NAME")
    path = data_root / f"{name}.yaml"
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists: change it, or give --overwrite to begin anew")
    text, replaced = template(name, model, data_root), scenario_files(data_root).get(name)
    writable_folder(data_root)
    write_text(data_root / SCHEMA, json.dumps(schema(), indent=1) + "\n")
    write_text(path, text)
    console = CommandConsole()
    console.print(f"{path} written, to be changed; {SCHEMA} beside it lets editors check it", soft_wrap=True)
    if replaced is not None and replaced != path:
        console.print(f"from now on it is read instead of {replaced}, which has other settings", soft_wrap=True)
    root = [] if data_root == Path("data") else ["--data-root", data_root]
    if (data_root / name / "manifest.json").exists():
        following = command_line("sweep", "--scenario", name, "--dry-run", *root)
    else:
        following = command_line("data", "prepare", "table", "--help")
    console.print(f"next: {following}", soft_wrap=True)


def template(scenario: str, model: str, data_root: Path) -> str:
    """The text of a scenario file: the system's default space, and every other key with its default and meaning.

    Args:
        scenario: name of the scenario.
        model: the system.
        data_root: the folder of the prepared scenarios, for the command line.
    """
    from llmemf.models import model_class
    from llmemf.models.overview import typed
    from sweeps.state.sweep_record import SweepSettings

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
    for key, values in model_class(model).search_space.items():
        if isinstance(values, dict):
            inner = ", ".join(f"{part}: {typed(value)}" for part, value in values.items())
            lines.append(f"  {key}: {{{inner}}}")
        else:
            # 1e-05 is a text in YAML, 1.0e-05 a number.
            numbers = [
                text if "." in (text := typed(value)) or not isinstance(value, float) else text.replace("e", ".0e")
                for value in values
            ]
            lines.append(f"  {key}: [{', '.join(numbers)}]")
    lines += ["", "constraints: []  # comparisons that every grid point must fulfil, for example alpha + beta <= 1", ""]
    return "\n".join(lines)


def schema() -> dict[str, Any]:
    """The JSON schema of scenario files: their keys, and below `fixed` and `space` the settings of all systems."""
    from llmemf.models import MODELS, model_class
    from sweeps.core.settings import ScenarioFile

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
