"""Every system under one protocol: one budget of search, chosen on validation, several seeds, each tested once.

python sweeps/compare.py --scenario movie_book                          all systems
python sweeps/compare.py --scenario movie_book --dry-run                what it would do, and what cannot run
python sweeps/compare.py --scenario movie_book --models llm_emf,sasrec,gru4rec --trials-per-model 30 --seeds 5
python sweeps/compare.py --resume                                       continue the newest comparison
python sweeps/compare.py --resume --name NAME --models mifn             and add a system to it
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmemf.errors import InputError
from sweeps.cli import options
from sweeps.cli.group import group_console, run, stored_scenario


def compare(
    scenario: options.Scenario = None,
    models: Annotated[str | None, typer.Option(metavar="A,B,...", help="The systems.  [default: all]")] = None,
    trials_per_model: Annotated[int | None, typer.Option(min=1, help="Trials of each search.  [default: 20]")] = None,
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
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[MODEL.]KEY=VALUE",
            help="Fix a setting of all systems that have it, or of one; a comma list replaces its grid. Repeatable.",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    time_budget: options.TimeBudget = None,
    resume: options.Resume = False,
    start_or_continue: options.Continue = False,
) -> None:
    """Compare systems on a scenario with one budget and one protocol; everything goes below mlruns/."""
    from sweeps.cluster.ray_session import room
    from sweeps.core.summary import print_fallback
    from sweeps.groups.comparison import KIND, add_systems, facts, print_plan, problems_of
    from sweeps.groups.plan import GroupOptions, plan_group, plan_search
    from sweeps.groups.results import GroupState
    from sweeps.groups.terminal import print_start

    given = GroupOptions(
        scenario=scenario,
        models=options.names(models),
        trials_per_model=trials_per_model,
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
    add_systems(group, given.models if resume else None)
    console = group_console()
    problems = problems_of(group, with_data=False)
    able = [row for row in group.rows if row.name not in problems]
    if not able:
        raise InputError(problems[group.names[0]])
    print_fallback(group.requested, group.scenario, group.data_root, console)
    if dry_run:
        found = stored_scenario(group)
        print_start(group, facts(group, found), GroupState(group.folder), console)
        problems = problems_of(group, with_data=found is not None)
        print_plan(group, problems, room(plan_search(group, able[0]).record)[0], console)
    else:
        run(KIND, group, console, limit)
