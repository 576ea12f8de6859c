"""Arguments that the commands of `llmemf features` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_ROOT = Path("data")


class Kind(StrEnum):
    text = "text"
    image = "image"
    both = "both"


Name = Annotated[str, typer.Argument(metavar="NAME", help="A prepared scenario, see `llmemf data list`.")]
DataRoot = Annotated[
    Path, typer.Option("--data-root", envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace features of the same kind and encoder.")]
EncodedKind = Annotated[Kind, typer.Option("--kind", help="What to encode.")]
