"""The hyperparameter sweep.

python sweeps/grid.py --scenario movie_book                      the shipped sweep of a scenario
python sweeps/grid.py --scenario movie_book --dry-run            what it would do
python sweeps/grid.py --scenario movie_book --set lr=1e-3,1e-4 --set lambda2=0.1 --trials 20
python sweeps/grid.py --resume                                   continue the newest sweep
python sweeps/grid.py --resume --retry-failed                    and run its failed trials again
python sweeps/grid.py --extend 20 --set lr=1e-5,1e-4,1e-3        20 further trials, here in a wider space
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llmemf.errors import InputError
from sweeps.cli import on_end as hook
from sweeps.cli import options
from sweeps.core.console import CommandConsole

LARGEST_GRID = 1000
"""Points of a grid that are run without a question."""


def _confirm_grid(points: int) -> None:
    """Ask whether a large grid is meant.

    Raises:
        InputError: nobody is there to answer.
        typer.Abort: it is not meant.
    """
    if points <= LARGEST_GRID:
        return
    if not sys.stdin.isatty():
        raise InputError(
            f"--search grid has {points:,} points here: give --yes to run them all, or fewer with --trials, or --search auto"
        )
    typer.confirm(f"The grid has {points:,} points. Run them all?", abort=True)


def _write_report(*facts: Any) -> str:
    """The report at the end; torch, which it needs, would keep the first lines waiting."""
    from sweeps.reporting.write import write_at_end

    return write_at_end(*facts)


def sweep(
    context: typer.Context,
    scenario: options.Scenario = None,
    model: Annotated[str | None, typer.Option(help="The system.  [default: llm_emf]")] = None,
    search: Annotated[
        Literal["auto", "optuna", "grid", "random"] | None,
        typer.Option(
            help="A model of settings and epochs, grid points then TPE, every grid point once, or random draws.  [default: the scenario "
            "file's, else auto; optuna where --grid-points is given]"
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials.  [default: the scenario file's, else 40]")
    ] = None,
    grid_points: Annotated[
        int | None,
        typer.Option(min=0, help="Grid points before TPE, with --search optuna.  [default: half of the trials]"),
    ] = None,
    epochs: options.Epochs = None,
    scheduler: Annotated[
        Literal["asha", "none"] | None, typer.Option(help="Stop trials that fall behind, or none.  [default: asha]")
    ] = None,
    grace_period: Annotated[
        int | None,
        typer.Option(min=1, help="ASHA: epochs before a trial can be stopped.  [default: the scenario file's, else 3]"),
    ] = None,
    reduction_factor: Annotated[
        float | None,
        typer.Option(
            help="ASHA: one of so many trials continues after each rung.  [default: the scenario file's, else 3]"
        ),
    ] = None,
    concurrency: options.Concurrency = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    confirm: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the search's epochs for its best trials again with new seeds.  [default: 0.2]"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of grid order, sampler and trials.  [default: the scenario file's, else 0]"),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Train these points first: a column per searched setting. With --resume: too.  [default: none]",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="SWEEP", help="A new sweep with this one's settings; what else is given wins.  [default: none]"
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="SWEEP|FILE.csv|none",
            help="Learn from earlier results.  [default: the newest finished sweep of the same data, model and space]",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep.  [default: SCENARIO-DATE-TIME]")] = None,
    data_root: options.DataRoot = None,
    tracking_uri: options.TrackingUri = None,
    storage: Annotated[Path, typer.Option(help="Folder for all that the sweep writes.")] = Path("mlruns"),
    ray_address: options.RayAddress = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting; a comma list replaces its grid. Repeatable."),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Trials that keep their weights, the best.  [default: 5]")
    ] = None,
    fresh_workers: options.FreshWorkers = None,
    yes: Annotated[
        bool, typer.Option("--yes", help=f"Run a whole grid of more than {LARGEST_GRID:,} points without asking.")
    ] = False,
    allow_sample: options.AllowSample = False,
    dry_run: options.DryRun = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Time a few real steps; print hours, GPU-hours, memory and disk space.")
    ] = False,
    gpu_price: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a GPU-hour: --estimate prints what the sweep costs.  [default: none]"),
    ] = None,
    time_budget: options.TimeBudget = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the sweep --name, or the newest (of the scenario).")
    ] = False,
    extend: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="N further trials for the sweep --name, or the newest.  [default: none]"),
    ] = None,
    start_or_continue: Annotated[
        bool, typer.Option("--continue", help="Start the sweep --name, or continue it where it exists.")
    ] = False,
    retry_failed: options.RetryFailed = False,
    on_end: options.OnEnd = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --estimate: print its numbers as JSON.")] = False,
) -> None:
    """Search the hyperparameters of a model on a scenario.

    Everything goes below mlruns/.
    """
    console = CommandConsole(as_errors=as_json)
    with console.status("planning"):
        from sweeps.cluster.ray_session import room
        from sweeps.core.options import Options
        from sweeps.core.plan import plan_sweep
        from sweeps.core.resume import plan_continue, plan_extend, plan_resume
        from sweeps.core.run import run_sweep
        from sweeps.core.summary import print_fallback
        from sweeps.core.sweep_data import is_prepared, load_data
        from sweeps.reporting.standing import standing
        from sweeps.state.sweep_record import SweepRecord

    if resume + start_or_continue + (extend is not None) > 1:
        raise InputError("--resume, --extend and --continue exclude each other: give one of them")
    if like is not None and (resume or extend is not None):
        raise InputError("--like starts a new sweep: leave it out, or --resume and --extend")
    if points is not None and extend is not None:
        raise InputError("--points adds its own points: give --resume with it, and --extend afterwards")
    if retry_failed and not resume:
        raise InputError("--retry-failed runs failed trials of a stored sweep again: give --resume with it")
    if (gpu_price is not None or as_json) and not estimate:
        raise InputError("--gpu-price and --json belong to --estimate: give it, too")
    named = {field.name: context.params[field.name] for field in dataclasses.fields(Options)}
    named |= {"assignments": assignments or []}
    given = Options(**{key: value for key, value in named.items() if value is not None})
    budget = options.time_limit(time_budget)
    with console.status("planning"):
        if extend is not None:
            plan = plan_extend(given, extend)
        else:
            plan = plan_resume(given) if resume else plan_continue(given) if start_or_continue else plan_sweep(given)
    allowed = allow_sample or dry_run or plan.resumed
    print_fallback(plan.record.requested, plan.record.scenario, plan.record.data_root, console, allowed)
    if dry_run or estimate:
        parallel, notices = room(plan.record)
        plan.notices += notices
        if estimate:
            from sweeps.costs.estimate import estimate as run_estimate

            numbers = run_estimate(plan, load_data(plan), parallel, console, gpu_price=gpu_price)
            if as_json:
                options.print_json(dataclasses.asdict(numbers))
        else:
            from sweeps.costs.dry_run import print_dry_run

            print_dry_run(plan, load_data(plan, to_train=False) if is_prepared(plan) else None, parallel, console)
        return
    if plan.record.search == "grid" and trials is None and not plan.resumed and not yes:
        _confirm_grid(plan.trials)
    with hook.on_end(on_end, lambda: standing(SweepRecord.load(plan.record.folder)), console):
        raise typer.Exit(run_sweep(plan, console, time_budget=budget, report=_write_report).exit_code)
