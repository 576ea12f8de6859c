"""Progress of reading: lines without a terminal, a bar with one."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from llmemf.commands.reading_progress import ReadingProgress


def test_plain_lines_come_now_and_then_and_once_at_the_end():
    clock = iter([0, 1, 2, 12, 13, 30, 31, 32])
    out = io.StringIO()
    with ReadingProgress(Console(file=out, width=200), clock=lambda: next(clock)) as progress:
        for done in (5_000_000, 10_000_000, 20_000_000, 30_000_000, 80_000_000, 80_000_000):
            progress(Path("raw/Books.json.gz"), done, 80_000_000)
    assert out.getvalue().splitlines() == [
        "Books.json.gz: 20 of 80 MB in 11 s, about 33 s left",
        "Books.json.gz: 80 of 80 MB in 29 s",
    ]


def test_a_terminal_gets_a_bar_per_file():
    out = io.StringIO()
    with ReadingProgress(Console(file=out, width=120, force_terminal=True)) as progress:
        progress(Path("a/Books.json.gz"), 10, 100)
        progress(Path("a/meta_Books.json.gz"), 100, 100)
    last = out.getvalue()
    assert "Books.json.gz" in last and "meta_Books.json.gz" in last and "10/100 bytes" in last
