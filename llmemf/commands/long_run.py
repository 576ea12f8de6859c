"""What `features images` and `features enrich` share: exit codes, and lines and tables on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console

from llmemf.commands.feature_options import DEFAULT_ROOT

INTERRUPTED, UNFINISHED = 130, 1
"""Exit codes: stopped by Ctrl-C or SIGTERM; stopped before the end by a budget or by a server that does not answer."""


def say(text: str, error: bool = False) -> None:
    """Print a line as it is: neither wrapped nor coloured, so that paths and commands can be copied."""
    typer.echo(text, err=error)


def root_words(data_root: Path) -> list[str]:
    """The option that a command in a hint needs where the data root is not the default one."""
    return [] if data_root == DEFAULT_ROOT else ["--data-root", str(data_root)]


def status_table(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print how many items have which status: statuses as rows ("ok" first, then the most frequent), domains as columns."""
    from rich.table import Table

    totals: dict[str, int] = {}
    for domain in counts.values():
        for status, count in domain.items():
            totals[status] = totals.get(status, 0) + count
    table = Table("", *counts, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for status in sorted(totals, key=lambda status: (status != "ok", -totals[status], status)):
        table.add_row(status, *(f"{counts[domain].get(status, 0):,}" for domain in counts))
    Console(markup=False).print(table)
