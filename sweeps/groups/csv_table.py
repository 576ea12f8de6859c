"""The table of a group as CSV: tidy, unrounded, a line per row and metric."""

from __future__ import annotations

from collections.abc import Iterator

from llmemf import text_format
from sweeps.groups.blocks import ALL_ITEMS, settings_of
from sweeps.groups.table import OBJECTIVE, RANKINGS, Table, TableRow


def csv_lines(table: Table) -> Iterator[dict[str, object]]:
    """Test metrics in percent by domain and ranking where every row is tested, else all metrics as fractions.

    A row without numbers has one line.
    """
    for place, row in enumerate(table.rows, start=1):
        if table.group.test == "winner":
            shared, lines = _trial(table, row, place), [_fractions(row, metric) for metric in row.cells]
        else:
            tested = [name for name in row.cells if name.partition("/")[0] in RANKINGS]
            shared, lines = _row(table, row), [_percent(table, row, name) for name in tested]
        yield from (shared | line for line in lines or [{}])


def _trial(table: Table, row: TableRow, place: int) -> dict[str, object]:
    return {
        "rank": place,
        "trial": row.name,
        "winner": int(row.name == table.winner),
        "settings": text_format.settings(row.row.varied),
        "reason": row.result.reason or row.state,
    }


def _fractions(row: TableRow, metric: str) -> dict[str, object]:
    spread, test = row.cells[metric], row.seed_tests.get(metric)
    return {
        "metric": metric,
        "mean": spread.mean,
        "sd": spread.deviation,
        "low": spread.low,
        "high": spread.high,
        "seeds": spread.count,
        "values": ";".join(map(repr, row.values[metric].values())),
        "p": test and test.p,
        "p_holm": test and test.adjusted,
        "in_the_sweep": row.row.objective if metric == OBJECTIVE else None,
    }


def _row(table: Table, row: TableRow) -> dict[str, object]:
    result, validation = row.result, row.cells.get(OBJECTIVE)
    name, title = ("model", "system") if table.group.kind == "comparison" else ("row", "title")
    return {
        name: row.name,
        title: row.title,
        "group": row.row.section,
        table.group.reference_name.replace(" ", "_"): int(row.name == table.group.reference),
        "status": result.status,
        "outcome": result.outcome or "waiting",
        "validation": validation and validation.mean,
        "validation_spread": validation and validation.deviation,
        "parameters": result.parameters,
        "training_seconds": result.mean("seconds"),
        "best_epoch": result.mean("best_epoch"),
        "epochs_run": result.mean("epochs_run"),
        "search_seconds": result.search.get("seconds"),
        "search_trials": result.search.get("trials"),
        "settings": settings_of(row),
        "reason": result.reason,
    }


def _percent(table: Table, row: TableRow, name: str) -> dict[str, object]:
    ranking, domain, metric = name.split("/")
    cell, case, seeds = row.cells[name], row.case_tests.get(name), row.seed_tests.get(name)
    low, high = case.interval if case and case.interval else (None, None)
    return {
        "domain": domain,
        "ranked_among": "stored candidates" if ranking == "test" else ALL_ITEMS,
        "metric": metric,
        "mean": cell.mean,
        "spread": cell.deviation,
        "seeds": cell.count,
        "values": ";".join(repr(100 * value) for value in row.values[name].values()),
        "paper": row.paper.get(name),
        "paper_data": ("same" if table.same_data else "other") if name in row.paper else None,
        "difference": case and 100 * case.difference,
        "low": low and 100 * low,
        "high": high and 100 * high,
        "p": case and case.p,
        "p_holm": case and case.adjusted,
        "against": case and case.against,
        "p_seeds": seeds and seeds.p,
        "p_seeds_holm": seeds and seeds.adjusted,
    }
