"""Prepare a scenario from raw reviews, or from a shop's own tables.

llmemf data prepare amazon raw --x Movies_and_TV --y Books --name movie_book --domains movie,book
llmemf data prepare amazon raw --x Grocery_and_Gourmet_Food --y Home_and_Kitchen --max-days 365
llmemf data prepare table orders.csv --items products.csv --name my_shops --columns user=customer,time=bought
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from llmemf.commands.boundary import App
from llmemf.commands.data_options import Name, Target, pair, say, show
from llmemf.commands.progress import ProgressLine
from llmemf.commands.shared_options import shared_options
from llmemf.errors import InputError
from llmemf.scenarios.names import check_names
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.text_format import plural

if TYPE_CHECKING:
    from llmemf.scenarios.preparation import PreparationReport
    from llmemf.scenarios.scenario import Scenario

app = App(no_args_is_help=True, help="Filter raw data, cut windows, split by time.")


@app.command("amazon")
@shared_options(options=PreparationOptions, target=Target)
def prepare_amazon(
    folder: Annotated[Path, typer.Argument(help="Folder with the downloaded review and metadata files.")] = Path(),
    *,
    x: Annotated[
        str, typer.Option("--x", help="Category of domain X as in the file names, for example Movies_and_TV.")
    ],
    y: Annotated[str, typer.Option("--y", help="Category of domain Y, for example Books.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the new scenario.  [default: X_Y]")] = None,
    domains: Annotated[
        str | None,
        typer.Option("--domains", help="Names of X and Y, for example movie,book.  [default: the categories]"),
    ] = None,
    options: PreparationOptions,
    target: Target,
) -> None:
    """Prepare two categories of the Amazon reviews.

    Of 2014, 2018 or 2023: reviews or ratings, and metadata.
    """
    from llmemf.scenarios.amazon import domain_name, find_category, read_amazon

    names = (domain_name(x), domain_name(y)) if domains is None else pair(domains, "--domains")
    name = name or "_".join(names)
    files = (find_category(folder, x), find_category(folder, y))
    target.check(name)
    for category, one in zip((x, y), files):
        if one.metadata is None:
            say(
                f"note: no meta_{category}.json.gz, .jsonl.gz or .parquet in {folder}: its items get no titles or "
                "images",
                error=True,
            )
    with ProgressLine() as line:
        scenario, report = read_amazon(*files, name, names, options, line.show_file, target.data_root, line.begin)
    _finish(scenario, report, target, folder)


@app.command("table")
@shared_options(options=PreparationOptions, target=Target)
def prepare_table(
    interactions: Annotated[Path, typer.Argument(help="Table of user, item, time, domain: CSV or Parquet.")],
    name: Name,
    options: PreparationOptions,
    target: Target,
    items: Annotated[
        Path | None,
        typer.Option(
            "--items",
            help="Table of item, domain, title, description, categories, image: CSV or Parquet.  [default: none]",
        ),
    ] = None,
    domains: Annotated[
        str | None, typer.Option("--domains", help="Names of X and Y.  [default: the domain column's two values]")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="What the domain column calls X and Y; rows of other domains are left out.  [default: its two values]",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Unusual column names, for example user=customer,time=bought.  [default: found by usual names]",
        ),
    ] = None,
) -> None:
    """Prepare a shop's own interactions of two domains."""
    from llmemf.scenarios.table import read_table

    names = None if domains is None else pair(domains, "--domains")
    found = None if labels is None else pair(labels, "--labels")
    check_names(name, names or ("x", "y"))
    target.check(name)
    with ProgressLine() as line:
        scenario, report = read_table(
            interactions,
            items,
            name,
            names,
            found,
            _assignments(columns),
            options,
            line.show_file,
            target.data_root,
            line.begin,
        )
    _finish(scenario, report, target, items.parent if items is not None else Path())


def _assignments(text: str | None) -> dict[str, str]:
    """Roles and columns from `user=customer,time=bought`."""
    parts = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for role, equals, column in parts:
        if not (role.strip() and equals and column.strip()):
            raise InputError(f"--columns {text!r}: expected role=column, for example user=customer,time=bought")
    return {role.strip(): column.strip() for role, _, column in parts}


def _finish(scenario: Scenario, report: PreparationReport, target: Target, image_folder: Path) -> None:
    """Say what became of the data, write the scenario, and say what may follow."""
    from llmemf.scenarios.images import is_address

    show(*_tables(report, scenario.domains))
    for note in _notes(report):
        say(note)
    train, cases = len(scenario.train), len(scenario.valid) + len(scenario.test)
    if train < cases and scenario.source["split"] == "latest":
        say(
            f"note: only {train:,} of {train + cases:,} windows are for training, as the latest one of every user is not: "
            "`--split timeline` keeps only the latest of all windows for validation and test"
        )
    others = []
    if any(is_address(image) for image in scenario.items["image"]):
        others.append(("features", "images", scenario.name))
    if (scenario.items["title"] != "").any():
        others.append(("features", "enrich", scenario.name))
    target.save(scenario, image_folder, *others)


def _tables(report: PreparationReport, domains: tuple[str, str]) -> tuple[Table, Table]:
    """Files with their bad lines, then the way from all interactions to those of the scenario."""
    from llmemf.commands.scenario_view import facts_table

    files, steps = facts_table("files", ("lines", "bad", "mended")), facts_table("interactions", domains)
    for one in report.files:
        files.add_row(one.path.name, f"{one.lines:,}", f"{one.num_bad:,}", f"{sum(one.mended.values()):,}")
    steps.add_row("read", *(f"{count:,}" for count in report.read))
    for reason, counts in report.dropped.items():
        if any(counts):
            steps.add_row(f"  {reason}", *(f"-{count:,}" if count else "0" for count in counts))
    steps.add_row("in the scenario", *(f"{count:,}" for count in report.left), style="bold")
    return files, steps


def _notes(report: PreparationReport) -> list[str]:
    """What a user must know beside the tables: bad and mended lines with examples, rows that were left out."""
    lines = []
    for one in report.files:
        for reason, count in one.bad.most_common():
            lines.append(f"{one.path.name}: {plural(count, 'bad line')}: {reason}")
        lines += [f"  {example}" for example in one.first_bad]
        for what, count in one.mended.most_common():
            lines.append(f"{one.path.name}: {plural(count, 'line')} mended: {what}")
    for key, value in report.facts.items():
        if key.startswith("rows ") and value:
            lines.append(f"{plural(value, 'row')} left out: {key.removeprefix('rows ')}")
    return lines
