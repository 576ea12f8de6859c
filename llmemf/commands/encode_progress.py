"""How far encoding is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10


class EncodeProgress:
    """Counts items; a context manager that can be called with the number of items that were just encoded.

    Args:
        label: what is encoded.
        total: items that are to be encoded now.
        console: where the bar is drawn; without a terminal plain lines are printed instead.
        line_seconds: at least so long between two plain lines.
    """

    def __init__(
        self, label: str, total: int, console: Console | None = None, *, line_seconds: float = LINE_SECONDS
    ) -> None:
        self.label, self.total, self.done = label, total, 0
        self.console = console or Console(markup=False)
        self.line_seconds = line_seconds
        self.start = self.last_line = time.perf_counter()
        self.bar = None
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn())
            rate = TextColumn("{task.fields[rate]}")
            self.bar = Progress(*columns, rate, TimeRemainingColumn(), console=self.console, transient=True)

    def __enter__(self) -> Self:
        self.start = self.last_line = time.perf_counter()
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.label, total=self.total, rate="")
        return self

    def __exit__(self, *_error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, items: int) -> None:
        self.done += items
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, rate=f"{self.rate:,.1f} items/s")
        elif self.done and now - self.last_line >= self.line_seconds and self.done < self.total:
            self.last_line = now
            left = clock((self.total - self.done) / self.rate)
            share = self.done / self.total
            typer.echo(
                f"{self.label}: {self.done:,} of {self.total:,} ({share:.0%}), {self.rate:,.1f} items/s, {left} left"
            )

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Items per second since the start."""
        return self.done / max(self.seconds, 1e-9)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:07:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
