"""Reruns: the best trials of a sweep again over seeds; validation chooses one of them, and only then that one is tested.

The rows are trials. Each is trained over seeds other than the sweep's own, so that the luck of the search does not count.
"""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.errors import InputError
from llmemf.scenarios.scenario import Scenario
from sweeps.core.plan import Options, plan_resume
from sweeps.core.settings import RESOURCES, space_keys
from sweeps.groups.group import Group, Row
from sweeps.groups.kind import Kind, section_of
from sweeps.groups.plan import GroupOptions, config_of_trial, new_group, not_completed
from sweeps.groups.render import Block, Cell, Column, csv_text, markdown, number, p_value
from sweeps.groups.spread import Spread
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.reporting.tables import tables_page
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked
from sweeps.tracking.addresses import absolute_uri

DEFAULT_TOP = 3
ALPHA = 0.05
METRICS = ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")


def _model(group: Group) -> str:
    return group.rows[0].model if group.rows else "no trial"


def _why(row: TableRow) -> str:
    """Why there are no numbers, or fewer than there should be; "" where there are all."""
    if row.result.outcome == "missing":
        return f"cannot run: {row.result.reason}"
    return row.result.reason or ("" if row.result.outcome == "done" else "not run yet")


def _warnings(table: Table) -> list[str]:
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
    return [_four(row.row.objective), *_mean_and_interval(spread), p, str(spread.count), f"{np.mean(row.epochs):.3g}"]


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
            name = (f"**{name}**" if winner else name) + (f" ({_why(row)})" if _why(row) else "")
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
            block.lines.append([Cell(name), *(Cell(number(row.cells.get(name), 4)) for row in table.rows)])
        page.append(block)
    if table.tested:
        block = Block(f"Test of {table.winner}", [*map(Column, ("metric", "mean", "sd", "95 % interval"))])
        block.lines += [[*map(Cell, (name, *_mean_and_interval(spread)))] for name, spread in table.tested.items()]
        page.append(block)
    return page


def _heading(table: Table) -> tuple[str, str]:
    group = table.group
    return f"Rerun of {group.facts['sweep']}", f"{_model(group)} on scenario `{group.scenario}`."


def _markdown(table: Table) -> str:
    return markdown(*_heading(table), _blocks(table, terminal=False), table.notes, table.warnings)


def _html(table: Table) -> str:
    validation, *others = _blocks(table, terminal=True)
    sections = [section_of(table, validation, OBJECTIVE, 4)]
    for block in others:
        block.title = block.title or "Validation metrics"
        sections.append(section_of(table, block))
    title, lead = _heading(table)
    return tables_page("Rerun", title, lead.replace("`", ""), sections, table.notes, table.warnings)


CSV_COLUMNS = (
    "rank", "trial", "winner", "metric", "mean", "sd", "low", "high", "seeds", "values", "p", "p_holm", "in_the_sweep",
    "settings", "reason",
)  # fmt: skip


def _csv(table: Table) -> str:
    """One line per configuration and metric, unrounded, as fractions: the objective, validation, and the winner's test."""
    lines = []
    for place, row in enumerate(table.rows, start=1):
        settings, winner = text_format.settings(row.row.varied), int(row.name == table.winner)
        shared = {"rank": place, "trial": row.name, "winner": winner, "settings": settings, "reason": _why(row)}
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
        "model": _model(group),
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
        "reason": _why(row),
    }


class Rerun(Kind):
    """Rows are trials of a sweep; validation chooses one of them, which alone is tested."""

    name = "rerun"

    def plan(self, options: GroupOptions, now: datetime.datetime) -> Group:
        """Plan a new rerun of a completed sweep: the named one, or the newest.

        Raises:
            InputError: any mistake in options, in one sentence.
        """
        storage = options.storage.resolve()
        folder = find_sweep(storage, "rerun", name=options.sweep, scenario=None)
        sweep = SweepRecord.load(folder)
        if not sweep.is_searched:
            raise InputError(not_completed(sweep))
        if "seed" in space_keys(sweep.space):
            raise InputError(
                f"sweep {sweep.name!r} is one configuration over seeds already: name a sweep that searched"
            )
        plan, state = plan_resume(Options(name=sweep.name, storage=storage)), SweepState.load(sweep)
        top = DEFAULT_TOP if options.top is None else options.top
        best = [record for record in ranked(state.records.values()) if record.outcome in ("completed", "pruned")][:top]
        rows = []
        for record in best:
            config = config_of_trial(plan, record)
            shown = {"title": record.name, "varied": record.varied, "objective": record.objective}
            rows.append(Row(name=record.name, model=sweep.model, overrides=config, **shown))
        given = {key: getattr(options, key) for key in RESOURCES if getattr(options, key) is not None}
        given |= {"data_root": str(options.root)} if options.data_root else {}
        given |= {"tracking_uri": absolute_uri(options.tracking_uri, storage)} if options.tracking_uri else {}
        same = ("requested", "fingerprint", "data_root", "tracking_uri", *RESOURCES)
        return new_group(
            self.name,
            options,
            now,
            scenario=sweep.scenario,
            rows=rows,
            seed=sweep.seed,
            test="winner",
            facts={"sweep": sweep.name, "asked": top, "earlier_looks": len(state.tests)},
            **{"name": options.name or f"{sweep.name}-rerun", **{key: getattr(sweep, key) for key in same}, **given},
        )

    def facts(self, group: Group, scenario: Scenario | None) -> list[tuple[str, str]]:
        """What a dry run says about the group, line by line."""
        said = [("sweep", f"{group.facts['sweep']}, {_model(group)} on {group.scenario}")]
        if scenario is not None:
            said.append(("data", f"{scenario.name} ({scenario.fingerprint[:8]})"))
        for row in group.rows:
            text = f"{row.name}  {row.objective:.4f}  {text_format.settings(row.varied)}"
            said.append(("trials" if row is group.rows[0] else "", text))
        count, seeds = text_format.plural(len(group.seeds), "seed"), ", ".join(map(str, group.seeds))
        return [*said, ("each", f"{count} ({seeds}); the best on validation is tested once")]

    def params(self, group: Group) -> dict[str, object]:
        return {"sweep_again": group.facts["sweep"]}

    def beside_group(self, group: Group) -> Path:
        """The folder of the sweep, whose leaderboard the tables stand beside."""
        return Path(group.storage) / "sweeps" / group.facts["sweep"]

    def print_rows(self, group: Group, scenario: Scenario | None, console: Console) -> None:
        """Nothing: the facts name every row."""

    def line(self, table: Table, row: TableRow, place: int, earlier: bool) -> Text:
        """One line of progress: what became of a row."""
        text = Text(f"{place}/{len(table.group.rows)}  ", style="dim")
        text.append(f"{row.name}  ", style="bold not dim")
        spread, why = row.cells.get(OBJECTIVE), _why(row)
        if spread is None:
            return text.append(why or "failed", style="red not dim")
        text.append(f"validation {number(spread, 4)}", style="not dim")
        text.append(f" ({row.row.objective:.4f} in the sweep), {text_format.plural(spread.count, 'seed')}")
        text.append(f", {why}" if why else "", style="red not dim")
        return text.append(", earlier" if earlier else "")

    def annotate(self, table: Table) -> None:
        """What the order of the rows does not prove, and what a reader must know."""
        if table.leader and table.complete:
            table.warnings = _warnings(table)
        group = table.group
        validation = (
            "Validation: the sweep's objective at each seed's best epoch, over "
            f"{text_format.plural(len(group.seeds), 'seed')} other than the sweep's own; mean, sample standard deviation, 95 % "
            "interval of the mean (Student's t). No scheduler stopped a seed."
        )
        notes = [validation]
        if len(table.rows) > 1:
            notes.append(
                "p: paired two-sided t-test over seeds against the leader, with Holm's correction. Few seeds find large "
                "differences only."
            )
        spreads = {row.name: row.cells[OBJECTIVE] for row in table.rows if OBJECTIVE in row.cells}
        searched = {row.name: -math.inf if row.objective is None else row.objective for row in group.rows}
        lucky = [name for name, spread in spreads.items() if searched[name] > (spread.high or math.inf)]
        if lucky:
            above = f"In the sweep {', '.join(lucky)} scored above the interval of its seeds"
            notes.append(f"{above}: chosen as the best of many, it was lucky.")
        if any(row.result.seeds for row in table.rows):
            earlier = text_format.plural(group.facts.get("earlier_looks", 0), "time")
            notes.append(
                "The configuration was chosen on validation; each of its seeds was tested once. The sweep itself had been tested "
                f"{earlier} before."
            )
        asked = group.facts.get("asked", DEFAULT_TOP)
        if len(group.rows) < asked:
            notes.append(f"{asked} were asked for; the sweep has {len(group.rows)} trials with a value.")
        by_name = sorted(table.rows, key=lambda row: group.names.index(row.name))
        table.notes = [*notes, *dict.fromkeys(note for row in by_name for note in row.result.notes)]

    def files(self, table: Table) -> dict[str, str]:
        """The tables that are written into the group's folder, by file name."""
        return {
            "rerun.md": _markdown(table), "rerun.html": _html(table), "rerun.csv": _csv(table), "rerun.json": _json(table),
        }  # fmt: skip

    def blocks(self, table: Table, console: Console) -> list[Block]:
        """The configurations in order, and the winner's test: one line per domain and ranking."""
        validation = _validation_block(table, terminal=True)
        validation.gap = 1 if console.width < 120 else 2
        if not table.tested:
            return [validation]
        columns = [Column(f"test of {table.winner}", right=False), Column("ranked among", right=False)]
        columns += [Column(metric.upper().replace("_", "@")) for metric in METRICS]
        tested = Block(f"Test of {table.winner}", columns, gap=1)
        for domain in table.domains:
            for prefix, among in (("test", "stored candidates"), ("test_full", "all items")):
                spreads = [table.tested.get(f"{prefix}/{domain}/{metric}") for metric in METRICS]
                tested.lines.append([*map(Cell, (domain, among, *(number(spread, 4) for spread in spreads)))])
        return [validation, tested]


KIND = Rerun()
