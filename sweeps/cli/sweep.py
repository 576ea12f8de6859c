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
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llmemf.errors import InputError
from sweeps.cli import on_end as hook
from sweeps.cli import options
from sweeps.cli.options import option, switch
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


OFFERED: dict[str, Any] = {
    "scenario": options.Scenario,
    "model": option(str, "The system.  [default: llm_emf]"),
    "search": option(
        Literal["auto", "optuna", "grid", "random"],
        "A model of settings and epochs, grid points then TPE, every grid point once, or random draws.  [default: the scenario "
        "file's, else auto; optuna where --grid-points is given]",
    ),
    "trials": option(int, "Number of trials.  [default: the scenario file's, else 40]", min=1),
    "grid_points": option(int, "Grid points before TPE, with --search optuna.  [default: half of the trials]", min=0),
    "epochs": options.Epochs,
    "scheduler": option(Literal["asha", "none"], "Stop trials that fall behind, or none.  [default: asha]"),
    "grace_period": option(
        int, "ASHA: epochs before a trial can be stopped.  [default: the scenario file's, else 3]", min=1
    ),
    "reduction_factor": option(
        float, "ASHA: one of so many trials continues after each rung.  [default: the scenario file's, else 3]"
    ),
    "concurrency": options.Concurrency,
    "cpus_per_trial": options.CpusPerTrial,
    "gpus_per_trial": options.GpusPerTrial,
    "confirm": option(
        float, "Share of the search's epochs for its best trials again with new seeds.  [default: 0.2]", min=0, max=1
    ),
    "seed": option(int, "Seed of grid order, sampler and trials.  [default: the scenario file's, else 0]", min=0),
    "points": option(
        Path,
        "Train these points first: a column per searched setting. With --resume: too.  [default: none]",
        metavar="FILE.csv",
    ),
    "like": option(
        str, "A new sweep with this one's settings; what else is given wins.  [default: none]", metavar="SWEEP"
    ),
    "warm_start": option(
        str,
        "Learn from earlier results.  [default: the newest finished sweep of the same data, model and space]",
        metavar="SWEEP|FILE.csv|none",
    ),
    "name": option(str, "Name of the sweep.  [default: SCENARIO-DATE-TIME]"),
    "data_root": options.DataRoot,
    "tracking_uri": options.TrackingUri,
    "storage": Annotated[Path, typer.Option(help="Folder for all that the sweep writes.")],
    "ray_address": options.RayAddress,
    "assignments": option(
        list[str], "Fix a setting; a comma list replaces its grid. Repeatable.", "--set", metavar="KEY=VALUE"
    ),
    "keep": option(int, "Trials that keep their weights, the best.  [default: 5]", min=1),
    "fresh_workers": options.FreshWorkers,
    "yes": switch(f"Run a whole grid of more than {LARGEST_GRID:,} points without asking.", "--yes"),
    "allow_sample": options.AllowSample,
    "dry_run": options.DryRun,
    "estimate": switch("Time a few real steps; print hours, GPU-hours, memory and disk space.", "--estimate"),
    "gpu_price": option(float, "Price of a GPU-hour: --estimate prints what the sweep costs.  [default: none]", min=0),
    "time_budget": options.TimeBudget,
    "resume": switch("Continue the sweep --name, or the newest (of the scenario).", "--resume"),
    "extend": option(int, "N further trials for the sweep --name, or the newest.  [default: none]", min=1, metavar="N"),
    "start_or_continue": switch("Start the sweep --name, or continue it where it exists.", "--continue"),
    "retry_failed": options.RetryFailed,
    "on_end": options.OnEnd,
    "as_json": switch("With --estimate: print its numbers as JSON.", "--json"),
}
"""Options of the command, in the order of its help."""
SWITCHES = ("yes", "allow_sample", "dry_run", "estimate", "resume", "start_or_continue", "retry_failed", "as_json")


def run(given: Mapping[str, Any]) -> None:
    """Run, continue, estimate or show a sweep.

    Raises:
        InputError: a mistake in an option.
    """
    as_json, dry_run, estimate = given["as_json"], given["dry_run"], given["estimate"]
    resume, extend, start_or_continue = given["resume"], given["extend"], given["start_or_continue"]
    console = CommandConsole(as_errors=as_json)
    with console.status("planning"):
        from sweeps.cluster.ray_session import room
        from sweeps.core.options import Options
        from sweeps.core.plan import plan_sweep
        from sweeps.core.resume import plan_continue, plan_extend, plan_resume
        from sweeps.core.run import run_sweep
        from sweeps.core.summary import print_fallback
        from sweeps.core.sweep_data import is_prepared, load_data
        from sweeps.reporting.gather import gather
        from sweeps.reporting.standing import standing
        from sweeps.state.sweep_record import SweepRecord

    if resume + start_or_continue + (extend is not None) > 1:
        raise InputError("--resume, --extend and --continue exclude each other: give one of them")
    if given["like"] is not None and (resume or extend is not None):
        raise InputError("--like starts a new sweep: leave it out, or --resume and --extend")
    if given["points"] is not None and extend is not None:
        raise InputError("--points adds its own points: give --resume with it, and --extend afterwards")
    if given["retry_failed"] and not resume:
        raise InputError("--retry-failed runs failed trials of a stored sweep again: give --resume with it")
    if (given["gpu_price"] is not None or as_json) and not estimate:
        raise InputError("--gpu-price and --json belong to --estimate: give it, too")
    names = [field.name for field in dataclasses.fields(Options)]
    wanted = Options(**{name: given[name] for name in names if given[name] is not None})
    budget = options.time_limit(given["time_budget"])
    with console.status("planning"):
        if extend is not None:
            plan = plan_extend(wanted, extend)
        else:
            plan = plan_resume(wanted) if resume else plan_continue(wanted) if start_or_continue else plan_sweep(wanted)
    allowed = given["allow_sample"] or dry_run or plan.resumed
    print_fallback(plan.record.requested, plan.record.scenario, plan.record.data_root, console, allowed)
    if dry_run or estimate:
        parallel, notices = room(plan.record)
        plan.notices += notices
        if estimate:
            from sweeps.costs.estimate import estimate as run_estimate

            numbers = run_estimate(plan, load_data(plan), parallel, console, gpu_price=given["gpu_price"])
            if as_json:
                options.print_json(dataclasses.asdict(numbers))
        else:
            from sweeps.costs.dry_run import print_dry_run

            print_dry_run(plan, load_data(plan, to_train=False) if is_prepared(plan) else None, parallel, console)
        return
    if plan.record.search == "grid" and given["trials"] is None and not plan.resumed and not given["yes"]:
        _confirm_grid(plan.trials)
    with hook.on_end(given["on_end"], lambda: standing(gather(SweepRecord.load(plan.record.folder))), console):
        raise typer.Exit(run_sweep(plan, console, time_budget=budget, report=_write_report).exit_code)


sweep = options.command(
    run,
    "Search the hyperparameters of a model on a scenario.\n\nEverything goes below mlruns/.",
    OFFERED,
    {"storage": Path("mlruns"), **dict.fromkeys(SWITCHES, False)},
)
