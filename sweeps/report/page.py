"""The report as one HTML file: opens offline, needs no script to be read, fits desk, phone and paper."""

from __future__ import annotations

import json
from html import escape

from llmemf import text_format
from sweeps.report import charts
from sweeps.report.agreement import agreements
from sweeps.report.bar_chart import group_charts, hours_stack, importance_bars
from sweeps.report.content import (
    METRIC_HEADS,
    Report,
    best_lines,
    failures,
    lead,
    metric_rows,
    saving_sentence,
    spending_rows,
    status,
    tiles,
    train_command,
)
from sweeps.report.parameters import simplex_pair
from sweeps.report.provenance import facts, shared_settings
from sweeps.report.script import SCRIPT
from sweeps.report.style import STYLE
from sweeps.report.trial_table import board

MANY = 120
"""From so many trials on, dots and lines are drawn finer."""
SHOWN_FAILURES = 20
SHORT = {
    "rankings": "Both rankings",
    "made": "Data and code",
    "cost": "Cost",
    "groups": "For whom",
    "next": "What next",
}
"""Shorter titles of sections for the row of links."""


def render(report: Report) -> str:
    """The whole page."""
    parts = [
        ("best", "Best trial", _best(report)),
        ("trials", "All trials", _trials(report)),
        ("curves", "Learning curves", _curves(report)),
        ("settings", "What matters", _settings(report)),
        ("cost", "What it cost", _cost(report)),
        ("failures", "Failures", _failures(report)),
        ("rankings", "Stored candidates against all items", _rankings(report)),
        ("groups", "For whom it works", _groups(report)),
        ("made", "How it was made", _made(report)),
        ("next", "What to try next", _next(report)),
    ]
    shown = [part for part in parts if part[2]]
    links = "".join(f'<a href="#{name}">{SHORT.get(name, title)}</a>' for name, title, _ in shown)
    sections = "".join(f'<section id="{name}"><h2>{title}</h2>{content}</section>' for name, title, content in shown)
    many = ' class="many"' if len(report.findings.trials) >= MANY else ""
    title = escape(report.title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{title}: sweep report</title><style>{STYLE}</style></head><body{many}>'
        f"<header>{_head(report)}<nav>{links}</nav></header><main>{sections}</main>"
        f"<footer>Made {report.made:%Y-%m-%d %H:%M} from the sweep's journal. Numbers are those of leaderboard.csv and "
        f'MLflow.</footer><div id="tip" role="status"></div><script type="application/json" id="data">'
        f"{_data(report)}</script><script>{SCRIPT}</script></body></html>\n"
    )  # fmt: skip


def _data(report: Report) -> str:
    """What a trial's label says, by number; safe inside of a script element."""
    found = {}
    for number, story in report.findings.trials.items():
        record = story.record
        epoch = f"{record.outcome}, epoch {record.best_epoch} of {record.epoch}"
        shown = "-" if record.objective is None else f"{record.objective:.4f}"
        found[number] = [record.name, shown, epoch, text_format.settings(record.varied)]
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def _head(report: Report) -> str:
    parts = [
        f'<p class="over">Sweep report</p><h1>{escape(report.title)}</h1><p class="lede">{escape(lead(report))}</p>'
    ]
    if said := status(report.findings):
        parts.append(f'<p class="status">{escape(said)}</p>')
    if report.findings.records:
        first = "" if report.findings.best is None else ' class="first"'
        items = "".join(
            f"<div{first if place == 0 else ''}><dt>{escape(name)}</dt><dd>{escape(number)}</dd><small>{escape(text)}</small></div>"
            for place, (name, number, text) in enumerate(tiles(report))
        )
        parts.append(f'<dl class="tiles">{items}</dl>')
    if report.caveats:
        parts.append(f'<ul class="notes">{"".join(f"<li>{escape(text)}</li>" for text in report.caveats)}</ul>')
    return "".join(parts)


def table(heads: list[str], rows: list[list[str]], *, left: int = 1, wide: int | None = None) -> str:
    """A table that scrolls inside of itself; the first columns are texts, one of them may wrap."""

    def cell(tag: str, column: int, text: str) -> str:
        kinds = ["t"] * (column < left) + ["w"] * (column == wide)
        mark = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{mark}>{escape(text)}</{tag}>"

    head = "".join(cell("th", column, text) for column, text in enumerate(heads))
    body = "".join("<tr>" + "".join(cell("td", c, text) for c, text in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def code(text: str) -> str:
    """Lines to copy."""
    return f'<div class="code"><pre>{escape(text)}</pre><button type="button" class="tool">copy</button></div>'


def _best(report: Report) -> str:
    best = report.findings.best
    if best is None:
        return ""
    sure = f'<p class="lede">{escape(report.certainty.sentence)}</p>' if len(report.findings.valued) > 1 else ""
    lines = best_lines(report)
    command = train_command(report)
    blocks = [f"<div><h3>Its settings</h3>{code(lines)}</div>"] if lines else []
    blocks += [f"<div><h3>Train it again</h3>{code(command)}</div>"] if command else []
    pair = f'<div class="pair">{"".join(blocks)}</div>'
    return f"{sure}{table(METRIC_HEADS, metric_rows(report), left=3)}{pair}"


def _trials(report: Report) -> str:
    if not report.findings.records:
        return ""
    note = '<p class="lede">Validation metrics of each trial\'s best epoch. epochs: best/run.</p>'
    return note + board(report)


def _curves(report: Report) -> str:
    if not any(story.curve for story in report.findings.trials.values()):
        return ""
    key = ['<span><i class="ln best"></i>best</span>', '<span><i class="ln"></i>completed</span>']
    if report.findings.count("pruned"):
        key.append('<span><i class="ln p"></i><i class="d p"></i>cut by ASHA at a rung</span>')
    if any(story.curve and story.record.outcome == "failed" for story in report.findings.trials.values()):
        key.append('<span><i class="ln p"></i><i class="d f"></i>failed</span>')
    return f'{charts.curves(report.findings)}<div class="key">{"".join(key)}</div>'


def _settings(report: Report) -> str:
    findings, found = report.findings, report.importances
    if not findings.valued or not findings.parameters:
        return ""
    parts = []
    if found.items:
        parts.append(
            f'<p class="lede">Importance by PED-ANOVA: which settings tell the best {found.top:.0%} of {found.trials} '
            "trials from all. Line: 90 % interval over resampled trials. Dotted: what chance alone stays below; grey bars "
            "do not pass it.</p>"
        )
        parts.append(importance_bars(found))
    if found.note:
        parts.append(f'<p class="quiet" style="margin-top:12px">{escape(found.note)}</p>')
    slices = [f"<div><h3>{escape(p.key)}</h3>{charts.slice_of(findings, p)}</div>" for p in findings.parameters]
    parts.append('<h3 class="sub">Objective against each setting</h3>')
    parts.append('<div class="key"><span><i class="d best"></i>best</span><span><i class="d c"></i>completed</span>'
                 '<span><i class="d p"></i>pruned: last value before the cut</span></div>')  # fmt: skip
    parts.append(f'<div class="grid">{"".join(slices)}</div>')
    many = len([p for p in findings.parameters if len(p.values) > 1])
    blocks = []
    pair = simplex_pair(findings.parameters)
    fifths = "".join(f'<i class="d q{level}"></i>' for level in range(5))
    if pair:
        blocks.append(
            f'<div><h3 class="sub">{escape(pair[0].key)}, {escape(pair[1].key)} and the rest</h3>{charts.simplex(findings, pair)}'
            f'<div class="key"><span>worst fifth {fifths} best fifth</span><span>square: pruned</span></div></div>'
        )
    if many >= 2:
        blocks.append(
            f'<div><h3 class="sub">Every trial as a line</h3><div class="scroll">{charts.parallel(findings)}</div>'
            f'<div class="key"><span>worst fifth {fifths} best fifth</span></div></div>'
        )
    if blocks:
        parts.append(f'<div class="{"map" if len(blocks) > 1 else ""}">{"".join(blocks)}</div>')
    return "".join(parts)


def _cost(report: Report) -> str:
    findings = report.findings
    if not findings.records:
        return ""
    heads = ["outcome", "trials", "epochs", "time of trials", "CPU", "GPU"]
    said = saving_sentence(report)
    lede = f'<p class="lede">{escape(said)}</p>' if said else ""
    return lede + hours_stack(report) + table(heads, spending_rows(findings))


def _failures(report: Report) -> str:
    found = failures(report.findings)
    if not found:
        return ""
    rows = [list(row) for row in found[:SHOWN_FAILURES]]
    more = len(found) - len(rows)
    folder = report.findings.record.folder / "errors"
    note = (
        f'<p class="quiet">{f"{more} more in the leaderboard. " if more else ""}Full traces: {escape(str(folder))}</p>'
    )
    return table(["trial", "kind", "reason", "settings"], rows, left=4, wide=2) + note


def _rankings(report: Report) -> str:
    found = agreements(report.findings)
    if not found or len(report.findings.valued) < 2:
        return ""
    lede = '<p class="lede">Published tables rank the target among sampled candidates. Would the whole catalogue order '
    lede += "the trials alike?</p>"
    parts = [
        f"<div><h3>{escape(item.domain)}</h3><p class=quiet>{escape(item.sentence)}</p>"
        + ("" if item.identical else charts.scatter(report.findings, item))
        + "</div>"
        for item in found
    ]
    return f'{lede}<div class="two">{"".join(parts)}</div>'


def _groups(report: Report) -> str:
    if report.findings.best is None:
        return ""
    breakdown = report.breakdown
    if breakdown is None:
        return f'<p class="quiet">{escape(report.breakdown_problem)}</p>'
    note = f"MRR of {breakdown.trial} among stored candidates on {breakdown.cases:,} validation cases, with 95 % "
    note += "intervals over cases."
    if breakdown.sampled:
        note += " The search itself saw only a sample of them, so the numbers differ from the leaderboard's."
    return f'<p class="lede">{escape(note)}</p>{group_charts(breakdown)}'


def _made(report: Report) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(report))
    shared = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in shared_settings(report.findings))
    return (
        f'<dl class="facts">{items}</dl><details><summary>Settings of all trials</summary><dl class="facts">{shared}</dl>'
        "</details>"
    )


def _next(report: Report) -> str:
    items = [
        f"<li><h3>{escape(item.title)}</h3><p>{escape(item.why)}</p>{code(item.command) if item.command else ''}</li>"
        for item in report.advice
    ]
    if items:
        return f'<ol class="next">{"".join(items)}</ol>'
    if report.findings.state == "running" or not report.findings.records:
        return ""
    return '<p class="quiet">Nothing stands out: no edge was reached, no rule found anything.</p>'
