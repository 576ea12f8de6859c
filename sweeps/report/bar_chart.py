"""The bars of the report: importance, hours, and results by group."""

from __future__ import annotations

import math
from html import escape

from sweeps.report.breakdown import Breakdown, Group
from sweeps.report.content import Report, hours, saved_seconds
from sweeps.report.importance import Importances

STACK = (("completed", ""), ("pruned", "p"), ("failed", "f"), ("interrupted", "o"), ("running", "o"))


def importance_bars(found: Importances) -> str:
    """One bar per setting; the line is its interval, the dotted mark the level of chance."""
    longest = max(max(item.share, item.high, item.chance) for item in found.items)
    rows = []
    for item in found.items:
        at = [f"{100 * number / longest:.1f}%" for number in (item.share, item.low, item.high - item.low, item.chance)]
        says = f"{item.share:.0%}, 90 % interval {item.low:.0%} to {item.high:.0%}, chance {item.chance:.0%}"
        rows.append(
            f'<span>{escape(item.key)}</span><div class="bar{"" if item.is_clear else " weak"}" role="img" '
            f'aria-label="{says}"><i style="width:{at[0]}"></i><em style="left:{at[1]};width:{at[2]}"></em>'
            f'<u style="left:{at[3]}"></u></div><span>{item.share:.0%}</span>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def hours_stack(report: Report) -> str:
    """Where the time went, and beside it, hatched, what pruning saved."""
    spending = report.findings.spending
    saved, spent = saved_seconds(report)
    if not saved + spent:
        return ""
    parts, keys = [], []
    for name, kind in STACK:
        share = spending.by_outcome.get(name)
        seconds = 0.0 if share is None else share.gpu_seconds if spending.uses_gpus else share.cpu_seconds
        if seconds:
            parts.append(f'<i class="{kind}" style="flex:{seconds / (saved + spent):.4f}"></i>')
            keys.append(f'<span><i class="k stack {kind}" style="margin:0"><i class="{kind}" style="flex:1"></i></i>'
                        f"{name} {hours(seconds)}</span>")  # fmt: skip
    if saved:
        parts.append(f'<i class="saved" style="flex:{saved / (saved + spent):.4f}"></i>')
        keys.append('<span><i class="k stack" style="margin:0"><i class="saved" style="flex:1"></i></i>'
                    f"saved, about {hours(saved)}</span>")  # fmt: skip
    kind = "GPU-hours" if spending.uses_gpus else "CPU-hours"
    return f'<div class="stack" role="img" aria-label="{kind}">{"".join(parts)}</div><div class="key">{"".join(keys)}</div>'


def group_charts(breakdown: Breakdown) -> str:
    """One chart per way of grouping: MRR with its 95 % interval, a dot per domain, and the number of cases."""
    whole, rest = breakdown.by["domain"], {name: items for name, items in breakdown.by.items() if name != "domain"}
    charts = []
    for title, items in rest.items():
        domains = list(dict.fromkeys(group.domain for group in items))
        # The interval of a tiny group would squeeze all others.
        top = max(group.mrr + min(_half(group), group.mrr) for group in items)
        rows = []
        for label in dict.fromkeys(group.label for group in items):
            marks, cases, values = [], [], []
            for number, domain in enumerate(domains):
                group = next((g for g in items if g.label == label and g.domain == domain), None)
                if group is None:
                    continue
                kind, half = " second" if number else "", _half(group)
                low, high = max(0.0, group.mrr - half), min(top, group.mrr + half)
                marks.append(
                    f'<em class="{kind}" style="left:{100 * low / top:.1f}%;width:{100 * (high - low) / top:.1f}%"></em>'
                )
                marks.append(f'<i class="d{kind}" style="left:{100 * min(1, group.mrr / top):.1f}%"></i>')
                cases.append(f"{group.cases:,}")
                values.append(f"{group.mrr:.4f}")
            rows.append(
                f'<span>{escape(label)}</span><div class="row">{"".join(marks)}</div>'
                f"<small>{' / '.join(values)}<br>{' / '.join(cases)} cases</small>"
            )
        charts.append(f'<div><h3>By {escape(title)}</h3><div class="groups">{"".join(rows)}</div></div>')
    key = "".join(
        f'<span><i class="d{" second" if n else " first"}"></i>{escape(group.domain)}: {group.mrr:.4f} +/- '
        f"{_half(group):.4f}, {group.cases:,} cases</span>"
        for n, group in enumerate(whole)
    )
    return f'<div class="key">{key}</div><div class="grid">{"".join(charts)}</div>'


def _half(group: Group) -> float:
    return 0.0 if math.isnan(group.error) else 1.96 * group.error
