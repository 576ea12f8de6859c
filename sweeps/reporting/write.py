"""Write the report of a sweep into its folder and to its run in MLflow, and print its advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.io import write_text
from llmemf.pages.page import Page, as_html, as_markdown
from sweeps.core.sweep_data import SweepData
from sweeps.reporting.beside import MOST, beside_page
from sweeps.reporting.breakdown import Ranked, rank_leaders
from sweeps.reporting.conclusions import Conclusions
from sweeps.reporting.content import report_page
from sweeps.reporting.gather import gather
from sweeps.reporting.standing import with_trials
from sweeps.reporting.tracked import Tracked, find_runs, log_report
from sweeps.state.sweep_record import SweepRecord
from sweeps.tracking.addresses import one_line

PAGE, MARKDOWN = "report.html", "report.md"
QUICK = 10_000_000
"""Validation cases times items that are ranked at the end of a sweep without being asked for: seconds on a CPU."""


def write_at_end(record: SweepRecord, data: SweepData, console: Console, mlflow_answers: bool) -> str:
    """Write the report of a sweep that has just ended; whatever goes wrong is one line, and the sweep is what it was.

    Args:
        data: of the sweep.
        mlflow_answers: whether the report goes to its run in MLflow as well.

    Returns:
        The path of the page, "" where there is none.
    """
    try:
        history, ranked = gather(record), None
        work = len(data.scenario.valid) * data.scenario.num_items
        with console.status("writing the report"):
            if work <= QUICK:
                ranked = rank_leaders(history, data=data)
            else:
                command = command_line("report", record.name, storage=record.storage)
                ranked = Ranked(
                    problem=f"Not ranked at the end of the sweep, since it takes long on this data: {command}"
                )
            _write(Conclusions(history, find_runs(record) if mlflow_answers else Tracked(), ranked))
    except KeyboardInterrupt:
        return ""
    except Exception as error:  # noqa: BLE001  the sweep has ended, whether it has a page or not
        console.print(f"no report was written: {one_line(error)}", style="yellow", soft_wrap=True)
        return ""
    return str(record.folder / PAGE)


def write_report(record: SweepRecord, console: Console, *, breakdown: bool = True) -> dict[str, Any]:
    """Write both pages; a running sweep is only read.

    Args:
        breakdown: whether to rank the validation cases by the kept weights.

    Returns:
        What it says as plain values, for programs; `page` is the path of the HTML page.

    Raises:
        InputError: the event log is damaged, or the folder cannot be written.
    """
    history = gather(record)
    with console.status("asking MLflow"):
        tracked = find_runs(record)
    ranked = None
    if breakdown:
        with console.status("ranking the validation cases by the kept weights"):
            ranked = rank_leaders(history)
    with console.status("drawing"):
        found = Conclusions(history, tracked, ranked)
        page, problem = _write(found)
    path, markdown = record.folder / PAGE, record.folder / MARKDOWN
    for warning in page.warnings:
        console.print(Text(warning, style="yellow"))
    for item in found.advice:
        console.print(Text.assemble(("next  ", "dim"), (item.title, "bold"), f": {item.why}"))
        if item.command:
            console.print(Text(f"      {item.command}", style="cyan"), soft_wrap=True)
    if problem:
        console.print(Text(f"not logged to MLflow: {problem}", style="dim"))
    size = text_format.size(path.stat().st_size)
    console.print(Text.assemble(("report  ", "dim"), str(path), f" ({size})"), soft_wrap=True)
    console.print(Text.assemble(("        ", "dim"), str(markdown)), soft_wrap=True)
    return {
        **with_trials(history),
        "notes": page.notes,
        "certainty": found.sure,
        "importances": [asdict(item) for item in found.importances.items],
        "advice": [asdict(item) for item in found.advice],
        "page": str(path),
    }


def _write(found: Conclusions) -> tuple[Page, str]:
    """Both pages into the folder and the run: what it says, and why MLflow does not have them.

    Raises:
        InputError: the folder cannot be written.
    """
    folder, page = found.history.record.folder, report_page(found)
    write_text(folder / PAGE, as_html(page))
    write_text(folder / MARKDOWN, as_markdown(page))
    # An ended sweep's run may get artifacts; a running one's belongs to its driver.
    if found.history.state == "running":
        return page, "it is still running"
    return page, log_report(found.tracked, [folder / PAGE, folder / MARKDOWN])


def write_beside(records: Sequence[SweepRecord], console: Console) -> Path:
    """Write a page of several sweeps beside each other into the folder of the first one.

    Raises:
        InputError: they are too many, one is named twice, or an event log is damaged.
    """
    names = [record.name for record in records]
    if len(records) > MOST or len(set(names)) < len(names):
        raise InputError(f"report {' '.join(names)}: up to {MOST} different sweeps stand beside each other")
    path = records[0].folder / f"report-{'-'.join(names[1:])}.html"
    write_text(path, as_html(beside_page([gather(record) for record in records])))
    console.print(Text.assemble(("report  ", "dim"), str(path)), soft_wrap=True)
    return path
