"""The tables of a rerun: configurations in the order of validation, and the winner's test."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import numpy as np

from llmemf import text_format
from sweeps.groups.group import Group
from sweeps.groups.kind import section_of
from sweeps.groups.render import Block, Cell, Column, csv_text, markdown, number, p_value
from sweeps.groups.spread import Spread
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.reporting.tables import tables_page
from sweeps.reporting.trial_table import heading

ALPHA = 0.05
METRICS = ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")


def model_of(group: Group) -> str:
    """The system whose trials a rerun repeats."""
    return group.rows[0].model if group.rows else "no trial"


def reason_of(row: TableRow) -> str:
    """Why there are no numbers, or fewer than there should be; "" where there are all."""
    if row.result.outcome == "missing":
        return f"cannot run: {row.result.reason}"
    return row.result.reason or ("" if row.result.outcome == "done" else "not run yet")


def warnings_of(table: Table) -> list[str]:
    """What the order of the finished rows does not prove."""
    best, found = table.row(table.leader), []
    others = [row for row in table.rows if OBJECTIVE in row.cells and row is not best]
    if table.winner != best.name:
        found.append(
            f"{table.winner} was chosen and tested earlier; {best.name} leads now and is not tested: only one trial of a rerun "
            "is."
        )
    spread = best.cells[OBJECTIVE]
    if others and spread.count < 2:
        return [
            *found,
            "One seed says nothing about the spread: which of these is the best is not known. Give --seeds 5.",
        ]
    parts, close = [], []
    for row in others:
        test = row.seed_tests.get(OBJECTIVE)
        if test is None or not test.adjusted < ALPHA:
            same = "intervals overlap" if spread.overlaps(row.cells[OBJECTIVE]) else "intervals apart"
            close.append(row)
            parts.append(f"{row.name} (p {p_value(test)}, {same})")
    if close:
        what = "The ranking is within the noise" if close[0] is others[0] else "Not all of the ranking stands"
        seeds = text_format.plural(spread.count, "seed")
        found.append(f"{what}: over {seeds} {best.name} cannot be told from {', '.join(parts)}.")
    return found


def cells(row: TableRow) -> list[str]:
    """A configuration's numbers on validation: in the sweep, mean, deviation, interval, p, seeds, epochs."""
    spread, test = row.cells.get(OBJECTIVE), row.seed_tests.get(OBJECTIVE)
    if spread is None:
        return [_four(row.row.objective), *["-"] * 6]
    p = "leader" if test is None else p_value(test)
    return [
        _four(row.row.objective),
        *_mean_and_interval(spread),
        p,
        str(spread.count),
        f"{np.mean(row.epochs):.3g}",
    ]


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _mean_and_interval(spread: Spread) -> list[str]:
    interval = "-" if spread.low is None else f"{_four(spread.low)} to {_four(spread.high)}"
    return [_four(spread.mean), _four(spread.deviation), interval]


def _validation_block(table: Table, *, terminal: bool) -> Block:
    headings = ("in the sweep", "mean", "sd", "95 % interval", "p", "seeds", "best epoch")
    columns = [Column("trial", right=False), *map(Column, headings), Column("settings", right=False, wrap=True)]
    block = Block("Validation", columns)
    for row in table.rows:
        winner, name = row.name == table.winner, row.name
        if not terminal:
            name = (f"**{name}**" if winner else name) + (f" ({reason_of(row)})" if reason_of(row) else "")
        style = "winner" if winner and terminal else ""
        texts = (name, *cells(row), text_format.settings(row.row.varied))
        block.lines.append([Cell(text, style) for text in texts])
    return block


def _blocks(table: Table, *, terminal: bool) -> list[Block]:
    page = [_validation_block(table, terminal=terminal)]
    names = [name for row in table.rows[:1] for name in row.values if name.startswith("val") and name.count("/") == 2]
    if names:
        block = Block("", [Column("metric"), *(Column(row.name) for row in table.rows)])
        for name in names:
            block.lines.append([Cell(heading(name)), *(Cell(number(row.cells.get(name), 4)) for row in table.rows)])
        page.append(block)
    if table.tested:
        block = Block(f"Test of {table.winner}", [*map(Column, ("metric", "mean", "sd", "95 % interval"))])
        block.lines += [
            [*map(Cell, (heading(name), *_mean_and_interval(spread)))] for name, spread in table.tested.items()
        ]
        page.append(block)
    return page


def terminal_blocks(table: Table, width: int) -> list[Block]:
    """The configurations in order, and the winner's test: one line per domain and ranking.

    Args:
        width: of the terminal, in characters.
    """
    validation = _validation_block(table, terminal=True)
    validation.gap = 1 if width < 120 else 2
    if width < 100:  # the settings stand at the start of the rerun
        validation.columns.pop()
        for line in validation.lines:
            line.pop()
    if not table.tested:
        return [validation]
    columns = [Column(f"test of {table.winner}", right=False), Column("ranked among", right=False)]
    metrics = METRICS if width >= 126 else ("mrr", "ndcg_10", "hr_10")
    columns += [Column(metric.upper().replace("_", "@")) for metric in metrics]
    tested = Block(f"Test of {table.winner}", columns, gap=1)
    for domain in table.domains:
        for prefix, among in (("test", "stored candidates"), ("test_full", "all items")):
            spreads = [table.tested.get(f"{prefix}/{domain}/{metric}") for metric in metrics]
            tested.lines.append([*map(Cell, (domain, among, *(number(spread, 4) for spread in spreads)))])
    return [validation, tested]


def files(table: Table) -> dict[str, str]:
    """The tables as Markdown, HTML, CSV and JSON, by file name."""
    group = table.group
    title, lead = f"Rerun of {group.facts['sweep']}", f"{model_of(group)} on scenario `{group.scenario}`."
    validation, *others = _blocks(table, terminal=True)
    sections = [section_of(table, validation, OBJECTIVE, 4)]
    for block in others:
        block.title = block.title or "Validation metrics"
        sections.append(section_of(table, block))
    page = tables_page("Rerun", title, lead.replace("`", ""), sections, table.notes, table.warnings)
    return {
        "rerun.md": markdown(title, lead, _blocks(table, terminal=False), table.notes, table.warnings),
        "rerun.html": page,
        "rerun.csv": _csv(table),
        "rerun.json": _json(table),
    }


CSV_COLUMNS = (
    "rank", "trial", "winner", "metric", "mean", "sd", "low", "high", "seeds", "values", "p", "p_holm", "in_the_sweep",
    "settings", "reason",
)  # fmt: skip


def _csv(table: Table) -> str:
    """One line per configuration and metric, unrounded, as fractions: the objective, validation, and the winner's test."""
    lines = []
    for place, row in enumerate(table.rows, start=1):
        settings, winner = text_format.settings(row.row.varied), int(row.name == table.winner)
        shared = {"rank": place, "trial": row.name, "winner": winner, "settings": settings, "reason": reason_of(row)}
        lines += [] if row.cells else [shared]
        for metric, spread in row.cells.items():
            values = ";".join(map(repr, row.values[metric].values()))
            numbers = dict(zip(("mean", "sd", "low", "high", "seeds"), astuple(spread), strict=True))
            line = {**shared, "metric": metric, **numbers, "values": values}
            if metric == OBJECTIVE:
                line["in_the_sweep"] = row.row.objective
                if test := row.seed_tests.get(metric):
                    line |= {"p": test.p, "p_holm": test.adjusted}
            lines.append(line)
    return csv_text(CSV_COLUMNS, lines)


def _json(table: Table) -> str:
    """All of it for a program: configurations, values by seed, tests, warnings."""
    group = table.group
    content = {
        "sweep": group.facts["sweep"],
        "rerun": group.name,
        "scenario": group.scenario,
        "fingerprint": group.fingerprint,
        "model": model_of(group),
        "seeds": group.seeds,
        "winner": table.winner,
        "configurations": [_configuration(row) for row in table.rows],
        "test": {metric: vars(spread) for metric, spread in table.tested.items()},
        "earlier_looks": group.facts.get("earlier_looks", 0),
        "warnings": table.warnings,
        "notes": table.notes,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _configuration(row: TableRow) -> dict[str, Any]:
    test, validation = row.seed_tests.get(OBJECTIVE), row.values.keys() - {OBJECTIVE, *row.result.metrics}
    return {
        "trial": row.name,
        "settings": row.row.varied,
        "configuration": row.row.overrides,
        "in_the_sweep": row.row.objective,
        "objective": {str(seed): value for seed, value in row.values.get(OBJECTIVE, {}).items()},
        "spread": vars(row.cells[OBJECTIVE]) if OBJECTIVE in row.cells else None,
        "validation": {name: list(values.values()) for name, values in row.values.items() if name in validation},
        # JSON has no NaN.
        "against_leader": test and {key: None if value != value else value for key, value in vars(test).items()},
        "reason": reason_of(row),
    }
