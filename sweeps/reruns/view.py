"""What a rerun says in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmemf import text_format
from sweeps.comparison.state import GroupState
from sweeps.comparison.view import facts_table, plain_table, print_places
from sweeps.reruns.plan import RerunRecord
from sweeps.reruns.table import HEADINGS, METRICS, Line, RerunTable, cells, plus_minus

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario


def print_start(record: RerunRecord, scenario: Scenario | None, state: GroupState | None, console: Console) -> None:
    """Which configurations are trained again, how often, and where it goes."""
    facts = facts_table()
    facts.add_row("rerun", Text(record.name, style="bold"))
    if state is not None and not state.is_new:
        done = sum(result.outcome == "done" for result in state.results.values())
        facts.add_row("goes on", f"{done} of {text_format.plural(len(record.trials), 'trial')} done")
    facts.add_row("sweep", f"{record.sweep}, {record.model} on {record.scenario}")
    if scenario is not None:
        facts.add_row("data", f"{scenario.name} ({scenario.fingerprint[:8]})")
    for index, trial in enumerate(record.trials):
        text = f"{trial}  {record.objectives[trial]:.4f}  {text_format.settings(record.shown[trial])}"
        facts.add_row("trials" if index == 0 else "", text)
    seeds = ", ".join(map(str, record.seeds))
    facts.add_row(
        "each", f"{text_format.plural(len(record.seeds), 'seed')} ({seeds}); the best on validation is tested once"
    )
    facts.add_row("writes to", str(record.folder))
    console.print(facts)
    console.print()


def print_trial(line: Line, place: int, record: RerunRecord, console: Console, *, earlier: bool) -> None:
    """One line of a configuration that is through."""
    text = Text(f"{place}/{len(record.trials)}  ", style="dim")
    text.append(f"{line.name}  ", style="bold not dim")
    if line.spread is None:
        text.append(line.state or "failed", style="red not dim")
    else:
        text.append(f"validation {plus_minus(line.spread)}", style="not dim")
        text.append(f" ({line.searched:.4f} in the sweep), {text_format.plural(line.spread.count, 'seed')}")
        text.append(f", {line.state}" if line.state else "", style="red not dim")
        text.append(", earlier" if earlier else "")
    console.print(text, soft_wrap=not console.is_terminal)


def print_end(table: RerunTable, state: GroupState, undelivered: str, page: str, console: Console) -> None:
    """The configurations in order, the winner's test, what to know, and where everything lies."""
    record = table.record
    console.print()
    console.print(validation_table(table, console.width))
    console.print()
    if table.tested:
        console.print(test_table(table))
        console.print()
    for warning in table.warnings:
        console.print(f"warning: {warning}", style="bold yellow", highlight=False)
    for note in table.notes:
        console.print(note, style="dim", highlight=False)
    console.print()
    files = "rerun.md, rerun.csv, rerun.json (and beside the sweep's leaderboard)"
    again = any(line.state for line in table.lines)
    print_places("rerun", record, state, files, undelivered, page, console, again=again)


def validation_table(table: RerunTable, width: int) -> Table:
    made = plain_table(gap=1 if width < 120 else 2)
    made.add_column("trial", no_wrap=True)
    for heading in HEADINGS:
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("settings", overflow="fold")
    for line in table.lines:
        style = "bold" if line.name == table.winner else ""
        made.add_row(line.name, *cells(line), text_format.settings(line.settings), style=style)
    return made


def test_table(table: RerunTable) -> Table:
    """The winner's test: one row per domain and ranking."""
    made = plain_table(gap=1)
    made.add_column(f"test of {table.winner}", no_wrap=True)
    made.add_column("ranked among", no_wrap=True)
    for metric in METRICS:
        made.add_column(metric.upper().replace("_", "@"), justify="right", no_wrap=True)
    for domain in table.domains:
        for prefix, among in (("test", "stored candidates"), ("test_full", "all items")):
            values = [plus_minus(table.tested.get(f"{prefix}/{domain}/{metric}")) for metric in METRICS]
            made.add_row(domain, among, *values)
    return made
