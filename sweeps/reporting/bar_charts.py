"""The bars of the report: importance, hours, and results by group."""

from __future__ import annotations

from llmemf.pages.charts import Bar, Interval, IntervalRow
from llmemf.text_format import percent
from sweeps.reporting.breakdown import Breakdown, Group
from sweeps.reporting.importance import Importances
from sweeps.reporting.spending import Spending, hours

STACK = {"completed": "", "pruned": "p", "failed": "f", "interrupted": "o", "running": "o"}
"""Outcome -> class of its part of the hours."""


def importance_bars(found: Importances) -> list[Bar]:
    """One bar per setting; the line is its interval, the dotted mark the level of chance, at the edge where it is beyond 1."""
    longest = min(1.0, max((max(item.share, item.high, item.chance) for item in found.items), default=1.0))
    return [
        Bar(
            length=item.share / longest,
            label=item.key,
            number=percent(item.share),
            says=f"{percent(item.share)}, 90 % interval {percent(item.low)} to {percent(item.high)}, chance {percent(item.chance)}",
            interval=(item.low / longest, item.high / longest),
            mark=min(1.0, item.chance / longest),
            kind="" if item.is_clear else "weak",
        )
        for item in found.items
    ]


def hours_stack(spending: Spending) -> list[Bar]:
    """Where the time went, and beside it, hatched, what pruning saved."""
    seconds = {name: spending.seconds(share) for name, share in spending.by_outcome.items() if name in STACK}
    parts = [(name, STACK[name], seconds[name]) for name in STACK if seconds.get(name)]
    parts += [("saved, about", "saved", spending.saved)] if spending.saved else []
    whole = spending.saved + spending.spent
    longest = max((part for _, _, part in parts), default=0.0)
    return [Bar(part / whole, label=name, number=hours(part, longest), kind=kind) for name, kind, part in parts]


def group_charts(breakdown: Breakdown) -> dict[str, list[IntervalRow]]:
    """One chart per way of grouping: MRR with its 95 % interval, a dot per domain, and the number of cases."""
    return {title: _interval_rows(groups) for title, groups in breakdown.by.items() if title != "domain"}


def _interval_rows(groups: list[Group]) -> list[IntervalRow]:
    first = groups[0].domain
    # The interval of a tiny group would squeeze all others.
    top = max(group.mrr + min(group.half_width, group.mrr) for group in groups)
    rows = []
    for label in dict.fromkeys(group.label for group in groups):
        chosen = [group for group in groups if group.label == label]
        intervals = [
            Interval(
                at=min(1, group.mrr / top),
                low=max(0.0, group.mrr - group.half_width) / top,
                high=min(top, group.mrr + group.half_width) / top,
                kind="" if group.domain == first else "second",
            )
            for group in chosen
        ]
        numbers, counts = [f"{group.mrr:.4f}" for group in chosen], [f"{group.cases:,}" for group in chosen]
        rows.append(IntervalRow(label, intervals, numbers, counts))
    return rows
