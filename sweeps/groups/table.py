"""The table of a group: row x metric with mean, deviation, p over cases, p over seeds, and the paper's number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import TYPE_CHECKING

import numpy as np

from sweeps.groups.group import Group, Row
from sweeps.groups.paper_numbers import PAPER_METRICS, PaperTable, table_of_domains
from sweeps.groups.results import RowResult
from sweeps.groups.significance import (
    BEST,
    Spread,
    Test,
    gains,
    holm,
    intervals,
    mean_over_seeds,
    paired_p,
    paired_tests,
)
from sweeps.state.trial_records import TrialRecord

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

RANKINGS = {"test": "sampled", "test_full": "full"}
"""Beginning of a metric's name -> the ranks it is made of: among stored candidates, among all items of the domain."""
OBJECTIVE = "objective"


@dataclass
class TableRow:
    """One row with all that is known of it, by metric (`objective`, `val/movie/mrr`, `test/movie/mrr`, ...).

    Attributes:
        heading: as it stands in the table.
        values: metric -> seed -> value, as fractions.
        cells: their spread over seeds; test metrics in percent where every row is tested.
        case_tests: against another row, over the cases of the test split.
        seed_tests: the same over seeds.
        paper: the paper's number in percent.
        epochs: best epoch of each seed.
    """

    row: Row
    result: RowResult
    heading: str
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
    def state(self) -> str:
        """Why there are no numbers; "" where there are."""
        return {"done": "", "failed": "failed", "missing": "cannot run"}.get(self.result.outcome, "not run yet")


@dataclass
class Table:
    """All rows of a group on one scenario.

    Attributes:
        paper: the paper's table of the same two domains, None where it has none, or none of these rows.
        same_data: whether the scenario has the sizes of the paper's data.
        warnings: what the order of the rows does not prove.
        notes: what a reader must know, one sentence or two each.
    """

    group: Group
    scenario: Scenario
    rows: list[TableRow]
    paper: PaperTable | None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def domains(self) -> tuple[str, str]:
        return self.scenario.domains

    @property
    def same_data(self) -> bool:
        return self.paper is not None and self.paper.is_of(self.scenario)

    @property
    def done(self) -> list[TableRow]:
        return [row for row in self.rows if row.result.outcome == "done"]

    def row(self, name: str) -> TableRow:
        return next(row for row in self.rows if row.name == name)

    @property
    def shown(self) -> list[TableRow]:
        """The rows of the tables of test metrics: all of them, or the one winner once it is tested."""
        return [row for row in self.rows if row.result.seeds] if self.group.test == "winner" else self.rows

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
    def tested_metric(self) -> str:
        """What rows are tested against each other by, in words."""
        return "MRR" if self.one_ranking else "MRR, sampled"

    @property
    def leader(self) -> str:
        """The row with the best mean objective, "" where none has a value.

        One of which a seed failed comes after all that have all their seeds: its mean leaves out its worst.
        """
        valued = [row for row in self.rows if OBJECTIVE in row.cells]
        return max(valued, key=_rank).name if valued else ""

    @property
    def complete(self) -> bool:
        """Whether every row is finished."""
        return all(row.result.outcome for row in self.rows)

    @property
    def winner(self) -> str:
        """The row that was tested, or is to be; "" as long as one is not finished."""
        return self.group.winner or (self.leader if self.complete else "")

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


def _rank(row: TableRow) -> tuple[bool, float]:
    return not row.result.reason, row.cells[OBJECTIVE].mean


def metric_names(domains: Iterable[str]) -> list[str]:
    """The test metrics of a table, in their order."""
    return [f"{ranking}/{domain}/{metric}" for ranking in RANKINGS for domain in domains for metric in PAPER_METRICS]


def build_table(
    group: Group,
    scenario: Scenario,
    results: Sequence[RowResult],
    trained: Mapping[str, Mapping[int, TrialRecord]],
    ranks: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    papers: Sequence[PaperTable] = (),
) -> Table:
    """Put results, tests and the paper's numbers together.

    Args:
        trained: row -> seed -> what was trained with it.
        ranks: row -> ranks of each seed, as `evaluation.load_ranks` gives them; of finished rows only.
        papers: the paper's tables, of which the one of the scenario's domains is used.
    """
    table = Table(group, scenario, [], table_of_domains(papers, scenario.domains))
    for result in results:
        row = group.row(result.name)
        made = TableRow(row, result, row.title or row.name)
        table.rows.append(made)
        if records := trained.get(row.name):
            objectives = {seed: record.objective for seed, record in records.items()}
            made.values[OBJECTIVE] = {seed: value for seed, value in objectives.items() if value is not None}
            for name in sorted(set.intersection(*(set(record.metrics) for record in records.values()))):
                made.values[name] = {seed: record.metrics[name] for seed, record in records.items()}
            made.epochs = [record.best_epoch for record in records.values()]
        made.cells = {metric: Spread.of(list(values.values())) for metric, values in made.values.items()}
        for domain, metric in product(scenario.domains, PAPER_METRICS):
            if table.paper and (value := table.paper.value(row.name, domain, metric)) is not None:
                made.paper[f"test/{domain}/{metric}"] = value
    if not any(row.paper for row in table.rows):
        table.paper = None
    if group.test == "winner":
        _fill_winner(table)
    else:
        _fill_every_row(table, ranks)
    return table


def _fill_winner(table: Table) -> None:
    """Rows in the order of validation with their tests against the leader, and the winner's test metrics."""
    table.rows.sort(key=lambda row: (True, _rank(row)) if row.cells else (False, (False, 0.0)), reverse=True)
    if table.leader:
        _test_over_seeds(table.rows, table.leader, [OBJECTIVE])
    for row in table.rows:
        if row.name == table.winner:
            for metric in row.result.metrics:
                row.values[metric] = row.result.values(metric)
                row.cells[metric] = Spread.of(list(row.values[metric].values()))


def _fill_every_row(table: Table, ranks: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> None:
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


def case_tests(
    ranks: Mapping[str, Sequence[Mapping[str, np.ndarray]]], domains: tuple[str, str], reference: str
) -> dict[str, dict[str, Test]]:
    """Metric -> row -> test over the cases of the test split.

    Args:
        ranks: row -> ranks of each seed.
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
    base = next(row for row in rows if row.name == reference)
    others = [row for row in rows if row is not base]
    for metric in metrics:
        p_values, differences = {}, {}
        for row in others:
            if common := sorted(base.values.get(metric, {}).keys() & row.values.get(metric, {}).keys()):
                first, second = (np.array([one.values[metric][seed] for seed in common]) for one in (row, base))
                p_values[row.name], differences[row.name] = paired_p(first, second), float((first - second).mean())
        for name, adjusted in holm(p_values).items():
            row = next(row for row in others if row.name == name)
            row.seed_tests[metric] = Test(reference, differences[name], p_values[name], adjusted)
