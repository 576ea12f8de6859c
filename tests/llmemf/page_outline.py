"""What stands on a page: its texts, elements and attributes; and the snapshot of a whole page."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "path", "br", "td", "tr"}
"""Elements without an end tag: of HTML, and rows and cells, whose end tags are optional."""
BLOCKS = {"html", "title", "body", "h1", "h2", "h3", "h4", "h5", "p", "tr", "li", "dt", "div", "footer", "summary"}


class Outline(HTMLParser):
    """Reads a page; every element that is opened must be closed in order, and no id may stand twice."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.lines: list[str] = []
        self.feed(page)
        assert self.open == [], f"not closed: {self.open}"
        ids = self.values("id")
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "link" and dict(attributes)["href"] == "data:,":
            return  # the empty icon, so that no browser asks a server for one
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in BLOCKS:
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open) and data.strip():
            self.texts.append(" ".join(data.split()))
            self.lines[-1] += f" {self.texts[-1]}"

    @property
    def blocks(self) -> str:
        """The text, one line per block."""
        return "".join(f"{line.strip()}\n" for line in self.lines if line)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def values(self, attribute: str, tag: str | None = None) -> list[str]:
        """All values of an attribute, of elements with this name."""
        return [found[attribute] or "" for name, found in self.elements if attribute in found and tag in (None, name)]


def assert_snapshot(text: str, path: Path) -> None:
    """Compare a text with the stored one; UPDATE_SNAPSHOTS=1 stores it anew."""
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
