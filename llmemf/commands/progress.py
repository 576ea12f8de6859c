"""Long runs: their progress, one live line on a terminal, a plain line now and then elsewhere; their exit codes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from llmemf.text_format import duration

INTERRUPTED, UNFINISHED = 130, 1
"""Exit codes: stopped by Ctrl-C or SIGTERM; stopped before the end by a budget or by a server that does not answer."""
PLAIN_SECONDS = 10.0
MEGABYTE = 10**6


class ProgressLine:
    """Shows how much of a run is done, how fast, and when it will end.

    Args:
        unit: what is counted ("texts", "images").
        seconds: between two plain lines.
    """

    def __init__(self, unit: str = "", seconds: float = PLAIN_SECONDS) -> None:
        self._unit = unit
        self._seconds = seconds
        self._start = time.monotonic()
        self._shown = -1e9
        self._latest = ""
        self._told: tuple[object, ...] = ()
        self._live = None
        if sys.stdout.isatty():
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._live = Progress(*columns, console=Console(markup=False), transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            self._task = self._live.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        if self._latest:
            typer.echo(self._latest)

    def show(self, done: int, total: int, *facts: str) -> None:
        """Show a state; `facts` are further short texts, empty ones are left out."""
        if total == 0:
            return
        elapsed = time.monotonic() - self._start
        rate = done / elapsed if elapsed > 0 else 0.0
        left = f"{duration((total - done) / rate)} left" if 0 < done < total and rate else ""
        counted = f"{done:,} of {total:,} {self._unit}"
        # What was done within the first second says nothing of the speed.
        parts = [counted, f"{rate:,.1f}/s" if done and elapsed >= 1 else "", *facts, duration(elapsed), left]
        line = "  ".join(part for part in parts if part)
        if self._live:
            # Without a total the bar pulses: what follows on the last one is not counted.
            self._live.update(self._task, description=line, completed=done, total=total if done < total else None)
        elif (counted, *facts) == self._told:
            return
        elif time.monotonic() - self._shown >= self._seconds:
            self._shown, self._told = time.monotonic(), (counted, *facts)
            typer.echo(line)
            self._latest = ""
            return
        self._latest = line

    def show_file(self, path: Path, done: int, size: int) -> None:
        """Show how much of a file is read, in bytes; with another file another count begins."""
        unit = f"MB of {path.name}"
        if unit != self._unit:
            self._say_latest()
            self._unit, self._start = unit, time.monotonic()
        self.show(done // MEGABYTE, size // MEGABYTE)

    def begin(self, text: str) -> None:
        """Say what comes next, below the last state of what was counted."""
        self._say_latest()
        self.say(text)

    def _say_latest(self) -> None:
        latest, self._latest = self._latest, ""
        if latest:
            self.say(latest)

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(text)
