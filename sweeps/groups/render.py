"""Tables of text as Markdown, CSV, LaTeX, and for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.groups.significance import Spread, Test

MARKDOWN = {"best": "**{}**", "second": "<u>{}</u>", "winner": "**{}**", "section": "*{}*"}
LATEX = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "full": r"\textbf{{{}}}", "signed": "${}$"}
TERMINAL = {
    "best": "bold", "second": "underline", "winner": "bold", "section": "dim italic", "failed": "red",
    "cannot run": "yellow", "not run yet": "dim",
}  # fmt: skip


class Cell(NamedTuple):
    """A text and what it is: a key of `MARKDOWN`, `LATEX` or `TERMINAL`, or "" for nothing special."""

    text: str
    style: str = ""


@dataclass
class Column:
    """A column: its heading (with line breaks for the terminal) and how the terminal shows it."""

    heading: str
    right: bool = True
    wrap: bool = False
    style: str = ""


@dataclass
class Block:
    """One table.

    Attributes:
        lines: cells of each line; a line of one cell is the heading of a section.
        remark: said below it.
        chart: the metric of the rows that the HTML page draws above it, "" for none.
    """

    title: str
    columns: list[Column]
    lines: list[list[Cell]] = field(default_factory=list)
    remark: str = ""
    gap: int = 2
    chart: str = ""


def number(spread: Spread | None, digits: int = 2) -> str:
    """`5.05 ± 0.12`, or `5.05` of a single seed."""
    if spread is None:
        return "-"
    return f"{spread.mean:.{digits}f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}")


def p_value(test: Test | None) -> str:
    """An adjusted p value as text."""
    if test is None or math.isnan(test.adjusted):
        return "-"
    return "<0.001" if test.adjusted < 0.001 else f"{test.adjusted:.3f}"


def difference(test: Test | None) -> str:
    """A difference in percentage points with its 95 % interval, as text."""
    if test is None or test.interval is None:
        return "-"
    low, high = (100 * bound for bound in test.interval)
    return f"{100 * test.difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def markdown(
    title: str, subtitle: str, blocks: Sequence[Block], notes: Sequence[str], warnings: Sequence[str] = ()
) -> str:
    """A page of tables with what is to be said of them."""
    lines = [f"# {title}", "", subtitle, "", *(f"**{text}**\n" for text in warnings)]
    for block in blocks:
        lines += [f"## {block.title}", ""] if block.title else []
        width = len(block.columns)
        lines += [_row(column.heading for column in block.columns), "|---|" + "---:|" * (width - 1)]
        for cells in block.lines:
            texts = [MARKDOWN.get(cell.style, "{}").format(cell.text) for cell in cells]
            lines.append(_row([*texts, *[""] * (width - len(texts))]))
        lines += ["", *([block.remark, ""] if block.remark else [])]
    return "\n".join([*lines, *(f"{note}\n" for note in notes)]).rstrip("\n") + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> str:
    """Lines as CSV; what a line lacks is empty, what is no column is left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def latex(caption: str, head: Sequence[str], blocks: Sequence[Block], notes: Sequence[str]) -> str:
    """One `table*` for `booktabs`, a block below the other.

    Args:
        caption: already LaTeX.
        head: lines of the heading, without their ends.
    """
    width = len(blocks[0].columns)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        r"\begin{tabular}{l" + "r" * (width - 1) + "}",
        r"\toprule",
        *(rf"{line} \\" for line in head),
    ]
    for block in blocks:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textit{{{tex(block.title)}}}}} \\"]
        for index, cells in enumerate(block.lines):
            if len(cells) == 1:
                lines += [r"\addlinespace"] if index else []
            else:
                lines.append(" & ".join([tex(cells[0].text), *map(_latex_cell, cells[1:])]) + r" \\")
    text = r"\par\medskip\footnotesize\raggedright " + " ".join(tex(note) for note in notes)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", text, r"\end{table*}"]) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = cell.text.replace(" ± ", r"\,$\pm$\,").replace("<", "$<$")
    return text if (cell.style, text) == ("signed", "-") else LATEX.get(cell.style, "{}").format(text)


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
_TEX |= {character: "\\" + character for character in "&%$#_{}"}


def tex(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_TEX.get(character, character) for character in text)


def rich_table(block: Block) -> RichTable:
    """A block for the terminal."""
    made = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, block.gap, 0, 0), pad_edge=False, show_edge=False, header_style="dim"
    )
    for column in block.columns:
        made.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
            style=column.style,
        )
    for cells in block.lines:
        made.add_row(*(Text(cell.text, style=TERMINAL.get(cell.style, "")) for cell in cells))
    return made
