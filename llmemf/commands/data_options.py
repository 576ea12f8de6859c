"""Arguments that the commands of `llmemf data` share."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llmemf.errors import InputError

DEFAULT_ROOT = Path("data")


class TieBreak(StrEnum):
    file = "file"
    random = "random"
    drop = "drop"


DataRoot = Annotated[
    Path, typer.Option("--data-root", envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios.")
]
Name = Annotated[str, typer.Option("--name", help="Name of the new scenario: a folder below the data root.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a scenario of that name, and its features with it.")
]
Candidates = Annotated[int, typer.Option("--candidates", min=1, help="Stored negatives per evaluation case.")]
CandidateSeed = Annotated[int, typer.Option("--candidate-seed", min=0, help="Seed of the stored negatives.")]


def pair(text: str, option: str) -> tuple[str, str]:
    """Two names from `a,b`."""
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{option} {text!r}: expected two names with a comma between them, for example movie,book")
    return parts


def root_option(data_root: Path) -> str:
    """The option to repeat in a command that the user may copy."""
    return "" if data_root == DEFAULT_ROOT else f" --data-root {shlex.quote(str(data_root))}"


def say(text: str, error: bool = False) -> None:
    """Print a line as it is: neither wrapped nor coloured, so that paths and commands can be copied."""
    typer.echo(text, err=error)
