"""A scenario file of one's own.

llmemf new-scenario my_shop                      data/my_shop.yaml, which every sweep of my_shop then reads
llmemf new-scenario my_shop --model sasrec       for another system
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.io import write_text
from sweeps.core.console import CommandConsole


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
    from sweeps.core.scenario_file import SCHEMA, schema, template

    check_name(name, "NAME")
    path = data_root / f"{name}.yaml"
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists: change it, or give --overwrite to begin anew")
    text = template(name, model, data_root)
    data_root.mkdir(parents=True, exist_ok=True)
    write_text(data_root / SCHEMA, json.dumps(schema(), indent=1) + "\n")
    write_text(path, text)
    console = CommandConsole()
    console.print(f"{path} written, to be changed; {SCHEMA} beside it lets editors check it", soft_wrap=True)
    root = [] if data_root == Path("data") else ["--data-root", data_root]
    if (data_root / name / "manifest.json").exists():
        following = command_line("sweep", "--scenario", name, "--dry-run", *root)
    else:
        following = command_line("data", "prepare", "table", "--help")
    console.print(f"next: {following}", soft_wrap=True)
