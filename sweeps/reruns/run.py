"""Run a rerun: each configuration over seeds, the winner chosen on validation, and only then tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf.io import write_text
from sweeps.comparison.driver import run_group
from sweeps.comparison.group import EntryFailed, GroupRun
from sweeps.comparison.record import plan_seeds
from sweeps.comparison.seeds import ended_seeds
from sweeps.comparison.step import GroupBackend
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import load_data
from sweeps.reruns import table as tables
from sweeps.reruns import view as rerun_view
from sweeps.reruns.plan import RerunRecord


class RerunRun(GroupRun):
    """A running rerun: its entries are trials of a sweep."""

    record: RerunRecord
    tests_every_entry = False

    def plan_search(self, entry: str) -> Plan | None:
        return None

    def given(self, entry: str) -> dict[str, Any]:
        return self.record.configurations[entry]

    def conclude(self) -> None:
        """Choose on validation, then look at the test split: once, whatever is trained later."""
        record = self.record
        if not record.winner:
            record.winner = tables.best_line(self.table().lines)
            record.save()
        if not record.winner:
            return
        plan = plan_seeds(record, record.winner, self.given(record.winner))
        data = self.backend.data or load_data(plan)
        trained = [record for _, record in sorted(ended_seeds(plan.record.folder).items())]
        try:
            self.look(record.winner, plan, data, trained, self.weights(plan))
        except EntryFailed as error:
            self.state.end(record.winner, "failed", f"test: {error}")

    def params(self) -> dict[str, Any]:
        record = self.record
        return {
            "sweep_again": record.sweep,
            "trials": "+".join(record.trials),
            "seeds": "+".join(map(str, record.seeds)),
        }

    def summary(self) -> dict[str, float]:
        table = self.table()
        found = {f"objective/{line.name}": line.spread.mean for line in table.lines if line.spread}
        if table.winner and (spread := next(line.spread for line in table.lines if line.name == table.winner)):
            found["objective"] = spread.mean
        return found | {metric: spread.mean for metric, spread in table.tested.items()}

    def table(self) -> tables.RerunTable:
        """The table of all that is known by now."""
        record = self.record
        seeds = {trial: ended_seeds(record.sweep_folder(trial, "seeds")) for trial in record.trials}
        notes = list(dict.fromkeys(note for result in self.results() for note in result.notes))
        return tables.build_table(record, self.scenario.domains, self.results(), seeds, notes)

    def pages(self) -> dict[str, str]:
        table = self.table()
        found = {
            "rerun.md": tables.as_markdown(table),
            "rerun.csv": tables.as_csv(table),
            "rerun.json": tables.as_json(table),
        }
        beside = Path(self.record.storage) / "sweeps" / self.record.sweep
        if beside.is_dir():
            for name, text in found.items():
                write_text(beside / name, text)
        return found

    def show_start(self) -> None:
        rerun_view.print_start(self.record, self.scenario, self.state, self.console)

    def show_entry(self, entry: str, place: int, *, earlier: bool) -> None:
        line = next(line for line in self.table().lines if line.name == entry)
        rerun_view.print_trial(line, place, self.record, self.console, earlier=earlier)

    def show_end(self, undelivered: str, page: str) -> None:
        rerun_view.print_end(self.table(), self.state, undelivered, page, self.console)


def run_rerun(
    record: RerunRecord,
    console: Console,
    *,
    time_budget: float | None = None,
    backend: GroupBackend | None = None,
) -> int:
    """Run or continue a rerun to its end; see `run_group`."""
    return run_group(RerunRun, record, console, time_budget=time_budget, backend=backend)
