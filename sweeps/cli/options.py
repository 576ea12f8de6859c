"""Options that the commands share, as types of their parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmemf import text_format

Scenario = Annotated[
    str | None, typer.Option(help="A prepared scenario, or one of sweeps/scenarios/.  [default: none]")
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Epochs of a trial at most.  [default: the scenario file's, else the system's]"),
]
SearchSeed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed of the searches; those after it are the seeds.  [default: the scenario file's, else 0]"
    ),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Trials at once.  [default: as many as fit]")]
CpusPerTrial = Annotated[float | None, typer.Option(help="CPUs of a trial.  [default: 1]")]
GpusPerTrial = Annotated[
    float | None, typer.Option(help="GPUs of a trial, may be a fraction.  [default: 1 where there is one]")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios.  [default: data]"),
]
TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow: http://HOST:PORT or sqlite:///FILE.db  [default: STORAGE/mlflow.db]")
]
RayAddress = Annotated[str | None, typer.Option(help="A Ray cluster (auto, HOST:PORT).  [default: local]")]
FreshWorkers = Annotated[
    bool | None,
    typer.Option(
        "--fresh-workers/--warm-workers",
        help="A new process per trial, or one that runs trials in turn.  [default: warm]",
    ),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Stop after 90m, 2h or 1h30m with everything saved; --resume continues.  [default: no limit]",
    ),
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Seeds of each row's configuration.  [default: 5]")]
GroupName = Annotated[
    str | None, typer.Option("--name", help="Name of the group of sweeps.  [default: SCENARIO-DATE-TIME]")
]
Storage = Annotated[Path, typer.Option(help="Folder for all that is written.")]
FromSweep = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="SWEEP",
        help="Give all rows the configuration of this sweep's best trial.  [default: an ablation's is the newest completed one, a study has none]",
    ),
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting of all rows. Repeatable.")
]
SystemAssignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[MODEL.]KEY=VALUE",
        help="Fix a setting of all systems that have it, or of one; a comma list replaces its grid. Repeatable.",
    ),
]
Models = Annotated[str | None, typer.Option(metavar="A,B,...", help="Systems to compare.  [default: all]")]
Reference = Annotated[
    str | None, typer.Option(help="System that the others are tested against.  [default: the best other one]")
]
TrialsPerModel = Annotated[int | None, typer.Option(min=1, help="Trials of each search.  [default: 20]")]
System = Annotated[str | None, typer.Option(help="The system.  [default: llm_emf, or that of --from]")]
Rows = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="The rows; the full model is always one.  [default: all]")
]
Tune = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Search every row with this many trials, instead of one configuration for all.  [default: no search]",
    ),
]
Vary = Annotated[
    list[str] | None, typer.Option(metavar="KEY=A,B,...", help="One row per value; repeated, one per combination.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="With --resume: run failed trials again.")]
AllowSample = Annotated[
    bool,
    typer.Option("--allow-sample", help="Without the scenario's data: run on the embedded sample, also in a job."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; start and write nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the group --name, or the newest (of the scenario).")]
Continue = Annotated[bool, typer.Option("--continue", help="Start the group --name, or continue it where it exists.")]

SweepArgument = Annotated[
    str | None,
    typer.Argument(metavar="[SWEEP]", help="Name of the sweep.  [default: the newest]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead.")]
OnEnd = Annotated[
    str | None,
    typer.Option(
        metavar="CMD|URL", help="When it ends, run a command or send a POST request, with JSON.  [default: none]"
    ),
]


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
