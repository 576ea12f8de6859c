"""Make the report of a sweep, put it into the sweep's folder and to its run in MLflow, and say what it says."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.errors import InputError
from llmemf.io import write_text
from sweeps.report.breakdown import rank_leaders
from sweeps.report.content import make_report, status
from sweeps.report.gather import gather
from sweeps.report.markdown import as_markdown
from sweeps.report.page import render
from sweeps.report.tracked import find_runs, log_report
from sweeps.state.sweep_record import SweepRecord

HTML, MARKDOWN = "report.html", "report.md"


def write_report(record: SweepRecord, console: Console, *, breakdown: bool = True) -> Path:
    """Write both pages; a running sweep is only read.

    Args:
        breakdown: whether to rank the validation cases by the kept weights.

    Returns:
        the HTML page.

    Raises:
        InputError: the journal is damaged, or the folder cannot be written.
    """
    findings = gather(record)
    with console.status("asking MLflow"):
        tracked = find_runs(record)
    ranked = None
    if breakdown:
        with console.status("ranking the validation cases by the kept weights"):
            ranked = rank_leaders(findings)
    with console.status("drawing"):
        report = make_report(findings, tracked, ranked)
        pages = {HTML: render(report), MARKDOWN: as_markdown(report)}
    paths = [record.folder / name for name in pages]
    try:
        for path, content in zip(paths, pages.values()):
            write_text(path, content)
    except OSError as error:
        raise InputError(f"{record.folder} cannot be written ({error.strerror or error})") from error
    # An ended sweep's run may get artifacts; a running one's belongs to its driver.
    running = findings.state == "running"
    problem = "it is still running" if running else log_report(tracked, paths)
    if said := status(findings):
        console.print(Text(said, style="yellow"))
    for item in report.advice:
        console.print(Text.assemble(("next  ", "dim"), (item.title, "bold"), f": {item.why}"))
        if item.command:
            console.print(Text(f"      {item.command}", style="cyan"), soft_wrap=True)
    if problem:
        console.print(Text(f"not logged to MLflow: {problem}", style="dim"))
    size = text_format.size(paths[0].stat().st_size)
    console.print(Text.assemble(("report  ", "dim"), str(paths[0]), f" ({size})"), soft_wrap=True)
    console.print(Text.assemble(("        ", "dim"), str(paths[1])), soft_wrap=True)
    return paths[0]
