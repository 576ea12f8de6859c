"""A page as data: its head, and sections of parts, which `page.html` and `page.md` lay out, each part by one macro."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmemf.pages.html_page import render

Part = tuple[Any, ...]
"""The name of a macro, and its arguments: ("code", "lr: 0.1", "yaml"). One with nothing to show is left out."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        parts: what stands in it, in order.
        name: its anchor, "" for one that no link leads to.
        short: its title in the row of links, where that is another.
        twin: what stands in Markdown instead, where charts do not tell it.
    """

    title: str
    parts: Sequence[Part]
    name: str = ""
    short: str = ""
    twin: Sequence[Part] | None = None


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        kind: what it is a page of, above its title.
        lead: what it is about, in a sentence or two.
        warnings: what to read first.
        tiles: name, number, and what belongs to it.
        notes: what to know before the numbers are read.
        labels: number of what a dot or line stands for -> what the pointer is told of it; None where it is told nothing.
        is_fine: whether there are so many dots and lines that they are drawn finer.
    """

    kind: str
    title: str
    lead: str
    sections: Sequence[Section]
    footer: str
    warnings: Sequence[str] = ()
    tiles: Sequence[tuple[str, str, str]] = ()
    notes: Sequence[str] = ()
    labels: dict[int, list[str]] | None = None
    is_fine: bool = False


def as_html(page: Page, *, live: int = 0) -> str:
    """One file that opens offline, needs no script to be read, and fits desk, phone and paper.

    Args:
        live: seconds after which a served page asks for a newer one; 0 for a file.
    """
    return render("page.html", {"page": page, "live": live})


def as_markdown(page: Page) -> str:
    """The same numbers and sentences, charts as tables."""
    return re.sub(r"\n{3,}", "\n\n", render("page.md", {"page": page})).strip("\n") + "\n"
