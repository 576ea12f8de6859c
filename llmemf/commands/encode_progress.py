"""How far encoding is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from llmemf.text_format import duration

LINE_SECONDS = 10


class EncodeProgress:
    """Counts items; a context manager that is called with the number of items that were just encoded.

    Args:
        label: the features that are made.
        total: items to encode now.
        line_seconds: least time between two lines, where there is no terminal for a bar.
    """

    def __init__(self, label: str, total: int, *, line_seconds: float = LINE_SECONDS) -> None:
        self.label, self.total, self.done = label, total, 0
        self.line_seconds = line_seconds
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn())
        self.bar = Progress(
            *columns,
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=(console := Console(markup=False)),
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(label, total=total, rate="")

    def __enter__(self) -> Self:
        self.start = self.last_line = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.bar.stop()

    def __call__(self, items: int) -> None:
        self.done += items
        self.bar.update(self.task, completed=self.done, rate=f"{self.rate:,.1f} items/s")
        now = time.perf_counter()
        if self.bar.disable and 0 < self.done < self.total and now - self.last_line >= self.line_seconds:
            self.last_line = now
            typer.echo(
                f"{self.label}: {self.done:,} of {self.total:,} ({self.done / self.total:.0%}), {self.rate:,.1f} items/s, "
                f"{duration((self.total - self.done) / self.rate)} left"
            )

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Items per second since the start."""
        return self.done / max(self.seconds, 1e-9)
