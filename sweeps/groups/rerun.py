"""Reruns: the best trials of a sweep again over seeds; validation chooses one of them, and only then that one is tested.

The rows are trials. Each is trained over seeds other than the sweep's own, so that the luck of the search does not count.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.errors import InputError
from llmemf.scenarios.scenario import Scenario
from sweeps.core.options import Options
from sweeps.core.resume import plan_resume
from sweeps.core.settings import RESOURCES, space_keys
from sweeps.groups import rerun_table
from sweeps.groups.group import Group, Row
from sweeps.groups.kind import Kind
from sweeps.groups.plan import GroupOptions, config_of_trial, new_group, not_completed
from sweeps.groups.render import Block, number
from sweeps.groups.rerun_table import model_of, reason_of, warnings_of
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked
from sweeps.tracking.addresses import absolute_uri

DEFAULT_TOP = 3


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
        said = [("sweep", f"{group.facts['sweep']}, {model_of(group)} on {group.scenario}")]
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
        spread, why = row.cells.get(OBJECTIVE), reason_of(row)
        if spread is None:
            return text.append(why or "failed", style="red not dim")
        text.append(f"validation {number(spread, 4)}", style="not dim")
        text.append(f" ({row.row.objective:.4f} in the sweep), {text_format.plural(spread.count, 'seed')}")
        text.append(f", {why}" if why else "", style="red not dim")
        return text.append(", earlier" if earlier else "")

    def annotate(self, table: Table) -> None:
        """What the order of the rows does not prove, and what a reader must know."""
        if table.leader and table.complete:
            table.warnings = warnings_of(table)
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
        return rerun_table.files(table)

    def blocks(self, table: Table, console: Console) -> list[Block]:
        return rerun_table.terminal_blocks(table, console.width)


KIND = Rerun()
