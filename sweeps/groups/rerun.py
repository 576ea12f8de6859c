"""Reruns: the best trials of a sweep again over seeds; validation chooses one of them, and only then that one is tested.

The rows are trials. Each is trained over seeds other than the sweep's own, so that the luck of the search does not count.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
from rich.console import Console

from llmemf import text_format
from llmemf.errors import InputError
from llmemf.ranking_names import METRICS
from llmemf.scenarios.scenario import Scenario
from sweeps.core.options import Options
from sweeps.core.result_tables import heading
from sweeps.core.resume import plan_resume
from sweeps.core.settings import RESOURCES, space_keys
from sweeps.groups.group import Group, Row
from sweeps.groups.kind import Kind
from sweeps.groups.plan import GroupOptions, config_of_trial, new_group, not_completed
from sweeps.groups.render import Block, Cell, Column, number, p_value
from sweeps.groups.significance import Spread
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked
from sweeps.tracking.addresses import absolute_uri

DEFAULT_TOP = 3
ALPHA = 0.05
HEADINGS = ("in the sweep", "mean", "sd", "95 % interval", "p", "seeds", "best epoch")


class Rerun(Kind):
    """Rows are trials of a sweep; validation chooses one of them, which alone is tested."""

    name = "rerun"
    csv_columns = (
        "rank", "trial", "winner", "metric", "mean", "sd", "low", "high", "seeds", "values", "p", "p_holm", "in_the_sweep",
        "settings", "reason",
    )  # fmt: skip

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

    def own_facts(self, group: Group) -> list[tuple[str, str]]:
        said = [("sweep", f"{group.facts['sweep']}, {group.rows[0].model} on {group.scenario}")]
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

    def subtitle(self, table: Table) -> str:
        group = table.group
        return f"{group.rows[0].model} on scenario `{group.scenario}`: the best trials of sweep {group.facts['sweep']}."

    def found(self, table: Table, row: TableRow) -> str:
        return f"validation {number(row.cells.get(OBJECTIVE), 4)}"

    def how(self, row: TableRow) -> str:
        seeds = text_format.plural(len(row.values.get(OBJECTIVE, {})), "seed")
        return f"{_four(row.row.objective)} in the sweep, {seeds}" + (
            f", {row.result.reason}" * bool(row.result.reason)
        )

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

    def page(self, table: Table) -> list[Block]:
        """The configurations in order, their other metrics on validation, and the winner's test."""
        page, first = [self.last_block(table)], table.rows[0].values
        if names := [name for name in first if name.startswith("val") and name.count("/") == 2]:
            block = Block("Validation metrics", [Column("metric"), *(Column(row.name) for row in table.rows)])
            for name in names:
                block.lines.append([Cell(heading(name)), *(Cell(number(row.cells.get(name), 4)) for row in table.rows)])
            page.append(block)
        if table.tested:
            block = Block(f"Test of {table.winner}", [*map(Column, ("metric", *HEADINGS[1:4]))])
            for name, spread in table.tested.items():
                if not (table.one_ranking and name.startswith("test_full/")):
                    block.lines.append([*map(Cell, (heading(name), *_mean_and_interval(spread)))])
            page.append(block)
        return page

    def last_block(self, table: Table, width: int | None = None) -> Block:
        """The configurations in order, without their settings where the terminal is narrow: its first lines name them."""
        columns = [Column("trial", right=False), *map(Column, HEADINGS), Column("settings", right=False, wrap=True)]
        block = Block("Validation", columns, gap=1 if width and width < 120 else 2, chart=OBJECTIVE)
        for row in table.rows:
            style, name = "winner" if row.name == table.winner else "", row.name
            if not width and _reason(row):
                name += f" ({_reason(row)})"
            texts = [*_validation(row), text_format.settings(row.row.varied)]
            block.lines.append([Cell(name, style), *(Cell(text, style if width else "") for text in texts)])
        if width and width < 100:
            block.columns.pop()
            block.lines = [line[:-1] for line in block.lines]
        return block

    def blocks(self, table: Table, console: Console) -> list[Block]:
        """The configurations in order, and the winner's test: one line per domain and ranking."""
        validation = self.last_block(table, console.width)
        if not table.tested:
            return [validation]
        columns = [Column(f"test of {table.winner}", right=False), Column("ranked among", right=False)]
        metrics = METRICS if console.width >= 126 else ("mrr", "ndcg_10", "hr_10")
        columns += [Column(metric.upper().replace("_", "@")) for metric in metrics]
        tested = Block(f"Test of {table.winner}", columns, gap=1)
        for domain in table.domains:
            rankings = [("test", "stored candidates"), ("test_full", "all items")]
            if table.one_ranking:
                rankings = [("test", "stored candidates = all items")]
            for prefix, among in rankings:
                spreads = [table.tested.get(f"{prefix}/{domain}/{metric}") for metric in metrics]
                tested.lines.append([*map(Cell, (domain, among, *(number(spread, 4) for spread in spreads)))])
        return [validation, tested]

    def csv_lines(self, table: Table) -> list[dict[str, object]]:
        """One line per configuration and metric, unrounded, as fractions: the objective, validation, and the winner's test."""
        lines: list[dict[str, object]] = []
        for place, row in enumerate(table.rows, start=1):
            settings, winner = text_format.settings(row.row.varied), int(row.name == table.winner)
            shared = {"rank": place, "trial": row.name, "winner": winner, "settings": settings, "reason": _reason(row)}
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
        return lines


def _warnings(table: Table) -> list[str]:
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
        unknown = "One seed says nothing about the spread: which of these is the best is not known. Give --seeds 5."
        return [*found, unknown]
    close = {}
    for row in others:
        test = row.seed_tests.get(OBJECTIVE)
        if test is None or not test.adjusted < ALPHA:
            same = "intervals overlap" if spread.overlaps(row.cells[OBJECTIVE]) else "intervals apart"
            close[row.name] = f"{row.name} (p {p_value(test)}, {same})"
    if close:
        what = "The ranking is within the noise" if others[0].name in close else "Not all of the ranking stands"
        seeds = text_format.plural(spread.count, "seed")
        found.append(f"{what}: over {seeds} {best.name} cannot be told from {', '.join(close.values())}.")
    return found


def _reason(row: TableRow) -> str:
    """Why there are no numbers, or fewer than there should be; "" where there are all."""
    if row.result.outcome == "missing":
        return f"{row.state}: {row.result.reason}"
    return row.result.reason or row.state


def _validation(row: TableRow) -> list[str]:
    """A configuration's numbers on validation, as `HEADINGS` names them."""
    spread, test = row.cells.get(OBJECTIVE), row.seed_tests.get(OBJECTIVE)
    if spread is None:
        return [_four(row.row.objective), *["-"] * (len(HEADINGS) - 1)]
    p, epoch = p_value(test) if test else "leader", f"{np.mean(row.epochs):.3g}"
    return [_four(row.row.objective), *_mean_and_interval(spread), p, str(spread.count), epoch]


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _mean_and_interval(spread: Spread) -> list[str]:
    interval = "-" if spread.low is None else f"{_four(spread.low)} to {_four(spread.high)}"
    return [_four(spread.mean), _four(spread.deviation), interval]


KIND = Rerun()
