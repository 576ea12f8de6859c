"""The best configurations of a finished sweep again, over seeds: which one is the best, and is it.

python sweeps/rerun.py                                  the best 3 of the newest sweep, 5 seeds each
python sweeps/rerun.py SWEEP --top 5 --seeds 10         of the named one
python sweeps/rerun.py SWEEP --dry-run                  what it would train
python sweeps/rerun.py --resume                         continue the newest rerun, after any interruption
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmemf import text_format
from sweeps.cli import options


def rerun(
    sweep: Annotated[str | None, typer.Argument(help="A completed sweep.  [default: the newest]")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="How many configurations.  [default: 3]")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each.  [default: 5]")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Trials at once.  [default: the sweep's]")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="CPUs of a trial.  [default: the sweep's]")] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="GPUs of a trial, may be a fraction.  [default: the sweep's]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the rerun.  [default: SWEEP-rerun]")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that holds the prepared scenarios.  [default: the sweep's]")
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow.  [default: the sweep's]")] = None,
    storage: Annotated[Path, typer.Option(help="Folder that the sweep wrote to.")] = Path("mlruns"),
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster (auto, HOST:PORT).")] = None,
    fresh_workers: Annotated[
        bool | None,
        typer.Option(
            "--fresh-workers/--warm-workers",
            help="A new process per trial, or one that runs trials in turn.  [default: the sweep's]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained; start and write nothing.")
    ] = False,
    time_budget: options.TimeBudget = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the rerun --name or of SWEEP, or the newest.")
    ] = False,
) -> None:
    """Train a sweep's best configurations over seeds; the best on validation is tested once."""
    from sweeps.reruns.plan import RerunOptions, plan_rerun, plan_resume_rerun

    values = {key: value for key, value in locals().items() if key in RerunOptions.__dataclass_fields__}
    budget = None if time_budget is None else text_format.seconds(time_budget, "--time-budget")
    record = (plan_resume_rerun if resume else plan_rerun)(RerunOptions(**values))
    # With its own hold of the output: while trials run, everybody else's goes to the rerun's log.
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    if dry_run:
        from sweeps.reruns.view import print_start

        print_start(record, None, None, console)
        console.print("dry run: nothing was started or written", style="dim")
        return

    from sweeps.reruns.run import run_rerun

    raise typer.Exit(run_rerun(record, console, time_budget=budget))
