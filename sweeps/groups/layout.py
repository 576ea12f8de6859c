"""How the table of a group is laid out; kinds that show more have layouts of their own, made of the same pieces."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from sweeps.groups.group import Row
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
from sweeps.groups.table import OBJECTIVE, RANKINGS, Table, TableRow

HEADINGS = {"mrr": "MRR", "ndcg_5": "NDCG@5", "ndcg_10": "NDCG@10"}
SHORT = {"mrr": "MRR", "ndcg_5": "N@5", "ndcg_10": "N@10"}
ALL_COLUMNS = [(ranking, metric) for ranking in RANKINGS for metric in PAPER_METRICS]
SAMPLED = [("test", metric) for metric in PAPER_METRICS]
TEST_HEADINGS = [*HEADINGS.values(), *(f"{name}, all items" for name in HEADINGS.values())]
PAIRED_HEAD = r"\multicolumn{3}{c}{sampled} & \multicolumn{3}{c}{all items}"
"""Of the six columns with test metrics, in LaTeX."""


def numbers(
    table: Table, row: TableRow, domain: str, columns: Sequence[tuple[str, str]] = ALL_COLUMNS, *, marked: bool = True
) -> list[Cell]:
    """Test metrics of a row with the marks of the best and the second best."""
    found = []
    for ranking, metric in columns:
        name = f"{ranking}/{domain}/{metric}"
        place = table.place(row, name) if marked else 0
        found.append(Cell(number(row.cells.get(name)), {1: "best", 2: "second"}.get(place, "")))
    return found


def named(row: TableRow) -> Cell:
    """The first cell of a row: its name, and why it has no numbers."""
    return Cell(row.heading + (f": {row.state}" if row.state else ""))


def state(row: TableRow) -> Cell:
    """In the place of a number, for the terminal."""
    return Cell(row.state, row.state)


def paper_heading(table: Table) -> str:
    """The heading of the column with the paper's numbers."""
    return "paper" if table.same_data else "paper (other data)"


def paper_cells(table: Table, row: TableRow, domain: str) -> list[Cell]:
    """The paper's numbers beside a row, none where no paper is compared with."""
    if table.paper is None:
        return []
    values = [row.paper.get(f"test/{domain}/{metric}") for metric in PAPER_METRICS]
    return [Cell("-" if value is None else f"{value:.2f}") for value in values]


def domain_block(table: Table, domain: str, *, against: bool = True) -> Block:
    """The rows in one domain, with their tests against the best other row."""
    headings = [table.group.noun, *TEST_HEADINGS]
    headings += [f"{paper_heading(table)} {name}" for name in HEADINGS.values()] if table.paper else []
    block = Block(domain, [*map(Column, headings), Column("p"), *([Column("against")] if against else [])])
    for row in table.rows:
        test = row.case_tests.get(f"test/{domain}/mrr")
        cells = [named(row), *numbers(table, row, domain), *paper_cells(table, row, domain), Cell(p_value(test))]
        block.lines.append([*cells, *([Cell(table.row(test.against).row.title if test else "-")] if against else [])])
    return block


def rows_block(table: Table) -> Block:
    """Each row's objective on validation and the settings that make it."""
    block = Block("Rows", [*map(Column, ("row", "validation", "seeds")), Column("settings", right=False, wrap=True)])
    for row in table.rows:
        given = text_format.settings({**row.row.shown, **row.result.chosen}) or "-"
        seeds = str(len(row.result.seeds) or "-")
        block.lines.append([Cell(text) for text in (row.heading, number(row.cells.get(OBJECTIVE), 4), seeds, given)])
    return block


def page_markdown(table: Table, subtitle: str, last: Block) -> str:
    """A table per domain, and one of what lies behind it."""
    blocks = [domain_block(table, domain) for domain in table.domains]
    return markdown(f"{table.group.kind.capitalize()} {table.group.name}", subtitle, [*blocks, last], table.notes)


def page_latex(table: Table, caption: str) -> str:
    """A block per domain; both rankings and the paper side by side."""
    paper = rf" & \multicolumn{{3}}{{c}}{{{tex(paper_heading(table))}}}" if table.paper else ""
    groups = 3 if table.paper else 2
    head = [
        f" & {PAIRED_HEAD}{paper} &",
        f"{table.group.noun.capitalize()} & " + " & ".join([*HEADINGS.values()] * groups) + " & $p$",
    ]
    return latex(caption, head, [domain_block(table, domain, against=False) for domain in table.domains], table.notes)


CSV_CELLS = ("domain", "ranked_among", "metric", "mean", "spread", "seeds", "values")


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
        line = {
            **shared,
            "domain": domain,
            "ranked_among": "stored candidates" if ranking == "test" else "all items",
            "metric": metric,
            "mean": cell.mean,
            "spread": cell.deviation,
            "seeds": cell.count,
            "values": ";".join(repr(100 * value) for value in row.values[name].values()),
        }
        if name in row.paper:
            line |= {"paper": row.paper[name], "paper_data": "same" if table.same_data else "other"}
        if test := row.case_tests.get(name):
            line |= {"p": test.p, "p_holm": test.adjusted, "against": test.against, "difference": 100 * test.difference}
        if test := row.seed_tests.get(name):
            line |= {"p_seeds": test.p, "p_seeds_holm": test.adjusted}
        lines.append(line)
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


VARIANT_COLUMNS = (
    "row", "title", "outcome", *CSV_CELLS, "difference", "p", "p_holm", "against", "validation", "validation_spread",
    "settings", "reason",
)  # fmt: skip


def page_csv(table: Table) -> str:
    """The whole table as CSV."""
    return csv_text(VARIANT_COLUMNS, [line for row in table.rows for line in csv_lines(table, row, row_facts(row))])


def fitting(blocks: Sequence[Block], console: Console) -> Block:
    """The first block that the terminal is wide enough for, or the last."""
    for block in blocks:
        wide = console.options.update(max_width=1000)
        if rich_table(block).__rich_measure__(console, wide).maximum <= console.width:
            break
    return block


def terminal_block(table: Table, domain: str, console: Console) -> Block:
    """The rows in one domain: with all columns, or with fewer and closer ones where the terminal is narrow."""
    full = [("test_full", metric) for metric in PAPER_METRICS]
    variants = [(SAMPLED + full, 2), (SAMPLED + full[:1], 2), (SAMPLED + full[:1], 1), (SAMPLED, 1)]
    return fitting([_terminal_block(table, domain, columns, gap) for columns, gap in variants], console)


def metric_columns(columns: Sequence[tuple[str, str]]) -> list[Column]:
    """Columns of two lines: the ranking over the first of its metrics."""
    made = []
    for index, (ranking, metric) in enumerate(columns):
        first = index == 0 or columns[index - 1][0] != ranking
        over = {"test": "sampled", "test_full": "all items"}[ranking] if first else ""
        made.append(Column(f"{over}\n{HEADINGS[metric]}"))
    return made


def _terminal_block(table: Table, domain: str, columns: Sequence[tuple[str, str]], gap: int) -> Block:
    block = Block(domain, [Column(f"\n{domain}", right=False), *metric_columns(columns)], gap=gap)
    if table.paper:
        words = ["paper", "", ""] if table.same_data else ["paper", "(other", "data)"]
        block.columns += [
            Column(f"{word}\n{SHORT[metric]}", style="dim") for word, metric in zip(words, PAPER_METRICS, strict=True)
        ]
    block.columns.append(Column("\np"))
    for row in table.rows:
        cells = numbers(table, row, domain, columns)
        if row.state:
            cells[0] = state(row)
        name = row.heading.replace(" ", "\n") if gap == 1 else row.heading
        p = p_value(row.case_tests.get(f"test/{domain}/mrr"))
        block.lines.append([Cell(name), *cells, *paper_cells(table, row, domain), Cell(p)])
    return block


def terminal_blocks(table: Table, console: Console) -> list[Block]:
    """A block per domain, and the rows."""
    rows = rows_block(table)
    rows.columns[0].right = False
    return [*(terminal_block(table, domain, console) for domain in table.domains), rows]


def row_line(table: Table, row: TableRow, place: int, earlier: bool, how: str = "", title: bool = False) -> Text:
    """A finished row: its test MRR and how it came about, or why there is none.

    Args:
        how: by default the number of seeds.
        title: whether rows are called by their titles.
    """

    def label(row: Row) -> str:
        return row.title if title else row.name

    total, width = len(table.group.rows), max(len(label(row)) for row in table.group.rows)
    line = Text(f"{place:>{len(str(total))}}/{total}  ", style="dim")
    line.append(f"{label(row.row):<{width}}  ", style="bold not dim")
    if row.result.outcome != "done":
        line.append(f"{row.state}: ", style=f"{TERMINAL[row.state]} not dim")
        return line.append(row.result.reason, style="not dim")
    cells = {domain: row.cells.get(f"test/{domain}/mrr") for domain in table.domains}
    line.append(", ".join(f"{domain} MRR {number(cell)}" for domain, cell in cells.items() if cell), style="not dim")
    how = how or text_format.plural(len(row.result.seeds), "seed")
    return line.append(f"   {how}" + (", earlier" if earlier else ""))


def protocol_notes(table: Table, protocol: str, noun: str) -> list[str]:
    """How the numbers were made, what they are ranked among, and what p means against the best other row."""
    group, done = table.group, table.done
    if len(group.seeds) > 1 and any(len(row.result.seeds) == 1 and not row.result.reason for row in done):
        protocol += " A closed form, in which nothing is drawn, has one."
    notes = [
        protocol,
        (
            f"Sampled: the target among {table.scenario.candidates['test'].shape[1]:,} stored items of its domain; all items: "
            "among the whole catalogue of its domain. Equal scores share their mean rank."
        ),
    ]
    if len(done) > 1:
        notes.append(
            f"p: paired two-sided t-test over the test cases against the best other {noun} (MRR, sampled; the reciprocal "
            "rank of a case averaged over seeds), with Holm's correction for the "
            f"{text_format.plural(len(done) - 1, 'comparison')} of a domain."
        )
    return notes


def row_notes(table: Table) -> list[str]:
    """What is to be said of single rows: why they have no numbers, what their models and data say of themselves."""
    done = table.done
    notes = [
        f"{row.row.title} {row.state}: {row.result.reason}" for row in table.rows if row.result.reason and row.state
    ]
    notes += [f"{row.row.title}: {row.result.reason}." for row in done if row.result.reason]
    for row in done:
        said = "; ".join(f"{key} {value}" for key, value in row.result.facts.items())
        notes += [f"{row.row.title}: {said}."] if said else []
    titles: dict[str, list[str]] = {}
    for row in done:
        for note in row.result.notes:
            titles.setdefault(note, []).append(row.row.title)
    return notes + [note if len(own) == len(done) else f"{', '.join(own)}: {note}" for note, own in titles.items()]
