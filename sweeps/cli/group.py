"""Commands that make groups of sweeps: rows over seeds, in one table.

python sweeps/compare.py --scenario movie_book                          all systems
python sweeps/compare.py --scenario movie_book --dry-run                what it would do, and what cannot run
python sweeps/compare.py --scenario movie_book --models llm_emf,sasrec,gru4rec --trials-per-model 30 --seeds 5
python sweeps/compare.py --resume --name NAME --models mifn             continue a comparison and add a system to it
python sweeps/ablation.py --scenario movie_book                         all rows, at the newest sweep's best configuration
python sweeps/ablation.py --from NAME --rows ids,text,image --seeds 3   some rows, at the best configuration of sweep NAME
python sweeps/ablation.py --scenario movie_book --tune 20               every row with a search of its own
python sweeps/rerun.py SWEEP --top 5 --seeds 10                         the best 5 of a sweep (the newest), 10 seeds each
python sweeps/study.py --scenario movie_book --vary max_length=5,15,47  LLM-EMF's defaults but for one setting
python sweeps/study.py --from NAME --vary dropout=0.1,0.3 --vary lr=1e-4,1e-3   around the best trial of sweep NAME
python sweeps/COMMAND.py --resume                                       continue the newest group of that kind
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from llmemf.errors import InputError
from sweeps.cli import on_end as hook
from sweeps.cli import options
from sweeps.cli.options import option, switch
from sweeps.core.console import CommandConsole

SHARED: dict[str, Any] = {
    "scenario": options.Scenario,
    "seeds": options.Seeds,
    "epochs": options.Epochs,
    "seed": options.SearchSeed,
    "concurrency": options.Concurrency,
    "cpus_per_trial": options.CpusPerTrial,
    "gpus_per_trial": options.GpusPerTrial,
    "name": options.GroupName,
    "data_root": options.DataRoot,
    "tracking_uri": options.TrackingUri,
    "storage": options.Storage,
    "ray_address": options.RayAddress,
    "fresh_workers": options.FreshWorkers,
    "assignments": options.Assignments,
    "allow_sample": options.AllowSample,
    "dry_run": options.DryRun,
    "time_budget": options.TimeBudget,
    "resume": options.Resume,
    "retry_failed": options.RetryFailed,
    "start_or_continue": options.Continue,
    "on_end": options.OnEnd,
}
"""Options of all commands, in the order of the help."""
DEFAULTS: dict[str, Any] = {
    "storage": Path("mlruns"),
    **dict.fromkeys(("allow_sample", "dry_run", "resume", "retry_failed", "start_or_continue"), False),
}
"""Of options whose default is not None."""


def _command(kind: str, text: str, own: Mapping[str, Any], changed: Mapping[str, Any]) -> Callable[..., None]:
    """A command with options of its own and those that all share.

    Args:
        text: its help.
        changed: shared options in another form, None for one that the command does not have.
    """
    offered = {"scenario": options.Scenario, **own, **SHARED, **changed}
    offered = {name: offer for name, offer in offered.items() if offer is not None}
    return options.command(partial(run_command, kind), text, offered, DEFAULTS)


def run_command(kind: str, given: Mapping[str, Any]) -> None:
    """Run or continue a group, or show what would be run.

    Raises:
        InputError: a mistake in an option.
    """
    if given["retry_failed"] and not given["resume"]:
        raise InputError("--retry-failed runs failed seeds of a stored group again: give --resume with it")
    console = CommandConsole(160)
    with console.status("planning"):
        from llmemf.scenarios.scenario import find_scenario
        from sweeps.core.summary import print_fallback
        from sweeps.groups.new_group import GroupOptions
        from sweeps.groups.plan import fit_to_data, plan_group
        from sweeps.groups.results import GroupState
        from sweeps.groups.run import run_group
        from sweeps.groups.terminal import print_rows, print_start

        names = {field.name for field in dataclasses.fields(GroupOptions)}
        values = {key: value for key, value in given.items() if key in names and value is not None}
        values |= {key: options.names(values[key]) for key in {"models", "rows"} & values.keys()}
        wanted, limit = GroupOptions(**values), options.time_limit(given["time_budget"])
        resume, start_or_continue = given["resume"], given.get("start_or_continue", False)
        group = plan_group(kind, wanted, resume=resume, start_or_continue=start_or_continue)
    allowed = given.get("allow_sample", True) or given["dry_run"] or group.folder.exists()
    print_fallback(group.requested, group.scenario, group.data_root, console, allowed)
    if not given["dry_run"]:
        again = given["retry_failed"]
        with hook.on_end(given["on_end"], lambda: standing_of(type(group).load(group.kind, group.folder)), console):
            raise typer.Exit(run_group(group, console, time_budget=limit, retry_failed=again))
    prepared = (Path(group.data_root) / group.scenario / "manifest.json").exists()
    scenario = find_scenario(group.scenario, group.data_root) if prepared else None
    if scenario is not None:
        fit_to_data(group, scenario)
    print_start(group, scenario, GroupState(group.folder), console)
    print_rows(group, scenario, console)
    console.print("\ndry run: nothing was started or written", style="dim")


def standing_of(group: Any) -> dict[str, Any]:
    """How a group stands, as plain values."""
    kept = ("name", "kind", "scenario", "created", "winner", "tracking_uri")
    return {key: getattr(group, key) for key in kept} | {"state": group.status, "folder": str(group.folder)}


compare = _command(
    "comparison",
    "Compare systems with one budget and one protocol.\n\nEverything goes below mlruns/.",
    {"models": options.Models, "reference": options.Reference, "trials_per_model": options.TrialsPerModel},
    {"assignments": options.SystemAssignments},
)
ablation = _command(
    "ablation",
    "Take LLM-EMF apart: rows over seeds against the full model.\n\nEverything goes below mlruns/.",
    {"rows": options.Rows, "tune": options.Tune, "from_sweep": options.from_sweep("the newest completed one")},
    {},
)
study = _command(
    "study",
    "Vary settings of one system, everything else fixed.\n\nRows over seeds in one table; everything goes below mlruns/.",
    {"vary": options.Vary, "model": options.System, "from_sweep": options.from_sweep("none")},
    {},
)
rerun = _command(
    "rerun",
    "Train a sweep's best configurations again, over seeds.\n\nThe best on validation is tested once.",
    {
        "sweep": Annotated[
            str | None, typer.Argument(metavar="SWEEP", help="A completed sweep.  [default: the newest]")
        ],
        "top": option(int, "How many configurations.  [default: 3]", min=1),
    },
    {
        "concurrency": option(int, "Trials at once.  [default: the sweep's]", min=1),
        "cpus_per_trial": option(float, "CPUs of a trial.  [default: the sweep's]"),
        "gpus_per_trial": option(float, "GPUs of a trial, may be a fraction.  [default: the sweep's]"),
        "name": option(str, "Name of the rerun.  [default: SWEEP-rerun]"),
        "data_root": option(Path, "Folder that holds the prepared scenarios.  [default: the sweep's]"),
        "tracking_uri": option(str, "MLflow.  [default: the sweep's]"),
        "fresh_workers": option(
            bool,
            "A new process per trial, or one that runs trials in turn.  [default: the sweep's]",
            "--fresh-workers/--warm-workers",
        ),
        "resume": switch("Continue the rerun --name or of SWEEP, or the newest.", "--resume"),
        **dict.fromkeys(("scenario", "epochs", "seed", "assignments", "allow_sample", "start_or_continue")),
    },
)
