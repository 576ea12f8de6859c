"""The sweeps of a storage folder and how they stand.

llmemf sweeps                       all sweeps with state and best trial, the newest first
llmemf sweeps NAME                  one of them with its leaderboard
llmemf sweeps --json                the same for a program; NAME --json adds all trials
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmemf import text_format
from llmemf.command_line import command_line
from sweeps.cli import options
from sweeps.core.console import CommandConsole

LINE = 200
"""Characters of a line where the output is no terminal, so that names stay whole for `grep`."""


def sweeps(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="Name of one sweep.  [default: all]", show_default=False)
    ] = None,
    with_parts: Annotated[
        bool, typer.Option("--parts", help="List the sweeps of comparisons, ablations, reruns and studies as well.")
    ] = False,
    storage: options.Written = Path("mlruns"),
    as_json: options.AsJson = False,
) -> None:
    """List sweeps with state and best trial, or show one of them.

    One is shown with its leaderboard.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from sweeps.core import result_tables
    from sweeps.core.display import STYLE
    from sweeps.reporting.gather import gather
    from sweeps.reporting.standing import standing, with_trials
    from sweeps.state.sweep_record import find_sweep, newest_sweeps

    console, storage = CommandConsole(LINE), storage.resolve()
    if sweep is not None:
        history = gather(find_sweep(storage, name=sweep))
        if as_json:
            return options.print_json(with_trials(history))
        console.print(_line(standing(history)), soft_wrap=True)
        if history.records:
            console.print()
            console.print(result_tables.table(history.records, tuple(history.domains), console.width))
            searched = sum(not record.repeats for record in history.records)
            if searched > result_tables.TOP:
                console.print(f"the best {result_tables.TOP} of {searched}; --json has all", style="dim")
        return None
    found = [standing(gather(record)) for record in newest_sweeps(storage, with_parts=with_parts)]
    if as_json:
        return options.print_json(found)
    if not found:
        start = command_line("sweep", "--scenario", "sample")
        console.print(f"no sweep in {storage}; start one with `{start}`", soft_wrap=True)
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for name in ("sweep", "scenario", "model", "state"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "best", "objective"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True)
    for item in found:
        best = item["best"]
        cells: list[str | Text] = [item["name"], item["scenario"], item["model"]]
        cells += [
            Text(item["state"], style=STYLE.get(item["state"], "")),
            f"{_ended(item)}/{item['planned']}",
            best["trial"] if best else "-",
        ]
        cells += [f"{best['objective']:.4f}" if best else "-", item["created"][:16].replace("T", " ")]
        table.add_row(*cells)
    console.print(table)
    return None


def _ended(item: dict) -> int:
    return sum(item["trials"].get(outcome, 0) for outcome in ("completed", "pruned", "failed"))


def _line(item: dict) -> str:
    """`s1 running: 3 of 12 trials ended, best t02 0.0512, 4:10 left`."""
    parts = [f"{item['name']} {item['state']}: {_ended(item)} of {text_format.plural(item['planned'], 'trial')} ended"]
    if best := item["best"]:
        parts.append(f"best {best['trial']} {best['objective']:.4f}")
    if item["seconds_left"]:
        parts.append(f"{text_format.duration(item['seconds_left'])} left")
    return ", ".join(parts)
