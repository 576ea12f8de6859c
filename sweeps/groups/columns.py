"""The columns of a group's tables: test metrics and the paper's numbers, each as the page, LaTeX and the terminal show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sweeps.groups.paper_numbers import PAPER_METRICS
from sweeps.groups.render import Cell, Column, number
from sweeps.groups.table import RANKINGS, Table, TableRow

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


def metric_fields(table: Table, domain: str) -> list[Field]:
    """The columns of all test metrics in one domain."""
    fields = []
    for ranking, among in AMONG.items():
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
