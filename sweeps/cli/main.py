"""The console command `llmemf`.

llmemf sweep --scenario movie_book        search the hyperparameters of a model
llmemf compare, ablation, rerun, study    groups of sweeps: rows over seeds in one table
llmemf sweeps, live                       how sweeps stand, and a page that follows one
llmemf report, ui, export, serve, clean   what came out, MLflow's pages, the best model and its server, disk space
llmemf data, features                     prepare scenarios and their items' features
llmemf train, evaluate, recommend         one model on one scenario
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import llmemf
from llmemf.command_line import DOORS
from llmemf.commands import add_commands
from llmemf.commands.boundary import App, run_app
from sweeps.cli import clean, export, group, live, new_scenario, report, serve, standing, sweep, ui

app = App(
    no_args_is_help=True,
    help="LLM-EMF: cross-domain sequential recommendation; one model, or sweeps over many.",
)
app.command("sweep")(sweep.sweep)
app.command("compare")(group.compare)
app.command("ablation")(group.ablation)
app.command("rerun")(group.rerun)
app.command("study")(group.study)
app.command("sweeps")(standing.sweeps)
app.command("live")(live.live)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("ui")(ui.ui)
app.command("clean")(clean.clean)
app.command("new-scenario")(new_scenario.new_scenario)
add_commands(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmemf {llmemf.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before a command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console command; a user's mistake becomes one line on stderr and exit code 2."""
    run_app(app, "llmemf", arguments)


def single(command: str) -> typer.Typer:
    """An application that is one of the commands alone."""
    found = next(info.callback for info in app.registered_commands if info.name == command and info.callback)
    application = App(add_completion=False)
    application.command(command)(found)
    return application


def run_script(script: str) -> None:
    """Run one command from its script in `sweeps/` (`grid.py` is `sweep`)."""
    command = next(name for name, file in DOORS.items() if file == script)
    run_app(single(command), f"sweeps/{script}")
