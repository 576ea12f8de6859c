"""The report as one HTML file, and its Markdown twin: the same content in two layouts."""

from __future__ import annotations

import re
from types import SimpleNamespace

from llmemf.pages.html_page import render


def as_html(data: SimpleNamespace, *, live: int = 0) -> str:
    """The page: opens offline, needs no script to be read, fits desk, phone and paper.

    Args:
        live: seconds after which a served page asks for a newer one; 0 for a file.
    """
    return render("sweeps.reporting", "report.html", {"data": data, "live": live})


def as_markdown(data: SimpleNamespace) -> str:
    """The same numbers and sentences, charts as tables."""
    return re.sub(r"\n{3,}", "\n\n", render("sweeps.reporting", "report.md", {"data": data}))
