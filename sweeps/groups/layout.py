"""How the table of a group is laid out: one block per domain with the test metrics of all rows.

What a kind of group shows beside the test metrics is data: its `Layout`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from sweeps.groups.group import BEST
from sweeps.groups.paper_numbers import PAPER_METRICS
from sweeps.groups.render import (
    TERMINAL,
    Block,
    Cell,
    Column,
    csv_text,
    latex,
    markdown,
    number,
    p_value,
    rich_table,
    tex,
)
from sweeps.groups.significance import Test
from sweeps.groups.table import OBJECTIVE, RANKINGS, Table, TableRow

HEADINGS = {"mrr": "MRR", "ndcg_5": "NDCG@5", "ndcg_10": "NDCG@10"}
SHORT = {"mrr": "MRR", "ndcg_5": "N@5", "ndcg_10": "N@10"}
ALL_COLUMNS = [(ranking, metric) for ranking in RANKINGS for metric in PAPER_METRICS]
SAMPLED = [("test", metric) for metric in PAPER_METRICS]
SAMPLED_AND_MRR = [*SAMPLED, ("test_full", "mrr")]
CSV_CELLS = ("domain", "ranked_among", "metric", "mean", "spread", "seeds", "values")
VARIANT_COLUMNS = (
    "row", "title", "outcome", *CSV_CELLS, "difference", "p", "p_holm", "against", "validation", "validation_spread",
    "settings", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """A column beside the test metrics.

    Attributes:
        heading: in Markdown; "" where it is not shown there, as with `terminal` (None) and `latex` ("").
        over: what stands above that heading, None where that of an earlier column spans this one.
    """

    heading: str
    cell: Callable[[TableRow], Cell]
    terminal: Column | None = None
    latex: str = ""
    over: str | None = ""


def paper_heading(table: Table, metric: str = "") -> str:
    """What stands over the paper's numbers."""
    return f"paper{metric}" + ("" if table.same_data else " (other data)")


def paper_cell(row: TableRow, domain: str, metric: str) -> Cell:
    """The paper's number beside a row."""
    value = row.paper.get(f"test/{domain}/{metric}")
    return Cell("-" if value is None else f"{value:.2f}")


def beside_best(table: Table, domain: str) -> list[Beside]:
    """The paper's numbers, where it has any, and the test against the best other row."""

    def test(row: TableRow) -> Test | None:
        return row.case_tests.get(f"test/{domain}/mrr")

    def against(row: TableRow) -> Cell:
        found = test(row)
        return Cell(table.row(found.against).row.title if found else "-")

    columns, heading = [], paper_heading(table)
    spans = [rf"\multicolumn{{3}}{{c}}{{{tex(heading)}}}", None, None]
    words = ["paper", "", ""] if table.same_data else ["paper", "(other", "data)"]
    for metric, word, over in zip(PAPER_METRICS, words, spans, strict=True) if table.paper else ():
        name, terminal = HEADINGS[metric], Column(f"{word}\n{SHORT[metric]}", style="dim")
        cell = partial(paper_cell, domain=domain, metric=metric)
        columns.append(Beside(f"{heading} {name}", cell, terminal, name, over))
    p = Beside("p", lambda row: Cell(p_value(test(row))), Column("\np"), "$p$")
    return [*columns, p, Beside("against", against)]


@dataclass(frozen=True)
class Layout:
    """The table of a kind whose rows are all tested.

    Attributes:
        subtitle: of the page; `caption`: in LaTeX.
        last: the block below the domains; it gets the width of the terminal, None for the page.
        beside: the columns beside the test metrics in one domain.
        csv_columns: of the CSV file; `csv_facts`: what the lines of a row have in common.
        variants: test metrics and gap between columns for the terminal, the widest first.
        sections: part of the table -> its heading.
        label: a row as the terminal writes it.
        validation: whether the terminal shows the objective on validation.
        last_in_terminal: whether the terminal shows the last block.
    """

    subtitle: Callable[[Table], str]
    caption: Callable[[Table], str]
    last: Callable[[Table, int | None], Block]
    beside: Callable[[Table, str], list[Beside]] = beside_best
    csv_columns: Sequence[str] = VARIANT_COLUMNS
    csv_facts: Callable[[Table, TableRow], dict[str, object]] = lambda table, row: row_facts(row)
    variants: Sequence[tuple[Sequence[tuple[str, str]], int]] = (
        (ALL_COLUMNS, 2), (SAMPLED_AND_MRR, 2), (SAMPLED_AND_MRR, 1), (SAMPLED, 1),
    )  # fmt: skip
    sections: Mapping[str, str] = field(default_factory=dict)
    label: Callable[[Table, TableRow], str] = lambda table, row: row.heading
    validation: bool = False
    last_in_terminal: bool = True

    def files(self, table: Table) -> dict[str, str]:
        """The tables that are written into the group's folder, by file name."""
        kind, name = table.group.kind, table.group.name
        page = [*(self._page_block(table, domain) for domain in table.domains), self.last(table, None)]
        lines = [line for row in table.rows for line in csv_lines(table, row, self.csv_facts(table, row))]
        return {
            f"{kind}.md": markdown(f"{kind.capitalize()} {name}", self.subtitle(table), page, table.notes),
            f"{kind}.csv": csv_text(self.csv_columns, lines),
            f"{kind}.tex": self._latex(table),
        }

    def blocks(self, table: Table, console: Console) -> list[Block]:
        """The tables that are printed at the end."""
        blocks = [self.terminal_block(table, domain, console) for domain in table.domains]
        return [*blocks, self.last(table, console.width)] if self.last_in_terminal else blocks

    def terminal_block(self, table: Table, domain: str, console: Console) -> Block:
        """The rows in one domain with as many columns as the terminal is wide enough for."""
        wide = console.options.update(max_width=1000)
        for columns, gap in self.variants:
            block = self._terminal_block(table, domain, columns, gap)
            if rich_table(block).__rich_measure__(console, wide).maximum <= console.width:
                break
        return block

    def _page_block(self, table: Table, domain: str, *, for_latex: bool = False) -> Block:
        beside = [c for c in self.beside(table, domain) if (c.latex if for_latex else c.heading)]
        names = [*HEADINGS.values(), *(f"{name}, all items" for name in HEADINGS.values())]
        names = [table.group.noun, *names, *(column.heading for column in beside)]
        block = Block(domain, [*map(Column, names)])
        for row in self._rows(table, block):
            name = Cell(row.heading + (f": {row.state}" if row.state else ""))
            block.lines.append([name, *numbers(table, row, domain), *(column.cell(row) for column in beside)])
        return block

    def _latex(self, table: Table) -> str:
        """A block per domain; both rankings side by side."""
        beside = [column for column in self.beside(table, table.domains[0]) if column.latex]
        over = ["", r"\multicolumn{3}{c}{sampled}", r"\multicolumn{3}{c}{all items}"]
        over += [column.over for column in beside if column.over is not None]
        names = [table.group.noun.capitalize(), *HEADINGS.values(), *HEADINGS.values()]
        head = [" & ".join(over).rstrip(), " & ".join([*names, *(column.latex for column in beside)])]
        blocks = [self._page_block(table, domain, for_latex=True) for domain in table.domains]
        return latex(self.caption(table), head, blocks, table.notes)

    def _terminal_block(self, table: Table, domain: str, columns: Sequence[tuple[str, str]], gap: int) -> Block:
        beside = [column for column in self.beside(table, domain) if column.terminal]
        block = Block(domain, [Column(f"\n{domain}", right=False)], gap=gap)
        block.columns += [Column("\nvalidation")] if self.validation else []
        block.columns += [*_metric_columns(columns), *(column.terminal for column in beside if column.terminal)]
        for row in self._rows(table, block):
            cells = [Cell(number(row.cells.get(OBJECTIVE), 4))] if self.validation else []
            cells += numbers(table, row, domain, columns)
            if row.state:
                cells[0] = Cell(row.state, row.state)
            label = self.label(table, row)
            label = f"  {label}" if self.sections else label.replace(" ", "\n") if gap == 1 else label
            name = Cell(label, "winner" if row.name == table.group.reference else "")
            block.lines.append([name, *cells, *(column.cell(row) for column in beside)])
        return block

    def _rows(self, table: Table, block: Block) -> Iterator[TableRow]:
        """The rows in their order; the heading of a section goes into the block before its first row."""
        section = ""
        for row in table.rows:
            if row.row.section != section:
                section = row.row.section
                block.lines.append([Cell(self.sections[section], "section")])
            yield row


def _metric_columns(columns: Sequence[tuple[str, str]]) -> list[Column]:
    """Columns with two lines of heading: the ranking over the first of its metrics."""
    found: dict[str, list[Column]] = {}
    for ranking, metric in columns:
        over = "" if ranking in found else {"test": "sampled", "test_full": "all items"}[ranking]
        found.setdefault(ranking, []).append(Column(f"{over}\n{HEADINGS[metric]}"))
    return [column for of_ranking in found.values() for column in of_ranking]


def numbers(table: Table, row: TableRow, domain: str, columns: Sequence[tuple[str, str]] = ALL_COLUMNS) -> list[Cell]:
    """Test metrics of a row: the best and second best are marked, or the reference where one was named beforehand."""
    found = []
    for ranking, metric in columns:
        name = f"{ranking}/{domain}/{metric}"
        if table.group.reference == BEST:
            style = {1: "best", 2: "second"}.get(table.place(row, name), "")
        else:
            style = "full" if row.name == table.group.reference else ""
        found.append(Cell(number(row.cells.get(name)), style))
    return found


def rows_block(table: Table, width: int | None = None) -> Block:
    """Each row's objective on validation and the settings that make it; `width` is None for the page."""
    settings = Column("settings", right=False, wrap=True)
    block = Block("Rows", [Column("row", right=width is None), Column("validation"), Column("seeds"), settings])
    for row in table.rows:
        given = text_format.settings({**row.row.shown, **row.result.chosen}) or "-"
        seeds = str(len(row.result.seeds) or "-")
        block.lines.append([Cell(text) for text in (row.heading, number(row.cells.get(OBJECTIVE), 4), seeds, given)])
    return block


def csv_lines(table: Table, row: TableRow, shared: dict[str, object]) -> list[dict[str, object]]:
    """One line per domain, ranking and metric, unrounded and in percent; a row without numbers has one line.

    Args:
        shared: what all lines of the row have.
    """
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
        if test := row.seed_tests.get(name):
            line |= {"p_seeds": test.p, "p_seeds_holm": test.adjusted}
        lines.append(shared | line)
    return lines or [shared]


def row_facts(row: TableRow) -> dict[str, object]:
    """What the lines of a row of variants have in common."""
    validation = row.cells.get(OBJECTIVE)
    return {
        "row": row.name,
        "title": row.row.title,
        "outcome": row.result.outcome or "waiting",
        "validation": validation and validation.mean,
        "validation_spread": validation and validation.deviation,
        "settings": text_format.settings({**row.row.shown, **row.result.chosen}),
        "reason": row.result.reason,
    }


def row_line(table: Table, row: TableRow, place: int, earlier: bool, how: str = "", title: bool = False) -> Text:
    """A finished row: its test MRR and how it came about, or why there is none.

    Args:
        how: by default the number of seeds.
        title: whether rows are called by their titles.
    """
    names = {other.name: other.title if title else other.name for other in table.group.rows}
    total, width = len(names), max(map(len, names.values()))
    line = Text(f"{place:>{len(str(total))}}/{total}  ", style="dim")
    line.append(f"{names[row.name]:<{width}}  ", style="bold not dim")
    if row.result.outcome != "done":
        line.append(f"{row.state}: ", style=f"{TERMINAL[row.state]} not dim")
        return line.append(row.result.reason, style="not dim")
    cells = {domain: row.cells.get(f"test/{domain}/mrr") for domain in table.domains}
    line.append(", ".join(f"{domain} MRR {number(cell)}" for domain, cell in cells.items() if cell), style="not dim")
    how = how or text_format.plural(len(row.result.seeds), "seed")
    return line.append(f"   {how}" + (", earlier" if earlier else ""))


def sampled_note(table: Table) -> str:
    """What the target of a case is ranked among."""
    count = table.scenario.candidates["test"].shape[1]
    return f"Sampled: the target among {count:,} stored items of its domain; all items: among the whole catalogue of its domain."


def protocol_notes(table: Table, protocol: str) -> list[str]:
    """How the numbers were made, what they are ranked among, and what p means against the best other row."""
    group, done = table.group, table.done
    if len(group.seeds) > 1 and any(len(row.result.seeds) == 1 and not row.result.reason for row in done):
        protocol += " A closed form, in which nothing is drawn, has one."
    notes = [protocol, f"{sampled_note(table)} Equal scores share their mean rank."]
    if len(done) > 1:
        notes.append(
            f"p: paired two-sided t-test over the test cases against the best other {group.noun} (MRR, sampled; the "
            "reciprocal rank of a case averaged over seeds), with Holm's correction for the "
            f"{text_format.plural(len(done) - 1, 'comparison')} of a domain."
        )
    return notes


def row_notes(table: Table) -> list[str]:
    """What is to be said of single rows: why they have no numbers, what their models and data say of themselves."""
    done, failed = table.done, [row for row in table.rows if row.result.reason and row.state]
    notes = [f"{row.row.title} {row.state}: {row.result.reason}" for row in failed]
    notes += [f"{row.row.title}: {row.result.reason}." for row in done if row.result.reason]
    for row in done:
        said = "; ".join(f"{key} {value}" for key, value in row.result.facts.items())
        notes += [f"{row.row.title}: {said}."] if said else []
    titles: dict[str, list[str]] = {}
    for row in done:
        for note in row.result.notes:
            titles.setdefault(note, []).append(row.row.title)
    return notes + [note if len(own) == len(done) else f"{', '.join(own)}: {note}" for note, own in titles.items()]
