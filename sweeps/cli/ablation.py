"""Which part brings what: rows that lack or change one thing, over seeds, against the full model (the paper's table 4).

python sweeps/ablation.py --scenario movie_book                         all rows, at the newest sweep's best configuration
python sweeps/ablation.py --scenario movie_book --dry-run               the rows, and which cannot run and why
python sweeps/ablation.py --from NAME --rows ids,text,image --seeds 3   some rows, at the best configuration of sweep NAME
python sweeps/ablation.py --scenario movie_book --tune 20               every row with a search of its own
python sweeps/ablation.py --resume                                      continue the newest ablation
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


def ablation(
    scenario: options.Scenario = None,
    rows: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="The rows; the full model is always one.  [default: all]")
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(min=1, help="Search every row with so many trials, instead of one configuration for all."),
    ] = None,
    from_sweep: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SWEEP",
            help="Fix all rows at its best configuration.  [default: the scenario's newest completed sweep]",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each row.  [default: 5]")] = None,
    epochs: options.Epochs = None,
    seed: options.SearchSeed = None,
    concurrency: options.Concurrency = None,
    cpus_per_trial: options.CpusPerTrial = None,
    gpus_per_trial: options.GpusPerTrial = None,
    name: Annotated[str | None, typer.Option(help="Name of the ablation.  [default: SCENARIO-DATE-TIME]")] = None,
    data_root: options.DataRoot = Path("data"),
    tracking_uri: options.TrackingUri = None,
    storage: Annotated[Path, typer.Option(help="Folder for all that the ablation writes.")] = Path("mlruns"),
    ray_address: options.RayAddress = None,
    fresh_workers: options.FreshWorkers = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Fix a setting of all rows; with --tune a comma list replaces its grid. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the rows; start and write nothing.")] = False,
    time_budget: options.TimeBudget = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the ablation --name, or the newest (of the scenario).")
    ] = False,
    start_or_continue: Annotated[
        bool, typer.Option("--continue", help="Start the ablation --name, or continue it where it exists.")
    ] = False,
) -> None:
    """Take LLM-EMF apart on a scenario: rows over seeds against the full model; all goes below mlruns/."""
    from sweeps.ablations.plan import AblationOptions, plan_ablation, plan_continue_ablation, plan_resume_ablation

    if resume and start_or_continue:
        raise InputError("--resume and --continue exclude each other: give one of them")
    values = {key: value for key, value in locals().items() if key in AblationOptions.__dataclass_fields__}
    values["rows"] = [part.strip() for part in rows.split(",") if part.strip()] if rows else None
    given = AblationOptions(**{**values, "assignments": assignments or []})
    budget = None if time_budget is None else text_format.seconds(time_budget, "--time-budget")
    make_plan = plan_resume_ablation if resume else plan_continue_ablation if start_or_continue else plan_ablation
    record = make_plan(given)

    from sweeps.core.summary import print_fallback

    # With its own hold of the output: while trials run, everybody else's goes to the ablation's log.
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    print_fallback(record.requested, record.scenario, record.data_root, console)
    if dry_run:
        from llmemf.scenarios.scenario import find_scenario
        from sweeps.ablations.run import finalize
        from sweeps.ablations.view import print_rows, print_start

        there = (Path(record.data_root) / record.scenario / "manifest.json").exists()
        found = find_scenario(record.scenario, record.data_root) if there else None
        known = finalize(record, found) if found else {}
        print_start(record, found, known, None, console)
        print_rows(record, known, console)
        console.print("\ndry run: nothing was started or written", style="dim")
        return

    from sweeps.ablations.run import run_ablation

    raise typer.Exit(run_ablation(record, console, time_budget=budget))
