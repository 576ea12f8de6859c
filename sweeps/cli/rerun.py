"""The best configurations of a finished sweep again, over seeds: which one is the best, and is it.

python sweeps/rerun.py                                  the best 3 of the newest sweep, 5 seeds each
python sweeps/rerun.py SWEEP --top 5 --seeds 10         of the named one
python sweeps/rerun.py SWEEP --dry-run                  what it would train
python sweeps/rerun.py --resume                         continue the newest rerun, after any interruption
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import options
from sweeps.cli.group import group_console, run


def rerun(
    sweep: Annotated[str | None, typer.Argument(help="A completed sweep.  [default: the newest]")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="How many configurations.  [default: 3]")] = None,
    seeds: options.Seeds = None,
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
    storage: options.Storage = Path("mlruns"),
    ray_address: options.RayAddress = None,
    fresh_workers: Annotated[
        bool | None,
        typer.Option(
            "--fresh-workers/--warm-workers",
            help="A new process per trial, or one that runs trials in turn.  [default: the sweep's]",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    time_budget: options.TimeBudget = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the rerun --name or of SWEEP, or the newest.")
    ] = False,
) -> None:
    """Train a sweep's best configurations over seeds; the best on validation is tested once."""
    from sweeps.groups.plan import GroupOptions, plan_group
    from sweeps.groups.rerun import KIND, facts
    from sweeps.groups.terminal import print_start

    given = GroupOptions(
        sweep=sweep,
        top=top,
        seeds=seeds,
        concurrency=concurrency,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        name=f"{sweep}-rerun" if resume and sweep and not name else name,
        data_root=data_root,
        tracking_uri=tracking_uri,
        storage=storage,
        ray_address=ray_address,
        fresh_workers=fresh_workers,
    )
    limit = options.time_limit(time_budget)
    group = plan_group(KIND.name, KIND.plan, given, resume=resume)
    console = group_console()
    if dry_run:
        print_start(group, facts(group, None), None, console)
        console.print("dry run: nothing was started or written", style="dim")
    else:
        run(KIND, group, console, limit)
