"""Progress of reading large files: a bar by bytes on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from llmemf.commands.progress import PLAIN_SECONDS


class ReadingProgress:
    """A context manager; call it with file, bytes read and size (`line_blocks.Progress`)."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._bars: dict[Path, TaskID] = {}
        self._started: dict[Path, float] = {}
        self._finished: set[Path] = set()
        self._told = clock()
        self._display = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def __call__(self, path: Path, done: int, size: int) -> None:
        if self._console.is_terminal:
            if path not in self._bars:
                self._bars[path] = self._display.add_task(path.name, total=size)
            self._display.update(self._bars[path], completed=done)
            return
        now = self._clock()
        start = self._started.setdefault(path, now)
        if path in self._finished or (done < size and now - self._told < PLAIN_SECONDS):
            return
        if done == size:
            self._finished.add(path)
        self._told = now
        seconds = now - start
        left = f", about {seconds * (size - done) / done:.0f} s left" if 0 < done < size else ""
        self._console.print(
            f"{path.name}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB in {seconds:.0f} s{left}",
            markup=False,
            highlight=False,
        )
