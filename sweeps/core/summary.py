"""What a sweep says at its start and at its end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.errors import InputError
from sweeps.core import result_tables
from sweeps.core.console import facts_table
from sweeps.core.descriptions import (
    caveats,
    describe_confirmation,
    describe_objective,
    describe_progress,
    describe_resources,
    describe_scenario,
    describe_space,
    describe_trials,
)
from sweeps.core.plan import Plan
from sweeps.core.settings import SAMPLE
from sweeps.core.sweep_data import SweepData
from sweeps.search.stopping import stopping
from sweeps.state.confirmation import confirmed, sentence_of
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of

if TYPE_CHECKING:
    from sweeps.core.sweep import Sweep


def print_fallback(requested: str, used: str, data_root: str, console: Console, allowed: bool) -> None:
    """Say loudly that the sample is used in place of data that is not there.

    Args:
        requested: the scenario that the user asked for.
        used: the scenario that is used.
        data_root: the folder in which its data was expected.
        allowed: whether that is meant (`--allow-sample`), or can do no harm; else somebody must be there to read it.

    Raises:
        InputError: it is not, and nobody sits at a terminal.
    """
    if used != SAMPLE or requested == SAMPLE:
        return
    windows = command_line("data", "import", "windows", "FOLDER", "--name", requested, "--domains", "X,Y")
    tables = command_line("data", "prepare", "table", "ORDERS.csv", "--items", "ITEMS.csv", "--name", requested)
    # A scenario file of one's own is for data of one's own.
    is_own = Path(data_root, f"{requested}.yaml").exists()
    bring, other = (tables, windows) if is_own else (windows, tables)
    if not allowed and not any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise InputError(
            f"there is no data for {requested} in {data_root}: bring it (`{bring}`), or give --allow-sample to run on the "
            "embedded sample instead, as it is done at a terminal"
        )
    text = Text.assemble(
        (f"There is no data for {requested} in {data_root}.\n", "bold"),
        "This sweep runs on the embedded sample instead: generated users and items, small settings. It is called sample in all "
        f"that it writes, and its numbers say nothing about {requested}.\n\nThe commands below bring the real data: windows "
        "that are published, or tables of your own; then its features.",
    )
    console.print(Panel(text, border_style="yellow", title="embedded sample", width=min(console.width, 100)))
    for command in (bring, other, command_line("features", "offline", requested)):
        console.print(f"  {command}", style="cyan", soft_wrap=True)
    console.print()


def print_start(
    plan: Plan,
    data: SweepData | None,
    parallel: int,
    console: Console,
    state: SweepState | None = None,
    outside: int = 0,
) -> None:
    """What is swept, on what, with what, and where it goes.

    Args:
        state: of a sweep that runs; None where it is only shown.
        outside: how many of its trials lie outside of its space of today.
    """
    record = plan.record
    facts = facts_table()
    if plan.extended:
        facts.add_row("sweep", f"{record.name} (extended)")
    if plan.resumed and state:
        facts.add_row("continues", describe_progress(state, plan.trials))
    facts.add_row(
        "data", describe_scenario(data.scenario) if data else f"{record.scenario} (made when the sweep starts)"
    )
    if data is not None:
        features = ", ".join(f"{kind} by {matrix.encoder}" for kind, matrix in data.features.items())
        facts.add_row("features", features or "none (ids only)")
    objective = f", {' and '.join(plan.objectives)} softmax in training" if plan.objectives else ""
    facts.add_row("model", f"{record.model}{objective}")
    facts.add_row("trials", describe_trials(plan))
    if plan.most_repeats:
        facts.add_row("then", describe_confirmation(plan))
    for index, block in enumerate([block for block in plan.space.blocks if block.kind != "fixed"]):
        facts.add_row("space" if index == 0 else "", describe_space(block))
    if plan.space.dropped:
        reasons = ", ".join(plan.space.dropped_by)
        facts.add_row("", f"{plan.space.dropped:,} of {plan.space.full_size:,} grid points dropped ({reasons})")
    fixed = {key: value for key, value in plan.fixed.items() if key not in ("model", "seed", "epochs")}
    if fixed:
        facts.add_row("fixed", text_format.settings(fixed))
    facts.add_row("resources", describe_resources(plan, parallel) if parallel else "none: no trial is left to run")
    if state is None:
        facts.add_row("writes to", str(record.folder))
    if outside:
        facts.add_row(
            "note", f"{text_format.plural(outside, 'trial')} outside of this space: ranked, but not learned from"
        )
    for notice in plan.notices:
        facts.add_row("note", notice)
    console.print(facts)
    console.print()


def print_end(
    sweep: Sweep, test: Mapping[str, float], outcome: str, reason: str, undelivered: str, page: str, report: str
) -> None:
    """Leaderboard, test metrics, and where everything lies.

    Args:
        undelivered: what MLflow did not get, in one line.
        page: of the sweep's runs, below the address of a tracking server.
        report: the page that was written, "" where the command that writes it is named instead.
    """
    plan, data, console, record = sweep.plan, sweep.data, sweep.console, sweep.plan.record
    records = list(sweep.state.records.values())
    best, failed = best_of(records), failed_trials(records)
    count = Counter("again with new seeds" if item.repeats else item.outcome for item in records)
    order = ("completed", "pruned", "failed", "interrupted", "again with new seeds")
    parts = ", ".join(f"{count[name]} {name}" for name in order if count[name]) or "no trial had started"
    style = {"completed": "green", "incomplete": "yellow", "failed": "red", "interrupted": "magenta"}[outcome]
    said = f"{outcome}: {reason}" if reason and reason != "interrupted" else outcome
    took = f" in {text_format.duration(sweep.state.seconds)}: {parts}"
    console.print(Text.assemble(f"sweep {record.name} ", (said, f"bold {style}"), took))
    console.print()
    if best:
        domains, searched = data.scenario.domains, len(sweep.state.searched)
        console.print(result_tables.table(records, domains, console.width))
        if searched > result_tables.TOP:
            console.print(f"the best {result_tables.TOP} of {searched}; all in leaderboard.csv", style="dim")
        sure = sentence_of(confirmed(records))
        means = "; mean: over so many seeds" if sure else ""
        console.print(f"epoch: best/run; objective: {describe_objective(plan, data)}{means}", style="dim")
        if sure:
            console.print(sure, style="bold", highlight=False)
        if outcome != "interrupted" and (found := stopping(records, plan.rungs, record.reduction_factor)):
            console.print(found.sentence, style="dim", highlight=False)
        console.print()
        if test:
            console.print(result_tables.test_table(test, domains))
        for note in caveats(plan, data, best, len(sweep.state.tests)):
            console.print(note, style="yellow", highlight=False)
        console.print()
    files = {"best": record.folder / "best.yaml", "all trials": record.folder / "leaderboard.csv"}
    lines: list[tuple[str, str | Text]] = [(name, str(path)) for name, path in files.items() if path.exists()]
    if failed:
        lines.append(("failed", f"{failed}; full traces in {record.folder / 'errors'}"))
    if undelivered:
        lines.append(("note", undelivered))
    commands = places(record, page)
    if report or not best:
        del commands["report"]
    if report:
        lines.append(("report", report))
    if outcome == "interrupted":
        commands["resume"] = plan.resume_command()
    if failed:
        commands["run again"] = plan.resume_command("--retry-failed")
    print_lines(console, lines, commands)


def places(record: SweepRecord, page: str = "") -> dict[str, str]:
    """Where a sweep can be looked at, also while it runs: the command for its report, and its runs in MLflow."""
    report = command_line("report", record.name, storage=record.storage)
    return {"report": report, "browse": browse(record.tracking_uri, record.storage, page)}


def browse(tracking_uri: str, storage: str, page: str = "") -> str:
    """The page of a tracking server, or the command that serves the pages of a database.

    Args:
        page: below the address of the server.
    """
    return tracking_uri.rstrip("/") + page if tracking_uri.startswith("http") else command_line("ui", storage=storage)


def print_places(record: SweepRecord, console: Console) -> None:
    """The first lines of a sweep: its name, and where it can be looked at from now on."""
    lines: list[tuple[str, str | Text]] = [
        ("sweep", Text(record.name, style="bold")),
        ("folder", str(record.folder)),
    ]
    live = command_line("live", record.name, storage=record.storage)
    print_lines(console, lines, {"live": live, **places(record)})


def print_lines(console: Console, lines: Sequence[tuple[str, str | Text]], commands: Mapping[str, str]) -> None:
    """Labelled lines with one left edge; none is broken, so that paths and commands can be copied.

    Args:
        lines: label and text.
        commands: the lines that follow them: what to type, or to open.
    """
    shown = [*lines, *((label, Text(command, style="cyan")) for label, command in commands.items())]
    width = max(len(label) for label, _ in shown)
    for label, text in shown:
        console.print(Text.assemble((f"{label:<{width}}  ", "dim"), text), soft_wrap=True)


def failed_trials(records: Sequence[TrialRecord]) -> str:
    """`2 of 4 trials failed (t01, t03)`; "" if none did."""
    names = [item.name for item in records if item.outcome == "failed"]
    if not names:
        return ""
    shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    return f"{len(names)} of {text_format.plural(len(records), 'trial')} failed ({shown})"
