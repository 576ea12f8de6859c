"""Options that the commands of `llmemf features` share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """Which features a command is about."""

    text = "text"
    image = "image"
    both = "both"


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace features of the same kind and encoder.")]
EncodedKind = Annotated[Kind, typer.Option("--kind", help="What to encode.")]
