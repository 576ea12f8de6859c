"""What a rerun found: each configuration over seeds on validation, whether the best one is better, and its one test."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmemf import text_format
from sweeps.comparison.significance import Test, holm, paired_p
from sweeps.comparison.spread import Spread
from sweeps.comparison.state import EntryResult
from sweeps.comparison.table_formats import markdown_head, markdown_row, p_value
from sweeps.reruns.plan import RerunRecord
from sweeps.state.trial_records import TrialRecord

ALPHA = 0.05
METRICS = ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")


@dataclass
class Line:
    """One configuration.

    Attributes:
        values: seed -> objective on validation.
        metrics: validation metric -> value of each seed.
        test: against the winner, over the seeds that both have.
    """

    name: str
    settings: dict[str, Any]
    searched: float
    result: EntryResult
    values: dict[int, float]
    metrics: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    test: Test | None = None

    @property
    def spread(self) -> Spread | None:
        return Spread.of(list(self.values.values())) if self.values else None

    @property
    def state(self) -> str:
        """Why there are no numbers, or fewer than there should be; "" where there are all."""
        if self.result.outcome == "missing":
            return f"cannot run: {self.result.reason}"
        return self.result.reason or ("" if self.result.outcome == "done" else "not run yet")


@dataclass
class RerunTable:
    """All configurations, the best first.

    Attributes:
        winner: the one that was tested, or is to be; "" as long as one is not through.
        tested: test metric -> spread over the winner's seeds.
        warnings: what the ranking does not bear.
    """

    record: RerunRecord
    domains: tuple[str, str]
    lines: list[Line]
    winner: str = ""
    tested: dict[str, Spread] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def best_line(lines: Sequence[Line]) -> str:
    """The configuration with the best mean on validation, "" where none has a value.

    One of which a seed failed comes after all that have all their seeds: its mean leaves out its worst.
    """
    valued = [line for line in lines if line.values]
    return max(valued, key=_place).name if valued else ""


def _place(line: Line) -> tuple[bool, float]:
    return not line.result.reason, line.spread.mean


def build_table(
    record: RerunRecord,
    domains: tuple[str, str],
    results: Sequence[EntryResult],
    seeds: Mapping[str, Mapping[int, TrialRecord]],
    notes: Sequence[str] = (),
) -> RerunTable:
    """Put results and tests together.

    Args:
        seeds: trial -> seed -> what was trained with it.
        notes: what a reader of the numbers must know of data and features.
    """
    lines = []
    for result in results:
        own = dict(sorted(seeds.get(result.name, {}).items()))
        names = sorted(set.intersection(*(set(item.metrics) for item in own.values()))) if own else []
        lines.append(
            Line(
                result.name,
                record.shown[result.name],
                record.objectives[result.name],
                result,
                {seed: item.objective for seed, item in own.items()},
                {name: [item.metrics[name] for item in own.values()] for name in names},
                [item.best_epoch for item in own.values()],
            )
        )
    lines.sort(
        key=lambda line: (bool(line.values), _place(line)) if line.values else (False, (False, 0.0)), reverse=True
    )
    ready = all(result.outcome for result in results)
    leader = best_line(lines)
    table = RerunTable(record, domains, lines, record.winner or (leader if ready else ""))
    if leader:
        _compare(lines, leader)
        if ready:
            table.warnings = _warnings(lines, leader, table.winner)
        tested = next((line.result for line in lines if line.name == table.winner), None)
        for metric in sorted(set().union(*(seed.metrics for seed in tested.seeds.values()))) if tested else ():
            table.tested[metric] = Spread.of(tested.values(metric))
    table.notes = [*_describe(record, lines), *notes]
    return table


def _compare(lines: Sequence[Line], leader: str) -> None:
    """Paired tests of all configurations against the leader, over common seeds, with Holm's correction."""
    best = next(line for line in lines if line.name == leader)
    p_values, differences = {}, {}
    for line in lines:
        common = sorted(best.values.keys() & line.values.keys())
        if line is best or not common:
            continue
        first, second = (np.array([own.values[seed] for seed in common]) for own in (line, best))
        p_values[line.name], differences[line.name] = paired_p(first, second), float((first - second).mean())
    adjusted = holm(p_values)
    for line in lines:
        if line.name in p_values:
            line.test = Test(leader, differences[line.name], p_values[line.name], adjusted[line.name])


def _warnings(lines: Sequence[Line], leader: str, winner: str) -> list[str]:
    """What the ranking does not bear."""
    best = next(line for line in lines if line.name == leader)
    others = [line for line in lines if line.values and line is not best]
    found = []
    if winner != leader:
        found.append(
            f"{winner} was chosen and tested earlier; {leader} leads now and is not tested: the test split has one look."
        )
    if others and len(best.values) < 2:
        found.append("One seed says nothing about the spread: which of these is the best is not known. Give --seeds 5.")
        return found
    close = [line for line in others if line.test is None or not line.test.adjusted < ALPHA]
    if close:
        parts = []
        for line in close:
            same = "intervals overlap" if best.spread.overlaps(line.spread) else "intervals apart"
            parts.append(f"{line.name} (p {p_value(line.test)}, {same})")
        what = "The ranking is within the noise" if close[0] is others[0] else "Not all of the ranking stands"
        found.append(
            f"{what}: over {text_format.plural(len(best.values), 'seed')} {leader} cannot be told from {', '.join(parts)}."
        )
    return found


def _describe(record: RerunRecord, lines: Sequence[Line]) -> list[str]:
    protocol = (
        "Validation: the sweep's objective at each seed's best epoch, over "
        f"{text_format.plural(len(record.seeds), 'seed')} other than the sweep's own; mean, sample standard deviation, 95 % "
        "interval of the mean (Student's t). No scheduler stopped a seed."
    )
    notes = [protocol]
    if len(lines) > 1:
        notes.append(
            "p: paired two-sided t-test over seeds against the leader, with Holm's correction. Few seeds find large "
            "differences only."
        )
    drop = [line for line in lines if line.spread and line.searched > (line.spread.high or math.inf)]
    if drop:
        names = ", ".join(line.name for line in drop)
        notes.append(
            f"In the sweep {names} scored above the interval of its seeds: chosen as the best of many, it was lucky."
        )
    if any(line.result.seeds for line in lines):
        notes.append(
            "The configuration was chosen on validation; its seeds looked at the test split once each. The sweep itself had "
            f"looked at it {text_format.plural(record.earlier_looks, 'time')} before."
        )
    if len(record.trials) < record.asked:
        notes.append(f"{record.asked} were asked for; the sweep has {len(record.trials)} trials with a value.")
    return notes


def four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def cells(line: Line) -> list[str]:
    """A configuration's numbers on validation: in the sweep, mean, deviation, interval, p, seeds, epochs."""
    spread = line.spread
    if spread is None:
        return [four(line.searched), *["-"] * 6]
    interval = "-" if spread.low is None else f"{four(spread.low)} to {four(spread.high)}"
    epochs = f"{np.mean(line.epochs):.3g}"
    p = "leader" if line.test is None else p_value(line.test)
    return [four(line.searched), four(spread.mean), four(spread.deviation), interval, p, str(spread.count), epochs]


HEADINGS = ("in the sweep", "mean", "sd", "95 % interval", "p", "seeds", "best epoch")


def as_markdown(table: RerunTable) -> str:
    record = table.record
    lines = [f"# Rerun of {record.sweep}", "", f"{record.model} on scenario `{record.scenario}`.", ""]
    lines += [f"**{text}**\n" for text in table.warnings]
    lines += ["## Validation", "", *markdown_head(["trial", *HEADINGS, "settings"])]
    for line in table.lines:
        name = f"**{line.name}**" if line.name == table.winner else line.name
        state = f"{name} ({line.state})" if line.state else name
        lines.append(markdown_row([state, *cells(line), text_format.settings(line.settings)]))
    lines.append("")
    names = [name for name in table.lines[0].metrics if name.count("/") == 2] if table.lines else []
    if names:
        lines += [
            "| metric |" + "".join(f" {line.name} |" for line in table.lines),
            "|---|" + "---:|" * len(table.lines),
        ]
        for name in names:
            spreads = [Spread.of(line.metrics[name]) if name in line.metrics else None for line in table.lines]
            lines.append(markdown_row([name, *map(plus_minus, spreads)]))
        lines.append("")
    if table.tested:
        lines += [f"## Test of {table.winner}", "", *markdown_head(["metric", "mean", "sd", "95 % interval"])]
        for metric, spread in table.tested.items():
            interval = "-" if spread.low is None else f"{four(spread.low)} to {four(spread.high)}"
            lines.append(markdown_row([metric, four(spread.mean), four(spread.deviation), interval]))
        lines.append("")
    return "\n".join([*lines, *[f"{note}\n" for note in table.notes]]).rstrip("\n") + "\n"


def plus_minus(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return four(spread.mean) + ("" if spread.deviation is None else f" ± {four(spread.deviation)}")


def as_csv(table: RerunTable) -> str:
    """One line per configuration and metric, unrounded, as fractions: the objective, validation, and the winner's test."""
    text = io.StringIO()
    columns = ["rank", "trial", "winner", "metric", "mean", "sd", "low", "high", "seeds", "values", "p", "p_holm"]
    columns += ["in_the_sweep", "settings", "reason"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for place, line in enumerate(table.lines, start=1):
        shared = {
            "rank": place,
            "trial": line.name,
            "winner": int(line.name == table.winner),
            "settings": text_format.settings(line.settings),
            "reason": line.state,
        }
        if not line.values:
            writer.writerow(shared)
            continue
        first = {"in_the_sweep": line.searched}
        if line.test:
            first |= {"p": line.test.p, "p_holm": line.test.adjusted}
        writer.writerow({**shared, **first, "metric": "objective", **_numbers(list(line.values.values()))})
        found = dict(line.metrics)
        if line.name == table.winner:
            found |= {metric: line.result.values(metric) for metric in table.tested}
        for metric, values in found.items():
            writer.writerow({**shared, "metric": metric, **_numbers(values)})
    return text.getvalue()


def _numbers(values: Sequence[float]) -> dict[str, Any]:
    spread = Spread.of(values)
    numbers = {"mean": spread.mean, "sd": spread.deviation, "low": spread.low, "high": spread.high}
    return {**numbers, "seeds": spread.count, "values": ";".join(map(repr, values))}


def as_json(table: RerunTable) -> str:
    """All of it for a program: configurations, values by seed, tests, warnings."""
    record = table.record
    content = {
        "sweep": record.sweep,
        "rerun": record.name,
        "scenario": record.scenario,
        "fingerprint": record.fingerprint,
        "model": record.model,
        "seeds": record.seeds,
        "winner": table.winner,
        "configurations": [
            {
                "trial": line.name,
                "settings": line.settings,
                "configuration": record.configurations[line.name],
                "in_the_sweep": line.searched,
                "objective": {str(seed): value for seed, value in line.values.items()},
                "spread": vars(line.spread) if line.spread else None,
                "validation": line.metrics,
                "against_leader": _plain(line.test),
                "reason": line.state,
            }
            for line in table.lines
        ],
        "test": {metric: vars(spread) for metric, spread in table.tested.items()},
        "earlier_looks": record.earlier_looks,
        "warnings": table.warnings,
        "notes": table.notes,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _plain(test: Test | None) -> dict[str, Any] | None:
    if test is None:
        return None
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in vars(test).items()}
