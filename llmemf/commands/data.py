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

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from llmemf.command_line import command_line
from llmemf.commands import prepare
from llmemf.commands.boundary import App
from llmemf.commands.data_options import DEFAULT_ROOT, DataRoot, Name, Prepared, Target, hint, pair, say, show
from llmemf.commands.shared_options import shared_options
from llmemf.errors import InputError
from llmemf.scenarios.reader_options import HistoryOptions, WindowOptions
from llmemf.text_format import json_text

app = App(no_args_is_help=True, help="Prepare and inspect scenarios.")
import_app = App(no_args_is_help=True, help="Bring raw data into a scenario.")
app.add_typer(import_app, name="import")
app.add_typer(prepare.app, name="prepare")


@import_app.command("windows")
@shared_options(options=WindowOptions, target=Target)
def import_windows(
    folder: Annotated[Path, typer.Argument(help="Folder with the published files.")],
    name: Name,
    domains: Annotated[str, typer.Option("--domains", help="Names of X and Y, for example movie,book.")],
    target: Target,
    options: WindowOptions,
) -> None:
    """Import published windows.

    Item lists, sequence files, user list, and items.tsv if there is one.
    """
    from llmemf.scenarios.windows import read_windows

    names = pair(domains, "--domains")
    target.check(name)
    target.save(read_windows(folder, name, names, options), folder)


@import_app.command("histories")
@shared_options(options=HistoryOptions, target=Target)
def import_histories(
    file: Annotated[Path, typer.Argument(help="One user per line: USER, then the items, oldest first.")],
    items: Annotated[
        Path,
        typer.Option("--items", help="Item table: id, domain, external id, title, description, image."),
    ],
    name: Name,
    target: Target,
    options: HistoryOptions,
    domains: Annotated[
        str | None,
        typer.Option("--domains", help="Names of X and Y, for example toy,game.  [default: the item table's]"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="What the item table calls X and Y where that is not their names.  [default: their names]"
        ),
    ] = None,
) -> None:
    """Import plain histories, split leave-last-out."""
    from llmemf.scenarios.histories import read_histories

    names = None if domains is None else pair(domains, "--domains")
    found = None if labels is None else pair(labels, "--labels")
    target.check(name)
    target.save(read_histories(file, items, name, names, found, options), items.parent)


@import_app.command("sample")
def import_sample(data_root: DataRoot = DEFAULT_ROOT) -> None:
    """Make the embedded sample.

    Two generated domains with texts, covers and offline features.
    """
    from llmemf.commands.scenario_view import summary
    from llmemf.scenarios.sample import prepare_sample

    start = time.perf_counter()
    scenario = prepare_sample(data_root)
    say(f"{scenario.name} is ready in {scenario.folder} after {time.perf_counter() - start:.1f} s")
    show(summary(scenario))
    say(f"next: {hint(data_root, 'data', 'show', scenario.name)}")


@app.command("list")
def list_scenarios(data_root: DataRoot = DEFAULT_ROOT) -> None:
    """List the prepared scenarios."""
    from llmemf.commands.scenario_view import scenario_list
    from llmemf.scenarios.manifest import MANIFEST, Manifest, read_manifest

    manifests: dict[Path, Manifest | None] = {}
    notes: list[str] = []
    for folder in sorted(path.parent for path in data_root.glob(f"*/{MANIFEST}")):
        try:
            manifests[folder] = read_manifest(folder)
        except InputError as error:
            manifests[folder] = None
            notes.append(f"note: {error}")
    if manifests:
        show(scenario_list(manifests))
    else:
        say(f"No scenario is prepared in {data_root}; see `{command_line('data', '--help')}`.")
    for note in notes:
        say(note, error=True)


@app.command("show")
@shared_options(prepared=Prepared)
def show_scenario(prepared: Prepared) -> None:
    """Show what a scenario is, with three histories."""
    from llmemf.commands.scenario_view import example_histories, manifest_facts, summary

    scenario = prepared.load()
    say(f"{scenario.name}  {scenario.folder}")
    show(summary(scenario), manifest_facts(scenario), example_histories(scenario))


@app.command("audit")
@shared_options(prepared=Prepared)
def audit(
    prepared: Prepared,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead.")] = False,
) -> None:
    """Count what a scenario holds and check its evaluation for leaks.

    The exit code is 1 if there is one.
    """
    from llmemf.commands.scenario_view import audit_view
    from llmemf.scenarios.audit import audit as audit_scenario

    facts = audit_scenario(prepared.load())
    if as_json:
        typer.echo(json_text(dataclasses.asdict(facts)))
        raise typer.Exit(1 if facts.leaks else 0)
    show(audit_view(facts))
    for note in facts.absent:
        say(f"note: {note}")
    for leak in facts.leaks:
        say(f"LEAK: {leak}", error=True)
    if facts.leaks:
        raise typer.Exit(1)
    say("No leak found.")
