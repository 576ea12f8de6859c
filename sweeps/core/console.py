"""The console of the commands of sweeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.status import Status
from rich.table import Table


class CommandConsole(Console):
    """Standard output as it is now: while trials run, everybody else's output goes to a log.

    In a notebook, too: rich would give what is printed to the notebook itself, and ask for widgets.

    Args:
        width: of lines where the output is no terminal.
        as_errors: write to standard error instead, since standard output is for a program.
    """

    def __init__(self, width: int = 120, *, as_errors: bool = False) -> None:
        file = sys.stderr if as_errors else sys.stdout
        wide = None if file.isatty() else width
        super().__init__(file=file, highlight=False, markup=False, width=wide, force_jupyter=False)

    def status(self, status: RenderableType, **settings: Any) -> Status:
        return _PlainStatus(status, console=self, **settings)


def facts_table() -> Table:
    """Names and texts side by side."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    return facts


def print_resume(console: Console, why: str, command: str) -> None:
    """Why something stopped, and the command that continues it, which can be copied."""
    console.print(why)
    console.print(f"  {command}", style="cyan", soft_wrap=True)


def print_stopped(console: Console, stopped: str, record: Path, command: str) -> None:
    """How what was stopped continues: by the command, or, where nothing was saved yet, by the line that started it.

    Args:
        stopped: that it was, and why.
        record: the file that a sweep or group is continued from.
    """
    if record.exists():
        print_resume(console, f"{stopped}; what was saved continues with:", command)
    else:
        console.print(f"{stopped} before anything was saved: the same command starts it again")


class _PlainStatus(Status):
    """A spinner that leaves `sys.stdout` as it is.

    Rich puts something in its place as long as a spinner turns; a library that is imported meanwhile (Ray's colorama) keeps
    that, and fails when the process ends.
    """

    def __init__(self, status: RenderableType, **settings: Any) -> None:
        super().__init__(status, **settings)
        self._live = Live(
            self.renderable,
            console=self.console,
            refresh_per_second=12.5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
