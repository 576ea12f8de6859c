"""Every system under one protocol: one budget of search, chosen on validation, several seeds, one look at the test split.

python sweeps/compare.py --scenario movie_book                          all systems
python sweeps/compare.py --scenario movie_book --dry-run                what it would do, and what cannot run
python sweeps/compare.py --scenario movie_book --models llm_emf,sasrec,gru4rec --trials-per-model 30 --seeds 5
python sweeps/compare.py --resume                                       continue the newest comparison
python sweeps/compare.py --resume --name NAME --models mifn             and add a system to it
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmemf import text_format
from llmemf.errors import InputError
from sweeps.cli import options


def compare(
    scenario: options.Scenario = None,
    models: Annotated[str | None, typer.Option(metavar="A,B,...", help="The systems.  [default: all]")] = None,
    trials_per_model: Annotated[int | None, typer.Option(min=1, help="Trials of each search.  [default: 20]")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each chosen configuration.  [default: 5]")] = None,
    epochs: options.Epochs = None,
    seed: options.SearchSeed = None,
    concurrency: options.Concurrency = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    name: Annotated[str | None, typer.Option(help="Name of the comparison.  [default: SCENARIO-DATE-TIME]")] = None,
    data_root: options.DataRoot = Path("data"),
    tracking_uri: options.TrackingUri = None,
    storage: Annotated[Path, typer.Option(help="Folder for all that the comparison writes.")] = Path("mlruns"),
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; start and write nothing.")] = False,
    time_budget: options.TimeBudget = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the comparison --name, or the newest (of the scenario).")
    ] = False,
    start_or_continue: Annotated[
        bool, typer.Option("--continue", help="Start the comparison --name, or continue it where it exists.")
    ] = False,
) -> None:
    """Compare systems on a scenario with one budget and one protocol; everything goes below mlruns/."""
    from sweeps.comparison.plan import (
        CompareOptions,
        plan_comparison,
        plan_continue_comparison,
        plan_resume_comparison,
        plan_search,
    )

    if resume and start_or_continue:
        raise InputError("--resume and --continue exclude each other: give one of them")
    values = {key: value for key, value in locals().items() if key in CompareOptions.__dataclass_fields__}
    values["models"] = [part.strip() for part in models.split(",") if part.strip()] if models else None
    given = CompareOptions(**{**values, "assignments": assignments or []})
    budget = None if time_budget is None else text_format.seconds(time_budget, "--time-budget")
    make_plan = plan_resume_comparison if resume else plan_continue_comparison if start_or_continue else plan_comparison
    record = make_plan(given)

    from sweeps.cluster.ray_session import room
    from sweeps.comparison.view import print_dry_run, problems_of
    from sweeps.core.summary import print_fallback

    # With its own hold of the output: while trials run, everybody else's goes to the comparison's log.
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    problems = problems_of(record, with_data=False)
    able = [model for model in record.models if model not in problems]
    if not able:
        raise InputError(problems[record.models[0]])
    print_fallback(record.requested, record.scenario, record.data_root, console)
    if dry_run:
        from llmemf.scenarios.scenario import find_scenario

        there = (Path(record.data_root) / record.scenario / "manifest.json").exists()
        found = find_scenario(record.scenario, record.data_root) if there else None
        problems = problems_of(record, with_data=there)
        print_dry_run(record, found, problems, room(plan_search(record, able[0]).record)[0], console)
        return

    from sweeps.comparison.run import run_comparison

    raise typer.Exit(run_comparison(record, console, time_budget=budget))
