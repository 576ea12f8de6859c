"""Disk space of sweeps: how much each uses, and what can be removed.

python sweeps/clean.py --dry-run                    what each sweep holds and what nothing needs any more
python sweeps/clean.py                              remove the latter
python sweeps/clean.py --keep 1                     and the weights of all but each sweep's best trial
python sweeps/clean.py --delete NAME                a whole sweep: folder, MLflow runs and artifacts
python sweeps/clean.py --delete-older-than 30d      all sweeps that were not touched for so long
"""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from llmemf import text_format
from llmemf.errors import InputError, nearest
from sweeps.cli import options
from sweeps.core.console import CommandConsole


def clean(
    storage: options.Written = Path("mlruns"),
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Trials per sweep that keep their weights.  [default: as the sweep was told]"),
    ] = None,
    delete: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Delete a whole sweep. Repeatable.")] = None,
    delete_older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete sweeps not touched for 30d, 12h, ...  [default: none]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete whole sweeps without asking.")] = False,
) -> None:
    """Free disk space of sweeps; running sweeps are never touched."""
    from sweeps.core import disk

    console = CommandConsole()
    found = disk.holdings(storage.resolve(), keep)
    names = [holding.name for holding in found]
    for name in delete or []:
        if name not in names:
            hint = nearest(name, names) if names else "none is stored there"
            raise InputError(f"--delete: there is no sweep {name!r} in {storage}: {hint}")
    if not found:
        console.print(f"no sweep is stored in {storage}")
        return
    doomed = [holding for holding in found if holding.name in (delete or [])]
    if delete_older_than:
        age = datetime.timedelta(seconds=text_format.seconds(delete_older_than, "--delete-older-than"))
        now = datetime.datetime.now()
        doomed += [h for h in found if now - h.changed > age and not h.running and h not in doomed]
    console.print(_table(found, doomed))
    spared = [holding for holding in found if holding not in doomed]
    freed = sum(holding.removable for holding in spared) + sum(holding.total for holding in doomed)
    if dry_run or not freed:
        console.print(f"{text_format.size(freed)} can go" + ("; dry run: nothing was removed" if dry_run else ""))
        return
    for holding in doomed:
        if holding.elsewhere:
            console.print(f"{holding.name} was copied or moved from {holding.elsewhere}: its runs in MLflow stay")
    if doomed and not yes:
        typer.confirm(f"Delete {', '.join(holding.name for holding in doomed)} with all runs in MLflow?", abort=True)
    for holding in doomed:
        console.print(f"deleted {holding.name} and {text_format.plural(disk.delete(holding), 'run')} in MLflow")
    for holding in spared:
        disk.remove(holding)
    console.print(f"{text_format.size(freed)} freed")


def _table(found: list, doomed: list) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    for name in ("sweep", "status", "last change"):
        table.add_column(name, no_wrap=True)
    for name in ("weights", "states", "other", "can go"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    for holding in found:
        status = "running" if holding.running else holding.record.status
        going = holding.total if holding in doomed else holding.removable
        counted = Counter(holding.leftovers.values())
        why = "; ".join(f"{count} x {reason}" if count > 1 else reason for reason, count in counted.items())
        why = "to be deleted" if holding in doomed else why
        parts = [text_format.size(holding.bytes[name]) for name in ("weights", "states", "other")]
        changed = f"{holding.changed:%Y-%m-%d %H:%M}"
        table.add_row(holding.name, status, changed, *parts, text_format.size(going) if going else "-", why)
    return table
