"""What the reader of a table must know, a sentence or two each."""

from __future__ import annotations

import math

from llmemf.models import model_class
from llmemf.scenarios.audit import domain_facts
from llmemf.scenarios.scenario import Scenario
from llmemf.text_format import plural
from sweeps.groups.blocks import paper_heading
from sweeps.groups.cells import p_value
from sweeps.groups.group import Group
from sweeps.groups.paper_numbers import OWN_PAPER
from sweeps.groups.significance import BEST
from sweeps.groups.table import OBJECTIVE, Table, TableRow

ALPHA = 0.05


def notes_of(table: Table) -> list[str]:
    """How the numbers were made, whom they are tested against, and what is to be said of single rows."""
    if table.group.test == "winner":
        return _notes_on_winner(table)
    return [*_protocol(table), *_on_paper(table), *_on_rows(table)]


def configurations(group: Group) -> str:
    """How the rows come to their configurations, in a few words."""
    if group.trials:
        return (
            f"every {group.noun} has the configuration that at most {plural(group.trials, 'trial')} chose on validation"
        )
    return f"all other settings are those of {group.origin}"


def _protocol(table: Table) -> list[str]:
    group, done, seeds = table.group, table.done, plural(len(table.group.seeds), "seed")
    text = (
        f"In percent: mean and standard deviation over {seeds}; {configurations(group)}. Each seed was tested once, at its best "
        "validation epoch. Validation: what training monitors, mean, deviation and 95 % interval of the mean over seeds. Bold: "
        "best; underlined: second."
    )
    if len(group.seeds) > 1 and any(len(row.result.seeds) == 1 and not row.result.reason for row in done):
        text += " A closed form, in which nothing is drawn, has one seed."
    notes = [text, f"{_ranked_among(table)} Equal scores share their mean rank.", _cold(table.scenario)]
    notes += [text] if (text := side_note(table)) else []
    if len(done) > 1:
        named = group.reference != BEST
        against = f"{group.row(group.reference).title}, named beforehand" if named else f"the best other {group.noun}"
        notes.append(
            f"p: paired two-sided t-test over the test cases against {against} ({'MRR' if table.one_ranking else 'MRR among the stored candidates'}; the "
            "reciprocal rank of a case averaged over seeds), with Holm's correction for the "
            f"{plural(len(done) - 1, 'comparison')} of a domain: would these trained models differ for other users? "
            "Difference: of the same MRR, in percentage points; its 95 % interval draws test cases and seeds anew (bootstrap), "
            "and not the search."
        )
        if named:
            notes.append(
                "p, seeds: the same test over seeds: would other seeds give the same answer? A difference stands where both "
                "are small; over few seeds only large ones can be."
            )
    return notes


def _ranked_among(table: Table) -> str:
    """What the target of a case is ranked among."""
    if table.one_ranking:
        return "The target is ranked among all items of its domain: the stored candidates are all of them."
    count = table.scenario.candidates["test"].shape[1]
    return (
        f"Metrics without a remark are sampled: the target is ranked among {count:,} stored candidates of its domain; all items: "
        "among all items of its domain."
    )


def _on_paper(table: Table) -> list[str]:
    """Under which conditions the paper's numbers were measured."""
    paper, scenario = table.paper, table.scenario
    if paper is None:
        return []
    text = (
        f"{paper_heading(table)}: as printed in LLM-EMF's {paper.title}, by its authors, one run, candidates not stated there "
        "(999 where it repeats C2DSR's table)."
    )
    if not table.same_data:
        text += (
            f" That data has {paper.num_items[0]:,} + {paper.num_items[1]:,} items and {paper.num_train:,} training "
            f"sequences, this one {scenario.num_x:,} + {scenario.num_y:,} and {len(scenario.train):,}: the numbers do "
            "not stand beside each other."
        )
    own = [row.title for row in table.rows if row.name in OWN_PAPER & paper.rows.keys()]
    note = "the paper's column is from its own paper; LLM-EMF's tables leave it out."
    return [text, *(f"{name}: {note}" for name in own)]


def _on_rows(table: Table) -> list[str]:
    """Why rows have no numbers, and what their models and data say of themselves."""
    done = table.done
    notes = [f"{row.title} {row.state}: {row.result.reason}" for row in table.rows if row.result.reason and row.state]
    notes += [f"{row.title}: {row.result.reason}." for row in done if row.result.reason]
    for row in done:
        said = "; ".join(f"{key} {value}" for key, value in row.result.facts.items())
        notes += [f"{row.title}: {said}."] if said else []
    titles: dict[str, list[str]] = {}
    for row in done:
        for note in filter(None, [not_converged(row), *row.result.notes]):
            titles.setdefault(note, []).append(row.title)
    return notes + [note if len(own) == len(done) else f"{', '.join(own)}: {note}" for note, own in titles.items()]


def _cold(scenario: Scenario) -> str:
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
                found.append((mrr, share, row.title))
        listed = [f"{title} {mrr:.2f} / {share:.1f}" for mrr, share, title in sorted(found, reverse=True)]
        parts += [f"{domain}: {', '.join(listed)}"] if listed else []
    if not parts:
        return ""
    return (
        "MRR among the stored candidates in which every target item counts alike, however popular, and share of the catalogue "
        f"in the first ten of any case, both in percent. {'; '.join(parts)}."
    )


def not_converged(row: TableRow) -> str:
    """That a system's best epoch was the last of its training, "" where it was not."""
    seeds = row.result.seeds.values()
    last = [found for found in seeds if found.best_epoch == found.epochs_run]
    if not last or model_class(row.row.model).closed_form:
        return ""
    return (
        f"Not converged, as the best epoch was the last in {len(last)} of {plural(len(seeds), 'seed')} "
        f"({plural(max(found.epochs_run for found in last), 'epoch')}): more may bring more."
    )


def _notes_on_winner(table: Table) -> list[str]:
    """How the order on validation was made, and what speaks against its first place."""
    group = table.group
    validation = (
        f"Validation: the sweep's objective at each seed's best epoch, over {plural(len(group.seeds), 'seed')} other than the "
        "sweep's own; mean, sample standard deviation, 95 % interval of the mean (Student's t). No scheduler stopped a seed."
    )
    notes = [validation]
    if len(table.rows) > 1:
        notes.append(
            "p: paired two-sided t-test over seeds against the leader, with Holm's correction. Few seeds find large "
            "differences only."
        )
    spreads = {row.name: row.cells[OBJECTIVE] for row in table.rows if OBJECTIVE in row.cells}
    searched = {row.name: -math.inf if row.objective is None else row.objective for row in group.rows}
    if lucky := [name for name, spread in spreads.items() if searched[name] > (spread.high or math.inf)]:
        above = f"In the sweep {', '.join(lucky)} scored above the interval of its seeds"
        notes.append(f"{above}: chosen as the best of many, it was lucky.")
    if any(row.result.seeds for row in table.rows):
        notes.append(
            "The configuration was chosen on validation; each of its seeds was tested once. The sweep itself had been tested "
            f"{plural(group.facts.get('earlier_looks', 0), 'time')} before."
        )
    notes += [f"{row.name} {reason}" for row in table.rows if (reason := row.result.reason)]
    return [*notes, *dict.fromkeys(note for name in group.names for note in table.row(name).result.notes)]


def warnings_of(table: Table) -> list[str]:
    """What the order of the rows on validation does not prove, where it chooses the winner."""
    if table.group.test != "winner" or not table.leader or not table.winner:
        return []
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
        seeds = plural(spread.count, "seed")
        found.append(f"{what}: over {seeds} {best.name} cannot be told from {', '.join(close.values())}.")
    return found
