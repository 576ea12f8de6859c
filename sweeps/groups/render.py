"""The tables of a group as Markdown, HTML, LaTeX, CSV, and for the terminal."""

from __future__ import annotations

import re
from typing import Literal

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from llmemf.pages.charts import Interval, IntervalRow
from llmemf.pages.page import Page, Section, as_html, as_markdown
from sweeps.groups.blocks import blocks_of, label
from sweeps.groups.cells import PAGE_ONLY, Block, Cell, level_of, number
from sweeps.groups.csv_table import csv_lines
from sweeps.groups.notes import notes_of, warnings_of
from sweeps.groups.table import OBJECTIVE, Table

LATEX = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
TERMINAL = {
    "best": "bold", "second": "underline", "winner": "bold", "section": "dim italic", "failed": "red",
    "cannot run": "yellow", "not run yet": "dim", "unfinished": "dim",
}  # fmt: skip


def files(table: Table) -> dict[str, str]:
    """The tables that are written into the group's folder, by file name; Markdown comes first."""
    import pandas as pd

    group, kind = table.group, table.group.kind.capitalize()
    lead = f"{group.model} on scenario {group.scenario}" if group.model else f"Scenario {group.scenario}"
    lead += f": {group.origin}." if group.origin else "."
    blocks, notes = blocks_of(table), notes_of(table)
    sections = [_section(table, block.only(block.is_filled)) for block in blocks]
    sections.append(Section("What to know", [("notes", notes)]))
    page = Page(kind, group.name, lead, sections, group.name, warnings=warnings_of(table))
    lines = pd.DataFrame(list(csv_lines(table)), dtype=object)
    found = {
        "md": as_markdown(page),
        "html": as_html(page),
        "csv": lines.to_csv(index=False, lineterminator="\n"),
    }
    if group.test == "every row":
        found["tex"] = _latex(f"{kind}. {lead}", blocks[:-1], notes)
    return {f"{group.kind}.{ending}": text for ending, text in found.items()}


def _section(table: Table, block: Block) -> Section:
    """A block as a part of the page, with its chart where two rows have values."""
    cells = [(label(table, row), row.cells[block.chart]) for row in table.rows if block.chart in row.cells]
    top = max((cell.mean + (cell.deviation or 0.0) for _, cell in cells), default=0.0)
    chart, remark = [], block.remark
    if len(cells) > 1 and top > 0:
        what, digits = "the test MRR among stored candidates", 2
        if block.chart == OBJECTIVE:
            what, digits = "the objective on validation", 4
        for heading, cell in cells:
            deviation = cell.deviation or 0.0
            ends = cell.mean, cell.mean - deviation, cell.mean + deviation
            at, low, high = (max(0.0, value) / top for value in ends)
            chart.append(IntervalRow(heading, [Interval(at, low, high)], [number(cell, digits)], [str(cell.count)]))
        remark = f"{remark} Dots are means of {what} over seeds, lines one standard deviation to both sides.".strip()
    lines = [[Cell(line, "section")] if isinstance(line, str) else [*line.values()] for line in block.lines]
    rows = ("table", lines, block.headings, block.texts(), "plain")
    parts = [("intervals", chart, "seeds"), rows, ("text", remark, "quiet hint")]
    return Section(block.title, parts, twin=[rows, ("text", block.remark)])


def _latex(caption: str, blocks: list[Block], notes: list[str]) -> str:
    """One `table*` for `booktabs`, a block below the other."""
    blocks = [block.only(lambda heading: level_of(heading) < PAGE_ONLY) for block in blocks]
    width = len(blocks[0].headings)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\small",
        rf"\caption{{{tex(caption)}}}",
        r"\begin{tabular}{l" + "r" * (width - 1) + "}",
        r"\toprule",
        " & ".join(map(tex, blocks[0].headings)) + r" \\",
    ]
    for block in blocks:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textit{{{tex(block.title)}}}}} \\"]
        for index, line in enumerate(block.lines):
            if isinstance(line, dict):
                lines.append(" & ".join(map(_latex_cell, line.values())) + r" \\")
            elif index:
                lines.append(r"\addlinespace")
    text = r"\par\medskip\footnotesize\raggedright " + " ".join(map(tex, notes))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", text, r"\end{table*}"]) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = tex(cell.text).replace(" ± ", r"\,$\pm$\,")
    return LATEX.get(cell.style, "{}").format(f"${text}$" if re.fullmatch(r"[+-][\d.]+", text) else text)


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
_TEX |= {character: "\\" + character for character in "&%$#_{}"}


def tex(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_TEX.get(character, character) for character in text)


def for_terminal(block: Block, width: int) -> RichTable:
    """A block with as many columns as have room."""
    filled = block.only(block.is_filled)
    for level in range(PAGE_ONLY - 1, -1, -1):
        shown = filled.only(lambda heading, level=level: level_of(heading) <= level)  # type: ignore[misc]
        widths = _least_widths(shown)
        if sum(widths) + 2 * len(widths) <= width:
            break
    made = RichTable(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    for place, (heading, least) in enumerate(zip(shown.headings, widths, strict=True)):
        wraps = place in shown.texts()
        overflow: Literal["fold", "ellipsis"] = "fold" if wraps else "ellipsis"
        text = _narrow(heading, wraps) if place else block.title or heading
        made.add_column(
            text, justify="left" if wraps else "right", no_wrap=not wraps, overflow=overflow, min_width=least
        )
    for line in shown.lines:
        cells = [Cell(line, "section")] if isinstance(line, str) else line.values()
        made.add_row(*(Text(cell.text, style=TERMINAL.get(cell.style, "")) for cell in cells))
    return made


def _narrow(heading: str, is_text: bool) -> str:
    """A heading of several words below one another, over numbers."""
    return heading if is_text else re.sub(" (?!%)", "\n", heading)


def _least_widths(block: Block) -> list[int]:
    """What each column takes in the terminal where texts are folded at blanks, in the first column only long ones."""
    widths = []
    for place, heading in enumerate(block.headings):
        texts = [line[heading].text for line in block.rows]
        longest = max(map(len, texts), default=0)
        if place == 0:
            heading = max((block.title or heading).split(), key=len, default="")
            longest = min(longest, 16)
        elif place in block.texts():
            longest = max((len(word) for text in texts for word in text.split()), default=0)
        widths.append(max(longest, *map(len, _narrow(heading, place in block.texts()).split("\n"))))
    return widths
