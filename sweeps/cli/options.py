"""Options that the commands share, as types of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmemf import text_format


def option(kind: Any, text: str, *names: str, **how: Any) -> Any:
    """An option that may be left out.

    Args:
        text: its help.
        names: its flags, where they are not its own name.
        how: further arguments of `typer.Option`.
    """
    return Annotated[kind | None, typer.Option(*names, help=text, **how)]


def switch(text: str, *names: str) -> Any:
    """An option without a value."""
    return Annotated[bool, typer.Option(*names, help=text)]


def command(
    run: Callable[[Mapping[str, Any]], None], text: str, offered: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Callable[..., None]:
    """A command with these options, in the order of its help.

    Args:
        run: gets their values by name.
        text: its help.
        defaults: of options whose default is not None.
    """

    def called(**given: Any) -> None:
        run(given)

    called.__doc__ = text
    # Typer reads the options of a command from its signature.
    called.__annotations__ = dict(offered)
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind)
            for name, kind in offered.items()
        ]
    )
    return called


Scenario = option(str, "A prepared scenario, or one of sweeps/scenarios/.  [default: none]")
Epochs = option(int, "Epochs of a trial at most.  [default: the scenario file's, else the system's]", min=1)
SearchSeed = option(
    int, "Seed of the searches; those after it are the seeds.  [default: the scenario file's, else 0]", min=0
)
Concurrency = option(int, "Trials at once.  [default: as many as fit]", min=1)
CpusPerTrial = option(float, "CPUs of a trial.  [default: 1]")
GpusPerTrial = option(float, "GPUs of a trial, may be a fraction.  [default: 1 where there is one]")
DataRoot = option(Path, "Folder that holds the prepared scenarios.  [default: data]", envvar="LLMEMF_DATA_ROOT")
TrackingUri = option(str, "MLflow: http://HOST:PORT or sqlite:///FILE.db  [default: STORAGE/mlflow.db]")
RayAddress = option(str, "A Ray cluster (auto, HOST:PORT).  [default: local]")
FreshWorkers = option(
    bool, "A new process per trial, or one that runs trials in turn.  [default: warm]", "--fresh-workers/--warm-workers"
)
TimeBudget = option(
    str, "Stop after 90m, 2h or 1h30m with everything saved; --resume continues.  [default: no limit]", metavar="TIME"
)
Seeds = option(int, "Seeds of each row's configuration.  [default: 5]", min=1)
GroupName = option(str, "Name of the group of sweeps.  [default: SCENARIO-DATE-TIME]", "--name")
Storage = Annotated[Path, typer.Option(help="Folder for all that is written.")]


def from_sweep(default: str) -> Any:
    """The sweep whose best trial gives the configuration; what is used without it."""
    text = f"Give all rows the configuration of this sweep's best trial.  [default: {default}]"
    return option(str, text, "--from", metavar="SWEEP")


Assignments = option(list[str], "Fix a setting of all rows. Repeatable.", "--set", metavar="KEY=VALUE")
SystemAssignments = option(
    list[str],
    "Fix a setting of all systems that have it, or of one; a comma list replaces its grid. Repeatable.",
    "--set",
    metavar="[MODEL.]KEY=VALUE",
)
Models = option(str, "Systems to compare.  [default: all]", metavar="A,B,...")
Reference = option(str, "System that the others are tested against.  [default: the best other one]")
TrialsPerModel = option(int, "Trials of each search.  [default: 20]", min=1)
System = option(str, "The system.  [default: llm_emf, or that of --from]")
Rows = option(str, "The rows; the full model is always one.  [default: all]", metavar="A,B,...")
Tune = option(
    int, "Search every row with this many trials, instead of one configuration for all.  [default: no search]", min=1
)
Vary = option(list[str], "One row per value; repeated, one per combination.", metavar="KEY=A,B,...")
RetryFailed = switch("With --resume: run failed trials again.", "--retry-failed")
AllowSample = switch("Without the scenario's data: run on the embedded sample, also in a job.", "--allow-sample")
DryRun = switch("Show the plan; start and write nothing.", "--dry-run")
Resume = switch("Continue the group --name, or the newest (of the scenario).", "--resume")
Continue = switch("Start the group --name, or continue it where it exists.", "--continue")
OnEnd = option(
    str, "When it ends, run a command or send a POST request, with JSON.  [default: none]", metavar="CMD|URL"
)

SweepArgument = Annotated[
    str | None,
    typer.Argument(metavar="SWEEP", help="Name of the sweep.  [default: the newest]", show_default=False),
]
Written = Annotated[Path, typer.Option(help="Folder that the sweeps wrote to.")]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead.")]


def print_json(content: Any) -> None:
    """A value for programs, on standard output."""
    typer.echo(text_format.json_text(content))


def names(text: str | None) -> list[str] | None:
    """`a, b` as a list; None where nothing was given."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else None


def time_limit(text: str | None) -> float | None:
    """`--time-budget` in seconds.

    Raises:
        InputError: it cannot be read.
    """
    return None if text is None else text_format.seconds(text, "--time-budget")
