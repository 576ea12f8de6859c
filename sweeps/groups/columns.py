"""The columns of a group's tables as page, LaTeX and terminal show them, the lines of its CSV, the sections of its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llmemf import text_format
from llmemf.pages.charts import Interval, IntervalRow
from sweeps.groups.paper_numbers import PAPER_METRICS
from sweeps.groups.render import Block, Cell, Column, number, tex
from sweeps.groups.table import OBJECTIVE, RANKINGS, Table, TableRow
from sweeps.reporting.tables import Section

HEADINGS = {"mrr": "MRR", "ndcg_5": "NDCG@5", "ndcg_10": "NDCG@10"}
SHORT = {"mrr": "MRR", "ndcg_5": "N@5", "ndcg_10": "N@10"}
AMONG = {"test": "sampled", "test_full": "all items"}
ALL_METRICS = [(ranking, metric) for ranking in RANKINGS for metric in PAPER_METRICS]
SAMPLED = [("test", metric) for metric in PAPER_METRICS]
SAMPLED_AND_MRR = [*SAMPLED, ("test_full", "mrr")]
CSV_CELLS = ("domain", "ranked_among", "metric", "mean", "spread", "seeds", "values")


@dataclass(frozen=True)
class Field:
    """A column of the table in one domain: its heading on the page, in LaTeX and in the terminal, empty where it is not shown.

    Attributes:
        over: what stands above its heading in LaTeX, None where that of an earlier column spans this one.
        metric: ranking and metric, of a test metric.
    """

    cell: Callable[[TableRow], Cell]
    page: str = ""
    latex: str = ""
    terminal: Column | None = None
    over: str | None = ""
    metric: tuple[str, str] | None = None


def paper_heading(table: Table, metric: str = "") -> str:
    """What stands over the paper's numbers."""
    return f"paper{metric}" + ("" if table.same_data else " (other data)")


def paper_cell(row: TableRow, domain: str, metric: str) -> Cell:
    """The paper's number beside a row."""
    value = row.paper.get(f"test/{domain}/{metric}")
    return Cell("-" if value is None else f"{value:.2f}")


def paper_fields(table: Table, domain: str) -> list[Field]:
    """The columns of the paper's numbers in one domain, where it has any."""
    found, heading = [], paper_heading(table)
    spans = [rf"\multicolumn{{3}}{{c}}{{{tex(heading)}}}", None, None]
    words = ["paper", "", ""] if table.same_data else ["paper", "(other", "data)"]
    for metric, word, over in zip(PAPER_METRICS, words, spans, strict=True) if table.paper else ():
        column, cell = (
            Column(f"{word}\n{SHORT[metric]}", style="dim"),
            partial(paper_cell, domain=domain, metric=metric),
        )
        found.append(Field(cell, f"{heading} {HEADINGS[metric]}", HEADINGS[metric], column, over))
    return found


def metric_fields(table: Table, domain: str) -> list[Field]:
    """The columns of all test metrics in one domain."""
    fields = []
    for ranking, among in ({"test": AMONG["test_full"]} if table.one_ranking else AMONG).items():
        spans = [rf"\multicolumn{{3}}{{c}}{{{among}}}", None, None]
        for (metric, heading), over in zip(HEADINGS.items(), spans, strict=True):
            page = heading if ranking == "test" else f"{heading}, {among}"
            cell = partial(_metric_cell, table, f"{ranking}/{domain}/{metric}")
            column = Column(f"{among if over else ''}\n{heading}")
            fields.append(Field(cell, page, heading, column, over, (ranking, metric)))
    return fields


def _metric_cell(table: Table, metric: str, row: TableRow) -> Cell:
    """A test metric: the best and second best are marked, in an ablation the full model."""
    if table.group.kind == "ablation":
        style = "full" if row.name == table.group.reference else ""
    else:
        style = {1: "best", 2: "second"}.get(table.place(row, metric), "")
    return Cell(number(row.cells.get(metric)), style)


def csv_lines(table: Table, row: TableRow, shared: dict[str, object]) -> list[dict[str, object]]:
    """One line per domain, ranking and metric, unrounded and in percent; a row without numbers has one line."""
    lines = []
    for name, cell in row.cells.items():
        ranking, _, rest = name.partition("/")
        if ranking not in RANKINGS:
            continue
        domain, metric = rest.split("/")
        among = "stored candidates" if ranking == "test" else "all items"
        values = ";".join(repr(100 * value) for value in row.values[name].values())
        line = dict(zip(CSV_CELLS, (domain, among, metric, cell.mean, cell.deviation, cell.count, values), strict=True))
        if name in row.paper:
            line |= {"paper": row.paper[name], "paper_data": "same" if table.same_data else "other"}
        if test := row.case_tests.get(name):
            line |= {"p": test.p, "p_holm": test.adjusted, "against": test.against, "difference": 100 * test.difference}
            line |= dict(zip(("low", "high"), (100 * bound for bound in test.interval or ())))
        if test := row.seed_tests.get(name):
            line |= {"p_seeds": test.p, "p_seeds_holm": test.adjusted}
        lines.append(shared | line)
    return lines or [shared]


def section_of(table: Table, block: Block) -> Section:
    """A block as a part of the HTML page, with its chart where two rows have values."""
    cells = [(row.heading, row.cells[block.chart]) for row in table.rows if block.chart in row.cells]
    top = max((cell.mean + (cell.deviation or 0.0) for _, cell in cells), default=0.0)
    chart, remark = [], block.remark
    if len(cells) > 1 and top > 0:
        what, digits = "the test MRR among stored candidates", 2
        if block.chart == OBJECTIVE:
            what, digits = "the objective on validation", 4
        for heading, cell in cells:
            deviation = cell.deviation or 0.0
            ends = (cell.mean, cell.mean - deviation, cell.mean + deviation)
            at, low, high = (max(0.0, value) / top for value in ends)
            shown = Interval(at, low, high)
            chart.append(IntervalRow(heading, [shown], [number(cell, digits)], [str(cell.count)]))
        said = f"Dots are means of {what} over seeds, lines one standard deviation to both sides."
        remark = f"{remark} {said}" if remark else said
    lines = [[(cell.text, cell.style) for cell in line] for line in block.lines]
    headings = [column.heading for column in block.columns]
    texts = [0, *(place for place, column in enumerate(block.columns) if not column.right)]
    return Section(block.title, headings, lines, remark, texts, intervals=chart)


def settings_of(row: TableRow) -> str:
    """The settings that make a row, and those that its search chose."""
    return text_format.settings({**row.row.shown, **row.result.chosen})
