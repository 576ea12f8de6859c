"""What long runs share: exit codes, and tables of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

INTERRUPTED, UNFINISHED = 130, 1
"""Exit codes: stopped by Ctrl-C or SIGTERM; stopped before the end by a budget or by a server that does not answer."""


def status_table(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print how many items have which status: statuses as rows ("ok" first, then the most frequent), domains as columns."""
    totals = sum(map(Counter, counts.values()), Counter())
    table = number_table(*counts)
    for status in sorted(totals, key=lambda status: (status != "ok", -totals[status], status)):
        table.add_row(status, *(f"{counts[domain].get(status, 0):,}" for domain in counts))
    Console(markup=False).print(table)


def number_table(*columns: str) -> Table:
    """A table without lines: a first column of names, and columns of numbers."""
    table = Table("", *columns, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
