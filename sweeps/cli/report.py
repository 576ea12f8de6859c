"""What came out of a sweep, to read and to look at: report.html (opens offline) and report.md in the sweep's folder.

python sweeps/report.py                          the newest sweep
python sweeps/report.py NAME --open              a sweep by its name, opened in the browser
python sweeps/report.py NAME OTHER               two to four sweeps beside each other
python sweeps/report.py NAME --no-breakdown      without ranking the validation cases again (large data, no weights)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import options
from sweeps.core.console import CommandConsole


def report(
    sweeps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SWEEP",
            help="Name of the sweep; several stand side by side.  [default: the newest]",
            show_default=False,
        ),
    ] = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown/--no-breakdown", help="Rank the validation cases by the kept weights.")
    ] = True,
    open_page: options.OpenPage = False,
    storage: options.Written = Path("mlruns"),
    data_root: Annotated[
        Path | None,
        typer.Option(envvar="LLMEMF_DATA_ROOT", help="Folder of the prepared scenarios.  [default: the sweep's]"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a sweep's report (HTML and Markdown).

    It goes into the sweep's folder and to its run in MLflow.
    """
    from sweeps.reporting.gather import gather
    from sweeps.reporting.standing import with_trials
    from sweeps.reporting.write import write_beside, write_report
    from sweeps.state.sweep_record import find_sweep

    console = CommandConsole(as_errors=as_json)
    records = [find_sweep(storage, name=name) for name in sweeps] if sweeps else [find_sweep(storage)]
    if data_root is not None:
        for record in records:
            record.data_root = str(data_root.resolve())
    if len(records) > 1:
        page = write_beside(records, console)
        if as_json:
            options.print_json({"page": page, "sweeps": [with_trials(gather(record)) for record in records]})
        if open_page:
            typer.launch(page.as_uri())
        return
    report = write_report(records[0], console, breakdown=breakdown)
    if as_json:
        options.print_json(report)
    if open_page:
        typer.launch(Path(report["page"]).as_uri())
