"""What is special about groups of one kind, as plain functions and data; everything else is common to all kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmemf.scenarios.scenario import Scenario
from sweeps.groups import layout, terminal
from sweeps.groups.group import Group
from sweeps.groups.paper_numbers import PaperTable
from sweeps.groups.plan import Planner
from sweeps.groups.render import Block
from sweeps.groups.table import Table, TableRow


def _nothing(group: Group, value: object) -> None:
    """For kinds that have nothing to add."""


@dataclass(frozen=True)
class Kind:
    """A kind of group.

    Attributes:
        name: as in `Group.kind`.
        plan: a new group from the command line.
        facts: what the start says of it, as names and texts; the scenario is None where it is not made yet.
        params: parameters of its run in MLflow beside the shared settings, rows and seeds.
        files: its tables, name of a file -> text; Markdown comes first.
        blocks: the tables of the terminal.
        annotate: puts headings, warnings and notes into a new table.
        extend: adds to a planned or stored group what a command line names (`--models`), and checks that it can run.
        finalize: fixes in the group what follows from the data, before anything is shown.
        paper: the paper's table, row, domain, metric -> its number in percent; None where the paper has none of the kind.
        line: what is said of a finished row, with its place and whether an earlier driver finished it.
        print_rows: what a dry run shows below the facts.
        beside: a folder that gets the tables too, where it exists.
    """

    name: str
    plan: Planner
    facts: Callable[[Group, Scenario | None], list[tuple[str, str]]]
    params: Callable[[Group], dict[str, object]]
    files: Callable[[Table], dict[str, str]]
    blocks: Callable[[Table, Console], list[Block]]
    annotate: Callable[[Table], None]
    extend: Callable[[Group, list[str] | None], None] = _nothing
    finalize: Callable[[Group, Scenario], None] = _nothing
    paper: Callable[[PaperTable, str, str, str], float | None] | None = None
    line: Callable[[Table, TableRow, int, bool], Text] = layout.row_line
    print_rows: Callable[[Group, Scenario | None, Console], None] = terminal.print_rows
    beside: Callable[[Group], Path] | None = None
