"""Which part brings what: rows that lack or change one thing, over seeds, against the full model (the paper's table 4).

python sweeps/ablation.py --scenario movie_book                         all rows, at the newest sweep's best configuration
python sweeps/ablation.py --scenario movie_book --dry-run               the rows, and which cannot run and why
python sweeps/ablation.py --from NAME --rows ids,text,image --seeds 3   some rows, at the best configuration of sweep NAME
python sweeps/ablation.py --scenario movie_book --tune 20               every row with a search of its own
python sweeps/ablation.py --resume                                      continue the newest ablation
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import options
from sweeps.cli.group import run_or_show


def ablation(
    scenario: options.Scenario = None,
    rows: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="The rows; the full model is always one.  [default: all]")
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(min=1, help="Search every row with so many trials, instead of one configuration for all."),
    ] = None,
    from_sweep: options.FromSweep = None,
    seeds: options.Seeds = None,
    epochs: options.Epochs = None,
    seed: options.SearchSeed = None,
    concurrency: options.Concurrency = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    name: options.GroupName = None,
    data_root: options.DataRoot = Path("data"),
    tracking_uri: options.TrackingUri = None,
    storage: options.Storage = Path("mlruns"),
    ray_address: options.RayAddress = None,
    fresh_workers: options.FreshWorkers = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    time_budget: options.TimeBudget = None,
    resume: options.Resume = False,
    start_or_continue: options.Continue = False,
) -> None:
    """Take LLM-EMF apart on a scenario: rows over seeds against the full model; all goes below mlruns/."""
    from sweeps.groups.ablation import KIND, SECTIONS
    from sweeps.groups.plan import GroupOptions, plan_group

    given = GroupOptions(
        scenario=scenario,
        rows=options.names(rows),
        tune=tune,
        from_sweep=from_sweep,
        seeds=seeds,
        epochs=epochs,
        seed=seed,
        concurrency=concurrency,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        name=name,
        data_root=None if resume else data_root,
        tracking_uri=tracking_uri,
        storage=storage,
        ray_address=ray_address,
        fresh_workers=fresh_workers,
        assignments=assignments or [],
    )
    limit = options.time_limit(time_budget)
    group = plan_group(KIND.name, KIND.plan, given, resume=resume, start_or_continue=start_or_continue)
    run_or_show(KIND, group, dry_run, limit, SECTIONS)
