"""What the commands that make groups of sweeps have in common."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario
    from sweeps.groups.group import Group
    from sweeps.groups.kind import Kind


def group_console() -> Console:
    """The output, with its own hold of it: while trials run, everybody else's goes to the group's log."""
    return Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)


def stored_scenario(group: Group) -> Scenario | None:
    """The scenario of a group, None where it is not prepared."""
    from llmemf.scenarios.scenario import find_scenario
    from sweeps.groups.terminal import is_there

    return find_scenario(group.scenario, group.data_root) if is_there(group) else None


def run(kind: Kind, group: Group, console: Console, time_limit: float | None) -> None:
    """Run a group to its end and leave with its exit code."""
    from sweeps.groups.run import run_group

    raise typer.Exit(run_group(kind, group, console, time_budget=time_limit))


def run_or_show(
    kind: Kind, group: Group, dry_run: bool, time_limit: float | None, sections: Mapping[str, str] | None = None
) -> None:
    """Run a group of variants of one system, or show its rows.

    Args:
        sections: headings of the parts that its rows stand in.
    """
    from sweeps.core.summary import print_fallback
    from sweeps.groups.terminal import print_nothing_started, print_rows, print_start

    console = group_console()
    print_fallback(group.requested, group.scenario, group.data_root, console)
    if not dry_run:
        run(kind, group, console, time_limit)
    found = stored_scenario(group)
    if found:
        kind.finalize(group, found)
    print_start(group, kind.facts(group, found), None, console)
    print_rows(group, sections or {}, console)
    print_nothing_started(console)
