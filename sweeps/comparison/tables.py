"""The table of a comparison, in the paper's form: what it holds, and how it reads as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmemf import text_format
from sweeps.comparison.paper_numbers import OWN_PAPER, PAPER_METRICS, PaperTable, paper_table, shown_name
from sweeps.comparison.plan import ComparisonRecord
from sweeps.comparison.significance import Test, against_best, mean_over_seeds
from sweeps.comparison.state import EntryResult

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

RANKINGS = {"test": "sampled", "test_full": "full"}
"""Beginning of a metric's name -> the ranks it is made of: among stored candidates, among all items of the domain."""
HEADINGS = {"mrr": "MRR", "ndcg_5": "NDCG@5", "ndcg_10": "NDCG@10"}
Place = tuple[str, str, str]
"""Ranking, domain, metric."""


@dataclass(frozen=True)
class Cell:
    """A metric of a system over its seeds, in percent; the spread is the sample standard deviation, None with one seed."""

    mean: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell:
        percent = 100 * np.asarray(values, dtype=np.float64)
        return cls(float(percent.mean()), float(percent.std(ddof=1)) if len(percent) > 1 else None)


@dataclass
class Row:
    """One system: its numbers, its tests against the best other one, and how it came to them."""

    result: EntryResult
    cells: dict[Place, Cell] = field(default_factory=dict)
    tests: dict[Place, Test] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.result.name

    @property
    def name(self) -> str:
        """As the paper writes it, with how it relates to its source where that is not faithfully."""
        status = self.result.status
        return shown_name(self.model) + (f" ({status})" if status not in ("", "faithful") else "")

    @property
    def state(self) -> str:
        """Why there are no numbers; "" where there are."""
        return {"done": "", "failed": "failed", "missing": "cannot run"}.get(self.result.outcome, "not run yet")


@dataclass
class ComparisonTable:
    """All systems on one scenario.

    Attributes:
        paper: the paper's table of the same two domains, None where it has none.
        same_data: whether the scenario has the sizes of the paper's data.
        notes: what a reader must know, one sentence or two each.
    """

    name: str
    scenario: str
    domains: tuple[str, str]
    rows: list[Row]
    paper: PaperTable | None
    same_data: bool
    notes: list[str]

    @property
    def paper_heading(self) -> str:
        return "paper" if self.same_data else "paper (other data)"

    def place(self, row: Row, place: Place) -> int:
        """1 for the best mean of a column, 2 for the second best, 0 for all others; equal means share a place."""
        if place not in row.cells:
            return 0
        means = sorted({other.cells[place].mean for other in self.rows if place in other.cells}, reverse=True)
        index = means.index(row.cells[place].mean)
        return index + 1 if index < 2 else 0

    def paper_value(self, row: Row, domain: str, metric: str) -> float | None:
        return self.paper.value(row.model, domain, metric) if self.paper else None


def build_table(
    record: ComparisonRecord,
    scenario: Scenario,
    results: Iterable[EntryResult],
    ranks: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> ComparisonTable:
    """Put results, tests and the paper's numbers together.

    Args:
        ranks: system -> ranks of each seed, as `seeds.load_ranks` gives them; of finished systems only.
    """
    rows = [Row(result) for result in results]
    for row in rows:
        if row.model not in ranks:
            continue
        for prefix in RANKINGS:
            for domain in scenario.domains:
                for metric in PAPER_METRICS:
                    values = row.result.values(f"{prefix}/{domain}/{metric}")
                    if values:
                        row.cells[prefix, domain, metric] = Cell.of(values)
    for place, tests in all_tests(ranks, scenario.domains).items():
        for row in rows:
            if row.model in tests:
                row.tests[place] = tests[row.model]
    paper = paper_table(scenario.domains)
    same_data = paper is not None and paper.is_of(scenario)
    table = ComparisonTable(record.name, scenario.name, scenario.domains, rows, paper, same_data, [])
    table.notes = describe(record, scenario, table)
    return table


def all_tests(
    ranks: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    domains: tuple[str, str],
    compare: Callable[[Mapping[str, np.ndarray]], dict[str, Test]] = against_best,
) -> dict[Place, dict[str, Test]]:
    """Tests between entries, for both rankings, both domains and all metrics.

    Args:
        ranks: entry -> ranks of each seed.
        compare: entry -> values of the cases in, entry -> test out.
    """
    found: dict[Place, dict[str, Test]] = {}
    if not ranks:
        return found
    first = next(iter(ranks.values()))[0]
    for seeds in ranks.values():
        for of_seed in seeds:
            assert np.array_equal(of_seed["case"], first["case"]), "entries were ranked on other cases"
    for prefix, kind in RANKINGS.items():
        for code, domain in enumerate(domains):
            of_domain = first["domain"] == code
            if not of_domain.any():
                continue
            for metric in PAPER_METRICS:
                values = {
                    model: mean_over_seeds([of_seed[kind][of_domain] for of_seed in seeds], metric)
                    for model, seeds in ranks.items()
                }
                found[prefix, domain, metric] = compare(values)
    return found


def describe(record: ComparisonRecord, scenario: Scenario, table: ComparisonTable) -> list[str]:
    """What a reader of the table must know."""
    done = [row for row in table.rows if row.result.outcome == "done"]
    count = text_format.plural(len(record.seeds), "seed")
    protocol = (
        f"In percent: mean and standard deviation over {count} of the configuration that {record.trials_per_model} trials "
        "at most chose on validation, the same budget for every system. Each seed was tested once, at its best validation "
        "epoch. Bold: best; underlined: second."
    )
    ranking = (
        f"Sampled: the target among {scenario.candidates['test'].shape[1]:,} stored items of its domain; all items: among "
        "the whole catalogue of its domain. Equal scores share their mean rank."
    )
    if len(record.seeds) > 1 and any(len(row.result.seeds) == 1 and not row.result.reason for row in done):
        protocol += " A closed form, in which nothing is drawn, has one."
    notes = [protocol, ranking]
    if len(done) > 1:
        notes.append(
            "p: paired two-sided t-test over the test cases against the best other system (MRR, sampled; the reciprocal "
            "rank of a case averaged over seeds), with Holm's correction for the "
            f"{text_format.plural(len(done) - 1, 'comparison')} of a domain."
        )
    if table.paper is not None:
        paper = table.paper
        text = (
            f"{table.paper_heading}: as printed in LLM-EMF's table of {paper.title}, by its authors, one run, candidates not "
            "stated there (999 where it repeats C2DSR's table)."
        )
        if not table.same_data:
            text += (
                f" That data has {paper.num_items[0]:,} + {paper.num_items[1]:,} items and {paper.num_train:,} training "
                f"sequences, this one {scenario.num_x:,} + {scenario.num_y:,} and {len(scenario.train):,}: the numbers do "
                "not stand beside each other."
            )
        notes.append(text)
        own = [shown_name(row.model) for row in table.rows if row.model in OWN_PAPER & paper.rows.keys()]
        notes += [f"{name}: the paper's column is from its own paper; LLM-EMF's tables leave it out." for name in own]
    if any(row.name == shown_name(row.model) for row in done):
        notes.append("A system without a remark in brackets is written faithfully from its source.")
    notes += [
        f"{shown_name(row.model)} {row.state}: {row.result.reason}"
        for row in table.rows
        if row.result.reason and row.state
    ]
    notes += [f"{shown_name(row.model)}: {row.result.reason}." for row in done if row.result.reason]
    for row in done:
        facts = "; ".join(f"{key} {value}" for key, value in row.result.facts.items())
        notes += [f"{shown_name(row.model)}: {facts}."] if facts else []
    said: dict[str, list[str]] = {}
    for row in done:
        for note in row.result.notes:
            said.setdefault(note, []).append(shown_name(row.model))
    notes += [note if len(names) == len(done) else f"{', '.join(names)}: {note}" for note, names in said.items()]
    return notes
