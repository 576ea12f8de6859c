"""What one setting does: a row per value (or per combination of several settings' values) over seeds, all else fixed.

python sweeps/study.py --scenario movie_book --vary max_length=5,15,47 --seeds 3     LLM-EMF's defaults but for one setting
python sweeps/study.py --from NAME --vary dropout=0.1,0.3 --vary lr=1e-4,1e-3        around the best trial of sweep NAME
python sweeps/study.py --scenario movie_book --model sasrec --vary heads=1,2 --dry-run
python sweeps/study.py --resume                                                      continue the newest study
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli import options
from sweeps.cli.group import run_or_show


def study(
    scenario: options.Scenario = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,...", help="One row per value; repeated, one per combination."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The system.  [default: llm_emf, or that of --from]")] = None,
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
    """Vary settings of one system, everything else fixed: rows over seeds, one table; all goes below mlruns/."""
    from sweeps.groups.plan import GroupOptions, plan_group
    from sweeps.groups.study import KIND

    given = GroupOptions(
        scenario=scenario,
        vary=vary or None,
        model=model,
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
    run_or_show(KIND, group, dry_run, limit)
