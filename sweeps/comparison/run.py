"""Run a comparison: for every system a search, the chosen configuration over seeds, one look at the test split per seed."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from sweeps.comparison import table_formats, tables
from sweeps.comparison import view as comparison_view
from sweeps.comparison.driver import run_group
from sweeps.comparison.group import GroupRun
from sweeps.comparison.paper_numbers import PAPER_METRICS
from sweeps.comparison.plan import ComparisonRecord, plan_search
from sweeps.comparison.step import GroupBackend
from sweeps.core.plan import Plan


class ComparisonRun(GroupRun):
    """A running comparison: its entries are systems."""

    record: ComparisonRecord

    def plan_search(self, entry: str) -> Plan:
        return plan_search(self.record, entry)

    def params(self) -> dict[str, Any]:
        record = self.record
        return {
            "systems": "+".join(record.models),
            "trials_per_model": record.trials_per_model,
            "seeds": "+".join(map(str, record.seeds)),
            **record.fixed,
        }

    def summary(self) -> dict[str, float]:
        return test_means(self.state.results.values())

    def pages(self) -> dict[str, str]:
        table = self.table()
        return {
            "comparison.md": table_formats.as_markdown(table),
            "comparison.csv": table_formats.as_csv(table),
            "comparison.tex": table_formats.as_latex(table),
        }

    def table(self) -> tables.ComparisonTable:
        """The table of all that is known by now."""
        return tables.build_table(self.record, self.scenario, self.results(), self.ranks())

    def show_start(self) -> None:
        comparison_view.print_start(self.record, self.scenario, self.state, self.console)

    def show_entry(self, entry: str, place: int, *, earlier: bool) -> None:
        result = self.state.result(entry)
        comparison_view.print_system(result, self.scenario, place, self.record, self.console, earlier=earlier)

    def show_end(self, undelivered: str, page: str) -> None:
        comparison_view.print_end(self.table(), self.record, self.state, undelivered, page, self.console)


def test_means(results: Any) -> dict[str, float]:
    """Means over seeds for MLflow: `test/DOMAIN/METRIC/ENTRY`."""
    means = {}
    for result in results:
        for metric in sorted(set().union(*(seed.metrics for seed in result.seeds.values()))):
            if metric.rpartition("/")[2] in PAPER_METRICS:
                values = result.values(metric)
                means[f"{metric}/{result.name}"] = sum(values) / len(values)
    return means


def run_comparison(
    record: ComparisonRecord,
    console: Console,
    *,
    time_budget: float | None = None,
    backend: GroupBackend | None = None,
) -> int:
    """Run or continue a comparison to its end; see `run_group`."""
    return run_group(ComparisonRun, record, console, time_budget=time_budget, backend=backend)
