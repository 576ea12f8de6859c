"""Where a command ends: a user's mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from llmemf.errors import InputError


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command line application.

    Args:
        name: what help and usage call it.
        arguments: instead of those of the process.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name=name)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
