"""The table of an ablation: every row against the full model."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from llmemf import text_format
from sweeps.ablations.plan import AblationRecord
from sweeps.ablations.rows import GROUPS, Row
from sweeps.comparison.paper_numbers import ABLATION, MOVIE_BOOK, PAPER_METRICS
from sweeps.comparison.significance import Test, against_reference, holm, paired_p
from sweeps.comparison.spread import Spread
from sweeps.comparison.state import EntryResult
from sweeps.comparison.table_formats import markdown_head, markdown_row, number, p_value, tex
from sweeps.comparison.tables import HEADINGS, RANKINGS, Cell, Place, all_tests

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

MARK = " (full model)"


@dataclass
class Line:
    """One row with its numbers.

    Attributes:
        validation: of the objective over seeds.
        cells: in percent.
        tests: against the full model, over the cases of the test split.
        seed_tests: the same over seeds.
    """

    row: Row
    result: EntryResult
    is_full: bool = False
    validation: Spread | None = None
    cells: dict[Place, Cell] = field(default_factory=dict)
    tests: dict[Place, Test] = field(default_factory=dict)
    seed_tests: dict[Place, Test] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.row.title + (MARK if self.is_full else "")

    @property
    def state(self) -> str:
        """Why there are no numbers; "" where there are."""
        return {"done": "", "failed": "failed", "missing": "cannot run"}.get(self.result.outcome, "not run yet")

    def against(self, place: Place) -> list[str]:
        """Distance of the mean from the full model's in points of percent, and p over cases and over seeds."""
        test = self.tests.get(place)
        difference = "-" if test is None else f"{100 * test.difference:+.2f}"
        return [difference, p_value(test), p_value(self.seed_tests.get(place))]


@dataclass
class AblationTable:
    """All rows on one scenario.

    Attributes:
        paper_domain: the domain for which the paper prints a table 4, "" where it has none.
        same_data: whether the scenario has the sizes of the paper's data.
    """

    name: str
    scenario: str
    domains: tuple[str, str]
    lines: list[Line]
    notes: list[str]
    paper_domain: str = ""
    same_data: bool = False

    @property
    def paper_heading(self) -> str:
        return "paper MRR" if self.same_data else "paper MRR (other data)"

    def paper_value(self, line: Line, domain: str) -> str:
        if domain != self.paper_domain:
            return ""
        return f"{ABLATION[line.row.name]:.2f}" if line.row.name in ABLATION else "-"


def build_table(
    record: AblationRecord,
    scenario: Scenario,
    rows: Mapping[str, Row],
    results: Sequence[EntryResult],
    validation: Mapping[str, Sequence[float]],
    ranks: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> AblationTable:
    """Put results and tests together.

    Args:
        validation: row -> objective of each seed.
        ranks: row -> ranks of each seed; of finished rows only.
    """
    lines = [Line(rows[result.name], result, result.name == record.full) for result in results]
    tests = {}
    if record.full in ranks:
        tests = all_tests(ranks, scenario.domains, partial(against_reference, reference=record.full))
    for line in lines:
        name = line.row.name
        if validation.get(name):
            line.validation = Spread.of(validation[name])
        if name not in ranks:
            continue
        for ranking in RANKINGS:
            for domain in scenario.domains:
                for metric in PAPER_METRICS:
                    place = (ranking, domain, metric)
                    if values := line.result.values("/".join(place)):
                        line.cells[place] = Cell.of(values)
                    if name in tests.get(place, {}):
                        line.tests[place] = tests[place][name]
    _test_over_seeds(lines, record.full)
    paper = scenario.domains == MOVIE_BOOK.domains
    same_data = paper and MOVIE_BOOK.is_of(scenario)
    table = AblationTable(
        record.name, scenario.name, scenario.domains, lines, [], scenario.domains[0] if paper else "", same_data
    )
    table.notes = describe(record, scenario, table)
    return table


def _test_over_seeds(lines: Sequence[Line], full: str) -> None:
    """Paired tests of every row against the full model over common seeds, with Holm's correction."""
    reference = next((line for line in lines if line.row.name == full), None)
    for place in reference.cells if reference else ():
        metric, p_values, differences = "/".join(place), {}, {}
        for line in lines:
            common = sorted(line.result.seeds.keys() & reference.result.seeds.keys())
            if line is reference or place not in line.cells or not common:
                continue
            first, second = (
                np.array([one.result.seeds[seed].metrics[metric] for seed in common]) for one in (line, reference)
            )
            p_values[line.row.name] = paired_p(first, second)
            differences[line.row.name] = float((first - second).mean())
        adjusted = holm(p_values)
        for line in lines:
            if (name := line.row.name) in p_values:
                line.seed_tests[place] = Test(full, differences[name], p_values[name], adjusted[name])


def describe(record: AblationRecord, scenario: Scenario, table: AblationTable) -> list[str]:
    """What a reader of the table must know."""
    done = [line for line in table.lines if line.result.outcome == "done"]
    candidates = f"{scenario.candidates['test'].shape[1]:,}"
    protocol = (
        f"In percent: mean and standard deviation over {text_format.plural(len(record.seeds), 'seed')}; {record.how}. Each seed "
        "was tested once, at its best validation epoch. Validation: what training monitors, mean and spread over seeds."
    )
    ranking = (
        f"Sampled: the target among {candidates} stored items of its domain; all items: among the whole catalogue of its "
        "domain."
    )
    notes = [protocol, ranking]
    if len(done) > 1:
        notes.append(
            "Difference and p: against the full model, MRR, sampled; paired two-sided t-tests with Holm's correction for the "
            f"{text_format.plural(len(done) - 1, 'row')} of a domain. Over cases (the reciprocal rank of a case averaged over "
            "seeds): would these trained models differ for other users? Over seeds: would other seeds give the same answer? "
            "A difference stands where both are small; over few seeds only large ones can be."
        )
    if record.tune is None:
        notes.append(
            "Rows keep the full model's configuration; one that was tuned for itself might do better (--tune N gives every "
            "row a search of its own)."
        )
    if table.paper_domain:
        text = f"{table.paper_heading}: as printed in LLM-EMF's table 4, by its authors."
        if not table.same_data:
            text += " This scenario has other sizes: the numbers do not stand beside each other."
        notes.append(text)
    notes += [f"{line.row.title} {line.state}: {line.result.reason}." for line in table.lines if line.result.reason]
    notes += next((line.result.notes for line in done if line.is_full), [])
    return notes


def validation_text(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.4f}")


def grouped(table: AblationTable) -> list[tuple[str, list[Line]]]:
    """Heading of a group -> its lines, in order; groups without a line are left out."""
    found = [(title, [line for line in table.lines if line.row.group == group]) for group, title in GROUPS.items()]
    return [(title, lines) for title, lines in found if lines]


def as_markdown(table: AblationTable) -> str:
    """One table per domain, with the notes."""
    lines = [f"# Ablation {table.name}", "", f"LLM-EMF on scenario `{table.scenario}`.", ""]
    for domain in table.domains:
        headings = ["row", *HEADINGS.values(), *(f"{name}, all items" for name in HEADINGS.values())]
        headings += ["difference (MRR)", "p, cases", "p, seeds"]
        headings += [table.paper_heading] if domain == table.paper_domain else []
        lines += [f"## {domain}", "", *markdown_head(headings)]
        for title, own in grouped(table):
            lines.append(markdown_row([f"*{title}*", *[""] * (len(headings) - 1)]))
            lines += [markdown_row(_cells(table, line, domain)) for line in own]
        lines.append("")
    lines += ["## Rows", "", *markdown_head(["row", "validation", "seeds", "settings"])]
    for line in table.lines:
        given = text_format.settings({**line.row.shown, **line.result.chosen})
        lines.append(
            markdown_row(
                [line.title, validation_text(line.validation), str(len(line.result.seeds) or "-"), given or "-"]
            )
        )
    lines += ["", *[f"{note}\n" for note in table.notes]]
    return "\n".join(lines).rstrip("\n") + "\n"


def _cells(table: AblationTable, line: Line, domain: str) -> list[str]:
    main = ("test", domain, "mrr")
    cells = [line.title + (f": {line.state}" if line.state else "")]
    numbers = [number(line.cells.get((ranking, domain, metric))) for ranking in RANKINGS for metric in PAPER_METRICS]
    paper = table.paper_value(line, domain)
    return [*cells, *numbers, *line.against(main), *([paper] if paper else [])]


CSV_COLUMNS = (
    "row", "title", "group", "full_model", "outcome", "domain", "ranked_among", "metric", "mean", "spread", "seeds",
    "values", "difference", "p", "p_holm", "p_seeds", "p_seeds_holm", "paper", "paper_data", "validation", "validation_spread", "settings", "reason",
)  # fmt: skip


def as_csv(table: AblationTable) -> str:
    """One line per row, domain, ranking and metric, unrounded and in percent; rows without numbers have one line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        shared = {
            "row": line.row.name,
            "title": line.row.title,
            "group": line.row.group,
            "full_model": int(line.is_full),
            "outcome": line.result.outcome or "waiting",
            "validation": line.validation and line.validation.mean,
            "validation_spread": line.validation and line.validation.deviation,
            "settings": text_format.settings({**line.row.shown, **line.result.chosen}),
            "reason": line.result.reason,
        }
        if not line.cells:
            writer.writerow(shared)
        for place, cell in line.cells.items():
            ranking, domain, metric = place
            values, test = line.result.values("/".join(place)), line.tests.get(place)
            found = {
                "domain": domain,
                "ranked_among": "stored candidates" if ranking == "test" else "all items",
                "metric": metric,
                "mean": cell.mean,
                "spread": cell.spread,
                "seeds": len(values),
                "values": ";".join(repr(100 * value) for value in values),
            }
            if test:
                found |= {"difference": 100 * test.difference, "p": test.p, "p_holm": test.adjusted}
            if over_seeds := line.seed_tests.get(place):
                found |= {"p_seeds": over_seeds.p, "p_seeds_holm": over_seeds.adjusted}
            if (ranking, metric) == ("test", "mrr") and domain == table.paper_domain and line.row.name in ABLATION:
                found |= {"paper": ABLATION[line.row.name], "paper_data": "same" if table.same_data else "other"}
            writer.writerow({**shared, **found})
    return text.getvalue()


def as_latex(table: AblationTable) -> str:
    """One `table*` for `booktabs`: a block per domain, as the paper prints its table 4."""
    paper = bool(table.paper_domain)
    width = 1 + 6 + 3 + paper
    heads = [*HEADINGS.values()] * 2
    last = ["Difference", "$p$, cases", "$p$, seeds"] + ([tex(table.paper_heading)] if paper else [])
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\small",
        rf"\caption{{Ablation of LLM-EMF on {tex(table.scenario)}.}}",
        r"\begin{tabular}{l" + "r" * (width - 1) + "}",
        r"\toprule",
        r" & \multicolumn{3}{c}{sampled} & \multicolumn{3}{c}{all items}" + " & " * (3 + paper) + r" \\",
        " & ".join(["Row", *heads, *last]) + r" \\",
    ]
    for domain in table.domains:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textit{{{tex(domain)}}}}} \\"]
        for index, (_, own) in enumerate(grouped(table)):
            lines += [r"\addlinespace"] if index else []
            for line in own:
                cells = _cells(table, line, domain)
                if paper and domain != table.paper_domain:
                    cells.append("-")
                cells = [tex(cells[0]), *(cell.replace(" ± ", r"\,$\pm$\,").replace("<", "$<$") for cell in cells[1:])]
                cells[7] = f"${cells[7]}$" if cells[7] != "-" else "-"
                if line.is_full:
                    cells[1:7] = [rf"\textbf{{{cell}}}" for cell in cells[1:7]]
                lines.append(" & ".join(cells) + r" \\")
    notes = r"\par\medskip\footnotesize\raggedright " + " ".join(tex(note) for note in table.notes)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", notes, r"\end{table*}"]) + "\n"
