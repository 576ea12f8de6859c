"""The report's Markdown twin: the same numbers and sentences, charts as tables."""

from __future__ import annotations

from llmemf import text_format
from sweeps.report.agreement import agreements
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
    value,
)
from sweeps.report.provenance import facts
from sweeps.report.trial_table import heading
from sweeps.state import leaderboard

SHOWN = 20


def as_markdown(report: Report) -> str:
    """The whole page."""
    findings = report.findings
    blocks = [f"# {text(report.title)}", text(lead(report))]
    if said := status(findings):
        blocks.append(f"**{text(said)}**")
    if findings.records:
        blocks.append(table(["", "", ""], [list(tile) for tile in tiles(report)]))
    blocks += [f"> {text(note)}" for note in report.caveats]
    if findings.best is not None:
        blocks += ["## Best trial", text(report.certainty.sentence) if len(findings.valued) > 1 else ""]
        blocks += [table(METRIC_HEADS, metric_rows(report)), _code(best_lines(report), "yaml")]
        blocks.append(_code(train_command(report)))
    if findings.records:
        blocks += ["## All trials", _board(report)]
    if report.importances.items or report.importances.note:
        blocks += ["## What matters", _importance(report)]
    if findings.records:
        heads = ["outcome", "trials", "epochs", "time of trials", "CPU", "GPU"]
        blocks += ["## What it cost", text(saving_sentence(report)), table(heads, spending_rows(findings))]
    failed = failures(findings)
    if failed:
        rows = [list(row) for row in failed[:SHOWN]]
        blocks += ["## Failures", table(["trial", "kind", "reason", "settings"], rows)]
    agreed = agreements(findings)
    if agreed and len(findings.valued) > 1:
        blocks.append("## Stored candidates against all items")
        blocks += [f"{text(item.domain)}: {item.sentence}" for item in agreed]
    if findings.best is not None:
        blocks += ["## For whom it works", _groups(report)]
    blocks += ["## How it was made", table(["", ""], [list(fact) for fact in facts(report)])]
    if report.advice:
        blocks.append("## What to try next")
        for number, item in enumerate(report.advice, start=1):
            blocks += [f"{number}. **{text(item.title)}.** {text(item.why)}", _code(item.command)]
    blocks.append(f"Made {report.made:%Y-%m-%d %H:%M}.")
    return "\n\n".join(block for block in blocks if block) + "\n"


def text(content: str) -> str:
    """Any text inside of Markdown: nothing in it is markup, and it stays on one line."""
    content = " ".join(str(content).split()).replace("\\", "\\\\")
    for sign in "`*_[]|#<>":
        content = content.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return content


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table; "" without rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell if cell == "---" else text(cell) for cell in line) + " |" for line in lines)


def _code(content: str, language: str = "bash") -> str:
    return f"```{language}\n{content}\n```" if content else ""


def _board(report: Report) -> str:
    findings = report.findings
    rows = leaderboard.rows(findings.records)
    settings = list(dict.fromkeys(key for record in findings.records for key in record.varied))
    metrics = [f"val/{domain}/{name}" for domain in findings.domains for name in leaderboard.SHOWN_METRICS]
    metrics = [name for name in metrics if name in rows[0]]
    heads = ["rank", "trial", "outcome", "objective", "epochs", *map(heading, metrics), *settings]
    lines = [
        [
            str(row["rank"]), row["trial"], row["outcome"], value(row["objective"]),
            f"{row['best_epoch']}/{row['epochs_run']}", *(value(row[name]) for name in metrics),
            *("-" if row[key] is None else text_format.number(row[key]) for key in settings),
        ]
        for row in rows[:SHOWN]
    ]  # fmt: skip
    more = f"\n\nThe first {SHOWN} of {len(rows)}; all of them, with all metrics, are in leaderboard.csv."
    return table(heads, lines) + (more if len(rows) > SHOWN else "")


def _importance(report: Report) -> str:
    found = report.importances
    rows = [
        [item.key, f"{item.share:.0%}", f"{item.low:.0%} to {item.high:.0%}", f"{item.chance:.0%}"]
        for item in found.items
    ]
    lines = table(["setting", "importance (PED-ANOVA)", "90 % interval", "chance stays below"], rows)
    return "\n\n".join(part for part in (lines, text(found.note)) if part)


def _groups(report: Report) -> str:
    breakdown = report.breakdown
    if breakdown is None:
        return text(report.breakdown_problem)
    rows = [
        [title, group.domain, group.label, f"{group.cases:,}", value(group.mrr), f"+/- {1.96 * group.error:.4f}",
         value(group.hr_10), value(group.mrr_full)]
        for title, groups in breakdown.by.items() for group in groups
    ]  # fmt: skip
    heads = ["by", "domain", "group", "cases", "MRR", "95 %", "HR@10", "MRR (all items)"]
    return f"{breakdown.trial} on {breakdown.cases:,} validation cases.\n\n" + table(heads, rows)
