"""What a group says in the terminal at its start and at its end, and what it would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from sweeps.core.console import facts_table
from sweeps.core.summary import browse, print_lines
from sweeps.groups.group import Group
from sweeps.groups.render import Block, Cell, Column, rich_table
from sweeps.groups.results import GroupState
from sweeps.groups.table import Table


def print_start(group: Group, facts: Sequence[tuple[str, str]], state: GroupState | None, console: Console) -> None:
    """What is run, on what, with which budget, and where it goes."""
    shown = facts_table()
    shown.add_row(group.kind, Text(group.name, style="bold"))
    if state is not None and not state.is_new:
        done = sum(result.outcome == "done" for result in state.results.values())
        shown.add_row("continues", f"{done} of {text_format.plural(len(group.rows), group.noun)} done")
    for name, text in facts:
        shown.add_row(name, Text(text))
    shown.add_row("writes to", str(group.folder))
    for notice in group.notices:
        shown.add_row("note", Text(notice))
    console.print(shown)
    console.print()


def print_end(
    blocks: Sequence[Block],
    table: Table,
    state: GroupState,
    files: str,
    notes: Sequence[str],
    page: str,
    console: Console,
) -> None:
    """The tables, what to know about them, where everything lies, and how to repeat what failed.

    Args:
        files: names of the files with the tables.
        notes: what MLflow lacks, a line each.
        page: where MLflow's pages show the runs, below the address of its server.
    """
    group = table.group
    console.print()
    for block in blocks:
        console.print(rich_table(block))
        console.print()
    for warning in table.warnings:
        console.print(f"warning: {warning}", style="bold yellow", highlight=False)
    for note in table.notes:
        console.print(note, style="dim", highlight=False)
    console.print()
    style = {"completed": "green", "incomplete": "yellow"}.get(group.status, "red")
    took = f"in {text_format.duration(state.seconds)}"
    lines: list[tuple[str, str | Text]] = [
        (group.kind, Text.assemble(group.name, " ", (group.status, f"bold {style}"), f" {took}")),
        ("tables", f"{group.folder}/{files}"),
        ("report", f"{group.folder}/{group.kind}.html"),
        *(("note", note) for note in notes if note),
    ]
    commands = {"browse": browse(group.tracking_uri, group.storage, page)}
    short = [name for name, result in state.results.items() if result.is_short]
    if short:
        said = f"{len(short)} of {text_format.plural(len(table.rows), 'row')}, wholly or in part: {', '.join(short)}"
        lines.append(("failed", said))
        commands["run again"] = f"{group.resume_command()} --retry-failed"
    elif any(row.state and not row.row.problem for row in table.rows):
        commands["run again"] = group.resume_command()
    print_lines(console, lines, commands)


def print_rows(group: Group, console: Console, sections: Mapping[str, str]) -> None:
    """Every row with what it changes, or why it cannot run.

    Args:
        sections: section -> its heading.
    """
    if not all(row.title for row in group.rows):
        console.print(f"rows  {', '.join(group.names)}")
        console.print("Which of them can run is known when the data is there.", style="dim")
        return
    left = [Column(heading, right=False, wrap=wrap) for heading, wrap in (("row", False), ("", True))]
    block = Block("", [*left, Column("what it changes", right=False, wrap=True)])
    section = ""
    for row in group.rows:
        if row.section != section and sections:
            section = row.section
            block.lines.append([Cell(sections[section], "section")])
        changes = Cell(text_format.settings(row.shown))
        if row.problem:
            changes = Cell(f"cannot run: {row.problem}", "cannot run")
        full = " (full model)" if row.name == group.reference else ""
        block.lines.append([Cell(row.name), Cell(row.title + full), changes])
    console.print(rich_table(block))
    able = sum(not row.problem for row in group.rows)
    trials = f"{able * group.trials:,} trials of searches at most, " if group.trials else ""
    count = text_format.plural(len(group.rows), "row")
    console.print(f"\n{able} of {count} can run: {trials}{able * len(group.seeds)} of seeds")
