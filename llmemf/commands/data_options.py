"""Arguments and helpers that the commands of `llmemf data` and `llmemf features` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmemf.command_line import command_line
from llmemf.errors import InputError

DEFAULT_ROOT = Path("data")


DataRoot = Annotated[
    Path,
    typer.Option("--data-root", envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios."),
]
Existing = Annotated[str, typer.Argument(metavar="NAME", help="A prepared scenario, see `llmemf data list`.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace features of the same kind and encoder.")]
EncodedKind = Annotated[Literal["text", "image", "both"], typer.Option("--kind", help="What to encode.")]
Name = Annotated[str, typer.Option("--name", help="Name of the new scenario: a folder below the data root.")]


def pair(text: str, option: str) -> tuple[str, str]:
    """Two names from `a,b`.

    Raises:
        InputError: they are not two.
    """
    first, *others = (part.strip() for part in text.split(","))
    if len(others) != 1 or not first or not others[0]:
        raise InputError(f"{option} {text!r}: expected two names with a comma between them, for example movie,book")
    return first, others[0]


def hint(data_root: Path, *words: str) -> str:
    """A command to type next, with the data root where it is not the usual one."""
    return command_line(*words, *([] if data_root == DEFAULT_ROOT else ["--data-root", str(data_root)]))


def say(text: str, error: bool = False) -> None:
    """Print a line as it is: neither wrapped nor coloured, so that paths and commands can be copied."""
    typer.echo(text, err=error)


def kinds_of(kind: str) -> tuple[str, ...]:
    """The kinds of features that `--kind` names."""
    return ("text", "image") if kind == "both" else (kind,)
