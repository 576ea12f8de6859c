"""What the reader of a table must know, a sentence or two each."""

from __future__ import annotations

from llmemf import text_format
from llmemf.models import model_class
from llmemf.scenarios.audit import domain_facts
from llmemf.scenarios.scenario import Scenario
from sweeps.groups.significance import BEST
from sweeps.groups.table import Table, TableRow


def sampled_note(table: Table) -> str:
    """What the target of a case is ranked among."""
    if table.one_ranking:
        return "The target is ranked among all items of its domain: the stored candidates are all of them."
    count = table.scenario.candidates["test"].shape[1]
    return (
        f"Metrics without a remark are sampled: the target is ranked among {count:,} stored candidates of its domain; all items: "
        "among all items of its domain."
    )


def protocol_notes(table: Table, protocol: str) -> list[str]:
    """How the numbers were made, what they are ranked among, and whom p is against."""
    group, done = table.group, table.done
    if len(group.seeds) > 1 and any(len(row.result.seeds) == 1 and not row.result.reason for row in done):
        protocol += " A closed form, in which nothing is drawn, has one."
    notes = [protocol, f"{sampled_note(table)} Equal scores share their mean rank.", cold_note(table.scenario)]
    notes += [text] if (text := side_note(table)) else []
    if len(done) > 1:
        named = group.reference != BEST
        against = f"{group.row(group.reference).title}, named beforehand" if named else f"the best other {group.noun}"
        notes.append(
            f"p: paired two-sided t-test over the test cases against {against} ({table.tested_metric}; the "
            "reciprocal rank of a case averaged over seeds), with Holm's correction for the "
            f"{text_format.plural(len(done) - 1, 'comparison')} of a domain. Difference: of the same MRR, in percentage "
            "points; its 95 % interval draws test cases and seeds anew (bootstrap), and not the search."
        )
    return notes


def row_notes(table: Table) -> list[str]:
    """What is to be said of single rows: why they have no numbers, what their models and data say of themselves."""
    done, failed = table.done, [row for row in table.rows if row.result.reason and row.state]
    notes = [f"{row.row.title} {row.state}: {row.result.reason}" for row in failed]
    notes += [f"{row.row.title}: {row.result.reason}." for row in done if row.result.reason]
    notes += [text for row in done if (text := not_converged(row))]
    for row in done:
        said = "; ".join(f"{key} {value}" for key, value in row.result.facts.items())
        notes += [f"{row.row.title}: {said}."] if said else []
    titles: dict[str, list[str]] = {}
    for row in done:
        for note in row.result.notes:
            titles.setdefault(note, []).append(row.row.title)
    return notes + [note if len(own) == len(done) else f"{', '.join(own)}: {note}" for note, own in titles.items()]


def cold_note(scenario: Scenario) -> str:
    """Share of test targets that no training sequence holds, by domain."""
    facts = {domain: domain_facts(scenario, index) for index, domain in enumerate(scenario.domains)}
    shares = [
        f"{100 * found.cold_targets['test'] / count:.1f} % of the {domain} targets"
        for domain, found in facts.items()
        if (count := found.targets["test"])
    ]
    return f"Never seen in training: {' and '.join(shares)}."


def side_note(table: Table) -> str:
    """MRR per item and coverage of all tested rows, best first, "" where no row has them."""
    parts = []
    for domain in table.domains:
        names = [f"test/{domain}/{name}" for name in ("mrr_per_item", "coverage_10")]
        found = []
        for row in table.done:
            values = [row.result.values(name) for name in names]
            if all(values):
                mrr, share = (100 * sum(one.values()) / len(one) for one in values)
                found.append((mrr, share, row.row.title))
        listed = [f"{title} {mrr:.2f} / {share:.1f}" for mrr, share, title in sorted(found, reverse=True)]
        parts += [f"{domain}: {', '.join(listed)}"] if listed else []
    if not parts:
        return ""
    return (
        "MRR in which every target item counts alike, however popular (sampled), and share of the catalogue in the first ten "
        f"of any case, both in percent. {'; '.join(parts)}."
    )


def not_converged(row: TableRow) -> str:
    """That a system's best epoch was the last of its training, "" where it was not."""
    seeds = row.result.seeds.values()
    last = [found for found in seeds if found.best_epoch == found.epochs_run]
    if not last or model_class(row.row.model).closed_form:
        return ""
    return (
        f"{row.row.title}: not converged: the best epoch was the last in {len(last)} of "
        f"{text_format.plural(len(seeds), 'seed')} ({max(found.epochs_run for found in last)} epochs); more may bring more."
    )
