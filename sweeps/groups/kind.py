"""What is special about groups of one kind, as plain functions; everything else is common to all kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmemf.scenarios.scenario import Scenario
from sweeps.groups import layout
from sweeps.groups.group import Group
from sweeps.groups.paper_numbers import PaperTable
from sweeps.groups.plan import Planner
from sweeps.groups.render import Block
from sweeps.groups.table import Table, TableRow


@dataclass(frozen=True)
class Kind:
    """A kind of group.

    Attributes:
        name: as in `Group.kind`.
        plan: a new group from the command line.
        facts: what the start says of it, as names and texts; the scenario is None where it is not made yet.
        params: parameters of its run in MLflow.
        files: its tables, name of a file -> text; Markdown comes first.
        annotate: puts headings, warnings and notes into a new table.
        finalize: fixes in the group what follows from the data, before anything is shown.
        paper: the paper's table, row, domain, metric -> its number in percent; None where the paper has none of the kind.
        blocks: the tables of the terminal.
        line: what is said of a finished row, with its place and whether an earlier driver finished it.
        beside: a folder that gets the tables too, where it exists.
    """

    name: str
    plan: Planner
    facts: Callable[[Group, Scenario | None], list[tuple[str, str]]]
    params: Callable[[Group], dict[str, object]]
    files: Callable[[Table], dict[str, str]]
    annotate: Callable[[Table], None]
    finalize: Callable[[Group, Scenario], None] = lambda group, scenario: None
    paper: Callable[[PaperTable, str, str, str], float | None] | None = None
    blocks: Callable[[Table, Console], list[Block]] = layout.terminal_blocks
    line: Callable[[Table, TableRow, int, bool], Text] = layout.row_line
    beside: Callable[[Group], Path] | None = None
