"""Prepare and inspect scenarios.

llmemf data import windows FOLDER --name movie_book_windows --domains movie,book --split leave_last_out
llmemf data import histories mix.txt --items items.tsv --name toy_game --domains toy,game
llmemf data prepare amazon FOLDER --x Movies_and_TV --y Books --name movie_book --domains movie,book
llmemf data prepare table orders.csv --items products.csv --name my_shops
llmemf data list
llmemf data show NAME
llmemf data audit NAME
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmemf.commands import prepare
from llmemf.commands.data_options import (
    DEFAULT_ROOT,
    Candidates,
    CandidateSeed,
    DataRoot,
    Name,
    Overwrite,
    TieBreak,
    pair,
    root_option,
    say,
)

app = typer.Typer(no_args_is_help=True, help="Prepare and inspect scenarios.")
import_app = typer.Typer(no_args_is_help=True, help="Bring raw data into a scenario.")
app.add_typer(import_app, name="import")
app.add_typer(prepare.app, name="prepare")


class Split(StrEnum):
    published = "published"
    leave_last_out = "leave_last_out"


class Repeats(StrEnum):
    keep = "keep"
    last = "last"
    first = "first"


Existing = Annotated[str, typer.Argument(metavar="NAME", help="A prepared scenario, see `llmemf data list`.")]


@import_app.command("windows")
def import_windows(
    folder: Annotated[Path, typer.Argument(help="Folder with the published files.")],
    name: Name,
    domains: Annotated[str, typer.Option("--domains", help="Names of X and Y, for example movie,book.")],
    split: Annotated[
        Split, typer.Option("--split", help="Take the three files as they are, or cut every user's latest window.")
    ] = Split.published,
    tie_break: Annotated[
        TieBreak,
        typer.Option(
            "--tie-break",
            help="Items of the same time: in the file's order, shuffled, or leave out the cases that they decide.",
        ),
    ] = TieBreak.file,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of --tie-break random.")] = 0,
    candidates: Candidates = 999,
    candidate_seed: CandidateSeed = 0,
    data_root: DataRoot = DEFAULT_ROOT,
    overwrite: Overwrite = False,
) -> None:
    """Import published windows: item lists, sequence files, user list, and items.tsv if there is one."""
    from llmemf.scenarios.windows import read_windows

    start = time.perf_counter()
    scenario = read_windows(
        folder, name, pair(domains, "--domains"), split.value, tie_break.value, seed, candidates, candidate_seed
    )
    _save(scenario, data_root, folder, overwrite, start)


@import_app.command("histories")
def import_histories(
    file: Annotated[Path, typer.Argument(help="One user per line: USER, then the items, oldest first.")],
    items: Annotated[
        Path, typer.Option("--items", help="Item table: id, domain, external id, title, description, image.")
    ],
    name: Name,
    domains: Annotated[
        str | None,
        typer.Option(
            "--domains", help="Names of X and Y, for example toy,game; by default as the item table has them."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="What the item table calls X and Y where that is not their names.")
    ] = None,
    repeats: Annotated[
        Repeats, typer.Option("--repeats", help="Of an item that a history repeats, keep all, the last, or the first.")
    ] = Repeats.keep,
    min_length: Annotated[int, typer.Option("--min-length", min=2, help="Skip users with fewer items.")] = 4,
    candidates: Candidates = 999,
    candidate_seed: CandidateSeed = 0,
    data_root: DataRoot = DEFAULT_ROOT,
    overwrite: Overwrite = False,
) -> None:
    """Import plain histories, split leave-last-out."""
    from llmemf.scenarios.histories import read_histories

    start = time.perf_counter()
    scenario = read_histories(
        file,
        items,
        name,
        None if domains is None else pair(domains, "--domains"),
        None if labels is None else pair(labels, "--labels"),
        repeats.value,
        min_length,
        candidates,
        candidate_seed,
    )
    _save(scenario, data_root, items.parent, overwrite, start)


@import_app.command("sample")
def import_sample(data_root: DataRoot = DEFAULT_ROOT) -> None:
    """Make the embedded sample: two generated domains with texts, covers and offline features."""
    from llmemf.commands.scenario_view import summary
    from llmemf.scenarios.sample import prepare_sample

    start = time.perf_counter()
    scenario = prepare_sample(data_root)
    say(f"{scenario.name} is ready in {scenario.folder} after {time.perf_counter() - start:.1f} s")
    Console(markup=False).print(summary(scenario))
    say(f"next: llmemf data show {scenario.name}{root_option(data_root)}")


@app.command("list")
def list_scenarios(data_root: DataRoot = DEFAULT_ROOT) -> None:
    """List the prepared scenarios."""
    from llmemf.commands.scenario_view import scenario_list

    manifests = {path.parent: _manifest(path) for path in sorted(data_root.glob("*/manifest.json"))}
    if manifests:
        Console(markup=False).print(scenario_list(manifests))
    else:
        say(f"No scenario is prepared in {data_root}; see `llmemf data import --help`.")


@app.command("show")
def show(name: Existing, data_root: DataRoot = DEFAULT_ROOT) -> None:
    """Show what a scenario is, with three histories."""
    from llmemf.commands.scenario_view import example_histories, manifest_facts, summary
    from llmemf.scenarios.scenario import find_scenario

    scenario = find_scenario(name, data_root)
    console = Console(markup=False)
    say(f"{scenario.name}  {scenario.folder}")
    console.print(summary(scenario), manifest_facts(scenario), example_histories(scenario))


@app.command("audit")
def audit(name: Existing, data_root: DataRoot = DEFAULT_ROOT) -> None:
    """Count what a scenario holds and check its evaluation for leaks; exit code 1 if there is one."""
    from llmemf.commands.scenario_view import audit_view
    from llmemf.scenarios.audit import audit as audit_scenario
    from llmemf.scenarios.scenario import find_scenario

    facts = audit_scenario(find_scenario(name, data_root))
    Console(markup=False).print(audit_view(facts))
    for leak in facts.leaks:
        say(f"LEAK: {leak}", error=True)
    if facts.leaks:
        raise typer.Exit(1)
    say("No leak found.")


def _save(scenario, data_root: Path, image_folder: Path, overwrite: bool, start: float) -> None:
    """Write an imported scenario and say what it is and what comes next."""
    from llmemf.commands.scenario_view import summary
    from llmemf.scenarios.images import save_with_images

    target = save_with_images(scenario, data_root, image_folder, overwrite=overwrite)
    say(f"{scenario.name} written to {target} in {time.perf_counter() - start:.1f} s")
    Console(markup=False).print(summary(scenario))
    root = root_option(data_root)
    steps = [f"llmemf data audit {scenario.name}{root}"]
    if (scenario.items[["title", "description", "image"]] != "").any(axis=None):
        steps.insert(0, f"llmemf features offline {scenario.name}{root}")
    else:
        say("note: the items have neither text nor images; train with --set modalities=id")
    for step in steps:
        say(f"next: {step}")


def _manifest(path: Path) -> dict | None:
    """A manifest, None if it is not JSON."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError:
        return None
