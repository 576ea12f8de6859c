"""The table of a group: row x metric with mean, deviation, p over cases, p over seeds, and the paper's number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from sweeps.groups.group import Group, Row
from sweeps.groups.paper_numbers import PAPER_METRICS, PAPERS, PaperTable
from sweeps.groups.results import RowResult
from sweeps.groups.significance import (
    BEST,
    Spread,
    Test,
    gains,
    intervals,
    mean_over_seeds,
    paired_tests,
    tests_against,
)
from sweeps.state.trial_records import TrialRecord

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

RANKINGS = {"test": "sampled", "test_full": "full"}
"""Beginning of a metric's name -> the ranks it is made of: among stored candidates, among all items of the domain."""
OBJECTIVE = "objective"
Ranks = Mapping[str, Sequence[Mapping[str, np.ndarray]]]
"""Row -> ranks of each seed, as `evaluation.load_ranks` gives them."""


@dataclass
class TableRow:
    """One row with all that is known of it, by metric (`objective`, `val/movie/mrr`, `test/movie/mrr`, ...).

    Attributes:
        values: metric -> seed -> value, as fractions.
        cells: their spread over seeds; test metrics in percent where every row is tested.
        case_tests: against another row, over the cases of the test split.
        seed_tests: the same over seeds.
        paper: the paper's number in percent.
        epochs: best epoch of each seed.
    """

    row: Row
    result: RowResult
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    cells: dict[str, Spread] = field(default_factory=dict)
    case_tests: dict[str, Test] = field(default_factory=dict)
    seed_tests: dict[str, Test] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def title(self) -> str:
        return self.row.title or self.row.name

    @property
    def state(self) -> str:
        """Why there are no numbers; "" where there are."""
        left = "unfinished" if self.epochs else "not run yet"
        return {"done": "", "failed": "failed", "missing": "cannot run"}.get(self.result.outcome, left)

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """By which rows are ordered on validation: the mean of one of which a seed failed leaves out its worst."""
        if OBJECTIVE not in self.cells:
            return False, False, 0.0
        return True, not self.result.reason, self.cells[OBJECTIVE].mean


@dataclass
class Table:
    """All rows of a group on one scenario.

    Attributes:
        paper: the paper's table of the same two domains, None where it has none, or none of these rows.
    """

    group: Group
    scenario: Scenario
    rows: list[TableRow]
    paper: PaperTable | None

    @property
    def domains(self) -> tuple[str, str]:
        return self.scenario.domains

    @property
    def same_data(self) -> bool:
        """Whether the scenario has the sizes of the paper's data."""
        return self.paper is not None and self.paper.is_of(self.scenario)

    @property
    def done(self) -> list[TableRow]:
        return [row for row in self.rows if row.result.outcome == "done"]

    def row(self, name: str) -> TableRow:
        return next(row for row in self.rows if row.name == name)

    def place(self, row: TableRow, metric: str) -> int:
        """1 for the best mean of a metric, 2 for the second best, 0 for all others; equal means share a place."""
        if metric not in row.cells:
            return 0
        means = sorted({other.cells[metric].mean for other in self.rows if metric in other.cells}, reverse=True)
        index = means.index(row.cells[metric].mean)
        return index + 1 if index < 2 else 0

    @property
    def one_ranking(self) -> bool:
        """Whether the stored candidates are all items of their domain, so that both rankings give the same numbers."""
        full = [(row.cells, name) for row in self.rows for name in row.cells if name.startswith("test_full/")]
        return bool(full) and all(cells.get(f"test{name[9:]}") == cells[name] for cells, name in full)

    @property
    def leader(self) -> str:
        """The row with the best mean objective, "" where none has a value."""
        valued = [row for row in self.rows if OBJECTIVE in row.cells]
        return max(valued, key=lambda row: row.rank).name if valued else ""

    @property
    def winner(self) -> str:
        """The row that alone is or will be tested; "" as long as a row is not finished, and where every row is tested."""
        if self.group.test == "every row":
            return ""
        return self.group.winner or (self.leader if all(row.result.outcome for row in self.rows) else "")

    @property
    def tested(self) -> dict[str, Spread]:
        """Test metric -> spread over the winner's seeds."""
        rows = [row for row in self.rows if row.name == self.winner]
        return {name: cell for row in rows for name, cell in row.cells.items() if name in row.result.metrics}

    def summary(self) -> dict[str, float]:
        """Metrics of the group's run in MLflow."""
        if self.group.test == "every row":
            names = [(row, name) for row in self.rows for name in row.result.metrics]
            kept = [(row, name) for row, name in names if name.rpartition("/")[2] in PAPER_METRICS]
            return {f"{name}/{row.name}": _mean(row.result.values(name)) for row, name in kept}
        means = {row.name: row.cells[OBJECTIVE].mean for row in self.rows if OBJECTIVE in row.cells}
        found = {f"{OBJECTIVE}/{name}": mean for name, mean in means.items()}
        found |= {OBJECTIVE: means[self.winner]} if self.winner else {}
        return found | {metric: spread.mean for metric, spread in self.tested.items()}


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def metric_names(domains: Iterable[str]) -> list[str]:
    """The test metrics of a table, in their order."""
    return [f"{ranking}/{domain}/{metric}" for ranking in RANKINGS for domain in domains for metric in PAPER_METRICS]


def build_table(
    group: Group,
    scenario: Scenario,
    results: Sequence[RowResult],
    trained: Mapping[str, Mapping[int, TrialRecord]],
    ranks: Ranks,
) -> Table:
    """Put results, tests and the paper's numbers together.

    Args:
        trained: row -> seed -> what was trained with it.
        ranks: of finished rows only.
    """
    paper = next((paper for paper in PAPERS.get(group.kind, ()) if paper.domains == scenario.domains), None)
    table, names = Table(group, scenario, [], paper), metric_names(scenario.domains)
    for result in results:
        row = TableRow(group.row(result.name), result)
        table.rows.append(row)
        if records := trained.get(row.name):
            objectives = {seed: record.objective for seed, record in records.items()}
            row.values[OBJECTIVE] = {seed: value for seed, value in objectives.items() if value is not None}
            for name in sorted(set.intersection(*(set(record.metrics) for record in records.values()))):
                row.values[name] = {seed: record.metrics[name] for seed, record in records.items()}
            row.epochs = [record.best_epoch for record in records.values()]
        row.cells = {metric: Spread.of(list(values.values())) for metric, values in row.values.items()}
        found = {name: paper.value(row.name, name) for name in names} if paper else {}
        row.paper = {name: value for name, value in found.items() if value is not None}
    if not any(row.paper for row in table.rows):
        table.paper = None
    if group.test == "winner":
        _fill_winner(table)
    else:
        _fill_every_row(table, ranks)
    return table


def _fill_winner(table: Table) -> None:
    """Rows in the order of validation with their tests against the leader, and the winner's test metrics."""
    table.rows.sort(key=lambda row: row.rank, reverse=True)
    if table.leader:
        _test_over_seeds(table.rows, table.leader, [OBJECTIVE])
    for row in table.rows:
        for metric in row.result.metrics if row.name == table.winner else ():
            row.values[metric] = row.result.values(metric)
            row.cells[metric] = Spread.of(list(row.values[metric].values()))


def _fill_every_row(table: Table, ranks: Ranks) -> None:
    """The test metrics of all finished rows and their tests."""
    reference, names = table.group.reference, metric_names(table.domains)
    for row in table.rows:
        for metric in names if row.name in ranks else ():
            if values := row.result.values(metric):
                row.values[metric] = values
                row.cells[metric] = Spread.of([100 * value for value in values.values()])
    if reference != BEST and reference not in ranks:
        return
    for metric, tests in case_tests(ranks, table.domains, reference).items():
        for name, test in tests.items():
            table.row(name).case_tests[metric] = test
    if reference != BEST:
        _test_over_seeds(table.rows, reference, names)


def case_tests(ranks: Ranks, domains: tuple[str, str], reference: str) -> dict[str, dict[str, Test]]:
    """Metric -> row -> test over the cases of the test split.

    Args:
        reference: the row that the others are tested against, or `best`.
    """
    if not ranks:
        return {}
    first = next(iter(ranks.values()))[0]
    for of_seed in chain.from_iterable(ranks.values()):
        assert np.array_equal(of_seed["case"], first["case"]), "rows were ranked on other cases"
    found = {}
    for name in metric_names(domains):
        ranking, domain, metric = name.split("/")
        kind, cases = RANKINGS[ranking], first["domain"] == domains.index(domain)
        if cases.any():
            of_rows = {row: [of_seed[kind][cases] for of_seed in seeds] for row, seeds in ranks.items()}
            means = {row: mean_over_seeds(seeds, metric) for row, seeds in of_rows.items()}
            found[name] = paired_tests(means, reference)
            if name == f"test/{domain}/mrr":
                own = {row: np.stack([gains(of_seed, metric) for of_seed in seeds]) for row, seeds in of_rows.items()}
                between = intervals(own, found[name])
                found[name] = {row: replace(test, interval=between[row]) for row, test in found[name].items()}
    return found


def _test_over_seeds(rows: Sequence[TableRow], reference: str, metrics: Iterable[str]) -> None:
    """Paired tests of every row against one of them over common seeds, with Holm's correction."""
    by_name = {row.name: row for row in rows}
    for metric in metrics:
        pairs, base = {}, by_name[reference].values.get(metric, {})
        for row in rows:
            own = row.values.get(metric, {})
            if row.name != reference and (common := sorted(base.keys() & own.keys())):
                pairs[row.name] = np.array([own[seed] for seed in common]), np.array([base[seed] for seed in common])
        for name, test in tests_against(reference, pairs).items():
            by_name[name].seed_tests[metric] = test
