"""What `features images` and `features enrich` share: exit codes, and the table of their results."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

INTERRUPTED, UNFINISHED = 130, 1
"""Exit codes: stopped by Ctrl-C or SIGTERM; stopped before the end by a budget or by a server that does not answer."""


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
