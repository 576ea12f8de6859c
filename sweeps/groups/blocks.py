"""The tables that a group shows, as texts by column; Markdown, HTML, LaTeX and the terminal only lay them out."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from llmemf import text_format
from llmemf.ranking_names import METRICS as ALL_METRICS
from llmemf.ranking_names import RANKINGS as RANKING_NAMES
from sweeps.groups.cells import Block, Cell, digits, mean_and_interval, number, p_value
from sweeps.groups.paper_numbers import PAPER_METRICS
from sweeps.groups.significance import BEST
from sweeps.groups.table import OBJECTIVE, RANKINGS, Table, TableRow

METRICS = {"mrr": "MRR", "ndcg_5": "NDCG@5", "ndcg_10": "NDCG@10"}
ALL_ITEMS = "all items"
PLACES = {0: "", 1: "best", 2: "second"}
TIMES = (
    "Search time: of all trials together, as long as they held their places. Training time: of one seed's training steps, "
    "mean over seeds. Trials may have run beside one another, so times compare only on a quiet machine."
)


def label(table: Table, row: TableRow) -> str:
    """A row as tables name it: with what its system is, and whether the others are tested against it."""
    group, status = table.group, row.result.status
    remarks = [] if group.model or status in ("", "faithful") else [status]
    remarks += [group.reference_name] if row.name == group.reference else []
    return row.title + "".join(f" ({remark})" for remark in remarks)


def paper_heading(table: Table) -> str:
    """What stands over the paper's numbers."""
    return "paper" + ("" if table.same_data else " (other data)")


def settings_of(row: TableRow) -> str:
    """The settings that make a row, and those that its search chose."""
    return text_format.settings({**row.row.shown, **row.result.chosen})


def blocks_of(table: Table) -> list[Block]:
    """The tables of a group: a block per domain and one on the rows, or the order on validation and the winner's test."""
    if table.group.test == "every row":
        return [*(_domain(table, domain) for domain in table.domains), _rows(table)]
    return [_rows(table), *_test_of_winner(table)]


def _block(
    table: Table, title: str, columns: Callable[[TableRow], dict[str, str | Cell]], remark: str = "", chart: str = ""
) -> Block:
    """A line per row, headings of sections between them."""
    block, section = Block(title, [], remark, chart), ""
    for row in table.rows:
        if row.row.section != section:
            section = row.row.section
            block.lines.append(section)
        style = row.state or ("winner" if row.name in (table.winner, table.group.reference) else "")
        name = Cell(label(table, row) + (f": {row.state}" if row.state else ""), style)
        cells = {key: Cell(cell) if isinstance(cell, str) else cell for key, cell in columns(row).items()}
        block.lines.append({table.group.noun: name, **cells})
    return block


def _domain(table: Table, domain: str) -> Block:
    """Test metrics of the rows in one domain, their differences from the row that they were tested against, and the paper's."""
    printed = {name.rpartition("/")[2] for row in table.rows for name in row.paper if table.paper}

    def columns(row: TableRow) -> dict[str, str | Cell]:
        found: dict[str, str | Cell] = {}
        for ranking in list(RANKINGS)[: 1 if table.one_ranking else 2]:
            among = f", {ALL_ITEMS}" if ranking == "test_full" else ""
            for metric, words in METRICS.items():
                name = f"{ranking}/{domain}/{metric}"
                found[words + among] = Cell(number(row.cells.get(name)), PLACES[table.place(row, name)])
        for metric in [metric for metric in PAPER_METRICS if metric in printed]:
            value = row.paper.get(f"test/{domain}/{metric}")
            found[f"{paper_heading(table)} {METRICS[metric]}"] = digits(value, ".2f")
        test, bounds = row.case_tests.get(f"test/{domain}/mrr"), "-"
        if test and test.interval:
            bounds = " to ".join(f"{100 * bound:+.2f}" for bound in test.interval)
        found |= {
            "difference": f"{100 * test.difference:+.2f}" if test else "-",
            "its 95 %": bounds,
            "p": p_value(test),
        }
        if table.group.reference == BEST:
            return {**found, "against": table.row(test.against).title if test else "-"}
        return {**found, "p, seeds": p_value(row.seed_tests.get(f"test/{domain}/mrr"))}

    return _block(table, domain, columns, chart=f"test/{domain}/mrr")


def _rows(table: Table) -> Block:
    """How each row came about: its objective on validation, its seeds, what it cost, its settings."""
    chooses = table.group.test == "winner"

    def columns(row: TableRow) -> dict[str, str | Cell]:
        result, spread, test = row.result, row.cells.get(OBJECTIVE), row.seed_tests.get(OBJECTIVE)
        best_epoch = fmean(row.epochs) if row.epochs else result.mean("best_epoch")
        found: dict[str, str | Cell] = {
            "in the sweep": digits(row.row.objective),
            "validation": digits(spread.mean if spread else None),
        }
        found |= mean_and_interval(spread)
        found |= {"p": "leader" if row.name == table.leader else p_value(test)} if chooses else {}
        found["seeds"] = str(len(row.values.get(OBJECTIVE) or result.seeds) or "-")
        found["best epoch"] = digits(best_epoch, ".3g")
        if not chooses:
            stopped = f" ({result.search['pruned']} stopped early)" if result.search.get("pruned") else ""
            found["epochs"] = digits(result.mean("epochs_run"), ".3g")
            found["trials"] = f"{result.search['trials']}{stopped}" if result.search else "-"
            found["search time"] = duration(result.search.get("seconds"))
            found["training time"] = duration(result.mean("seconds"))
            found["parameters"] = count(result.parameters)
        return {**found, "settings": settings_of(row) or "-"}

    return _block(
        table, "Validation" if chooses else "Rows", columns, "" if chooses else TIMES, OBJECTIVE if chooses else ""
    )


def duration(seconds: float | None) -> str:
    """With a tenth of a second below ten."""
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 10 else text_format.duration(seconds)


def count(parameters: int | None) -> str:
    """`812`, `65.5 k`, `12.3 M`."""
    if parameters is None or parameters < 1000:
        return digits(parameters, "d")
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.1f} k"


def _test_of_winner(table: Table) -> list[Block]:
    """A line per domain and ranking; the CSV has all metrics with their intervals."""
    lines: list[dict[str, Cell] | str] = []
    for domain in table.domains:
        for name, (ending, among) in RANKING_NAMES.items():
            spreads = {metric: table.tested.get(f"test{ending}/{domain}/{metric}") for metric in ALL_METRICS}
            if any(spreads.values()) and not (name == "full" and table.one_ranking):
                words = f"{among} = {ALL_ITEMS}" if name == "sampled" and table.one_ranking else among
                texts = {"domain": domain, "ranked among": words}
                texts |= {metric.upper().replace("_", "@"): number(spread, 4) for metric, spread in spreads.items()}
                lines.append({key: Cell(text) for key, text in texts.items()})
    return [Block(f"Test of {table.winner}", lines)] if lines else []
