"""How a preparation went, in the terminal: files with their bad lines, and what was left out at which step."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from llmemf.commands.scenario_view import facts_table
from llmemf.scenarios.bad_lines import LineCounts
from llmemf.scenarios.preparation import PreparationReport
from llmemf.text_format import plural


def report_view(report: PreparationReport, domains: tuple[str, str]) -> Group:
    """Files, then the way from all interactions to those of the scenario."""
    return Group(_files(report.files), _steps(report, domains))


def _files(files: list[LineCounts]) -> Table:
    table = facts_table("files", ("lines", "bad", "mended"))
    for one in files:
        table.add_row(one.path.name, f"{one.lines:,}", f"{one.num_bad:,}", f"{sum(one.mended.values()):,}")
    return table


def _steps(report: PreparationReport, domains: tuple[str, str]) -> Table:
    table = facts_table("interactions", domains)
    table.add_row("read", *(f"{count:,}" for count in report.read))
    for reason, counts in report.dropped.items():
        if any(counts):
            table.add_row(f"  {reason}", *(f"-{count:,}" if count else "0" for count in counts))
    table.add_row("in the scenario", *(f"{count:,}" for count in report.left), style="bold")
    return table


def notes(report: PreparationReport) -> list[str]:
    """What a user must know beside the tables: damaged files, bad and mended lines with examples."""
    lines = []
    for one in report.files:
        if one.damage:
            lines.append(f"WARNING: {one.path}: {one.damage}; only what stands before was read")
        for reason, count in one.bad.most_common():
            lines.append(f"{one.path.name}: {count:,} bad line{'s' * (count > 1)}: {reason}")
        lines += [f"  {example}" for example in one.first_bad]
        for what, count in one.mended.most_common():
            lines.append(f"{one.path.name}: {count:,} line{'s' * (count > 1)} mended: {what}")
    for key, value in report.facts.items():
        if key.startswith("rows ") and value:
            lines.append(f"{plural(value, 'row')} left out: {key.removeprefix('rows ')}")
    return lines
