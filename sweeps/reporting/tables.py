"""A page of tables with charts beside them, in the look of the report: groups, and sweeps beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmemf.pages.charts import IntervalRow, Plot
from llmemf.pages.html_page import render


@dataclass(frozen=True)
class Section:
    """A table and what belongs to it.

    Attributes:
        rows: of each cell its text and its class (`best`, `second`, `section`, or "").
        remark: said below the table.
        texts: the columns that hold text, not numbers.
        plots: charts above it, each with its title.
        legend: what the lines `s0`, `s1`, ... in the charts are.
        intervals: one line of dots with intervals per row, above it.
        noun: what the counts in `intervals` count.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]
    remark: str = ""
    texts: Sequence[int] = (0,)
    plots: Sequence[tuple[str, Plot]] = ()
    legend: Sequence[str] = ()
    intervals: Sequence[IntervalRow] = ()
    noun: str = "seeds"


def tables_page(
    kind: str, title: str, lead: str, sections: Sequence[Section], notes: Sequence[str], warnings: Sequence[str] = ()
) -> str:
    """The page as one HTML file; opens offline, fits desk, phone and paper.

    Args:
        kind: what it is a page of, above its title.
    """
    values = {"over": kind, "title": title, "lead": lead, "sections": sections, "notes": notes, "warnings": warnings}
    return render("sweeps.reporting", "tables.html", values)
