"""Run an ablation: every row over seeds, each tested once, all against the full model."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from llmemf.errors import InputError
from sweeps.ablations import table as tables
from sweeps.ablations import view as ablation_view
from sweeps.ablations.configuration import configuration, full_row, plan_row_search, settled_rows
from sweeps.ablations.encoders import find_encoders
from sweeps.ablations.plan import AblationRecord
from sweeps.ablations.rows import Row
from sweeps.comparison.driver import run_group
from sweeps.comparison.group import GroupRun
from sweeps.comparison.run import test_means
from sweeps.comparison.seeds import ended_seeds
from sweeps.comparison.step import GroupBackend
from sweeps.core.plan import Plan


class AblationRun(GroupRun):
    """A running ablation: its entries are rows."""

    record: AblationRecord
    rows: dict[str, Row]

    def finalize(self) -> None:
        self.rows = finalize(self.record, self.scenario)

    def plan_search(self, entry: str) -> Plan | None:
        return None if self.record.tune is None else plan_row_search(self.record, self.rows[entry])

    def given(self, entry: str) -> dict[str, Any]:
        row = self.rows[entry]
        if row.problem:
            raise InputError(row.problem)
        return configuration(self.record, row)

    def params(self) -> dict[str, Any]:
        record = self.record
        return {
            "rows": "+".join(record.rows),
            "full_model": record.full,
            "configuration": f"tuned, {record.tune} trials" if record.tune else record.origin,
            "seeds": "+".join(map(str, record.seeds)),
            **record.fixed,
        }

    def summary(self) -> dict[str, float]:
        return test_means(self.state.results.values())

    def table(self) -> tables.AblationTable:
        """The table of all that is known by now."""
        validation = {}
        for entry in self.record.entries:
            records = ended_seeds(self.record.sweep_folder(entry, "seeds"))
            validation[entry] = [record.objective for _, record in sorted(records.items())]
        return tables.build_table(self.record, self.scenario, self.rows, self.results(), validation, self.ranks())

    def pages(self) -> dict[str, str]:
        table = self.table()
        return {
            "ablation.md": tables.as_markdown(table),
            "ablation.csv": tables.as_csv(table),
            "ablation.tex": tables.as_latex(table),
        }

    def show_start(self) -> None:
        ablation_view.print_start(self.record, self.scenario, self.rows, self.state, self.console)

    def show_entry(self, entry: str, place: int, *, earlier: bool) -> None:
        ablation_view.print_row(
            self.rows[entry], self.state.result(entry), self.scenario, place, self.record, self.console, earlier
        )

    def show_end(self, undelivered: str, page: str) -> None:
        ablation_view.print_end(self.table(), self.record, self.state, undelivered, page, self.console)


def finalize(record: AblationRecord, scenario: Any) -> dict[str, Row]:
    """Fix in the record which features stand for what and which row is the full model; it is always among the rows.

    Returns:
        all rows by name.

    Raises:
        InputError: not even the first row can run.
    """
    if record.encoders is None:
        wanted = {kind: record.fixed.get(f"{kind}_encoder", "auto") for kind in ("text", "image")}
        record.encoders = find_encoders(scenario, **wanted)
    rows = settled_rows(record)
    record.full = full_row(rows)
    record.rows = [name for name in rows if name in (*record.rows, record.full)]
    return rows


def run_ablation(
    record: AblationRecord,
    console: Console,
    *,
    time_budget: float | None = None,
    backend: GroupBackend | None = None,
) -> int:
    """Run or continue an ablation to its end; see `run_group`."""
    return run_group(AblationRun, record, console, time_budget=time_budget, backend=backend)
