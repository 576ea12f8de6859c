"""Prepare a scenario from raw reviews, or from a shop's own tables.

llmemf data prepare amazon raw --x Movies_and_TV --y Books --name movie_book --domains movie,book
llmemf data prepare amazon raw --x Grocery_and_Gourmet_Food --y Home_and_Kitchen --max-days 365
llmemf data prepare table orders.csv --items products.csv --name my_shops --columns user=customer,time=bought
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
from llmemf.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Prepare a scenario from raw data: filter, cut windows, split by time.")


class Filter(StrEnum):
    core = "core"
    once = "once"


class Repeats(StrEnum):
    first = "first"
    last = "last"


class Split(StrEnum):
    latest = "latest"
    timeline = "timeline"


MinUser = Annotated[int, typer.Option("--min-user", min=1, help="Interactions a user needs, both domains together.")]
MinItem = Annotated[
    int, typer.Option("--min-item", min=1, help="Interactions an item needs, of users of both domains.")
]
FilterKind = Annotated[
    Filter, typer.Option("--filter", help="Repeat the filter until both hold for what is left, or count once.")
]
RepeatKind = Annotated[
    Repeats, typer.Option("--repeats", help="Of a user's interactions with the same item, which one counts.")
]
MinPerDomain = Annotated[int, typer.Option("--min-per-domain", min=0, help="Items of each domain in a window.")]
MinLength = Annotated[int, typer.Option("--min-length", min=2, help="Items in a window, at least.")]
MaxLength = Annotated[int, typer.Option("--max-length", min=2, help="Items in a window, at most.")]
MaxDays = Annotated[
    float,
    typer.Option(
        "--max-days",
        min=0,
        help="Days from a window's first item to its last, 0 for no limit (published: Movie-Book 30, Food-Kitchen 365).",
    ),
]
SplitKind = Annotated[
    Split,
    typer.Option(
        "--split",
        help="latest: every user's latest window is for validation or test, as published; timeline: the latest "
        "windows of all users are.",
    ),
]
EvalShare = Annotated[
    float, typer.Option("--eval-share", help="Of --split timeline: share of the windows for validation, and for test.")
]
TieKind = Annotated[
    TieBreak,
    typer.Option(
        "--tie-break",
        help="Items of the same time (a day before 2023): shuffled, X before Y as published, or that without the "
        "cases that it decides.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of ties and of the split.")]
MaxBad = Annotated[float, typer.Option("--max-bad-lines", help="Share of a file's lines that may be unusable.")]
HashSeed = Annotated[int, typer.Option("--hash-seed", min=0, help="Another hash of names, should two ever collide.")]


@app.command("amazon")
def prepare_amazon(
    folder: Annotated[Path, typer.Argument(help="Folder with the downloaded review and metadata files.")] = Path("."),
    *,
    x: Annotated[
        str, typer.Option("--x", help="Category of domain X as in the file names, for example Movies_and_TV.")
    ],
    y: Annotated[str, typer.Option("--y", help="Category of domain Y, for example Books.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the new scenario; by default both domains' names.")
    ] = None,
    domains: Annotated[
        str | None,
        typer.Option("--domains", help="Names of X and Y, for example movie,book; by default the categories."),
    ] = None,
    reviews_x: Annotated[Path | None, typer.Option("--reviews-x", help="Review file of X, whatever its name.")] = None,
    reviews_y: Annotated[Path | None, typer.Option("--reviews-y", help="Review file of Y.")] = None,
    meta_x: Annotated[Path | None, typer.Option("--meta-x", help="Metadata file of X.")] = None,
    meta_y: Annotated[Path | None, typer.Option("--meta-y", help="Metadata file of Y.")] = None,
    min_user: MinUser = 10,
    min_item: MinItem = 10,
    filter: FilterKind = Filter.core,
    repeats: RepeatKind = Repeats.first,
    min_per_domain: MinPerDomain = 3,
    min_length: MinLength = 6,
    max_length: MaxLength = 15,
    max_days: MaxDays = 30,
    split: SplitKind = Split.latest,
    eval_share: EvalShare = 0.1,
    tie_break: TieKind = TieBreak.random,
    seed: Seed = 0,
    candidates: Candidates = 999,
    candidate_seed: CandidateSeed = 0,
    max_bad_lines: MaxBad = 0.01,
    hash_seed: HashSeed = 0,
    data_root: DataRoot = DEFAULT_ROOT,
    overwrite: Overwrite = False,
) -> None:
    """Prepare two categories of the Amazon reviews of 2014, 2018 or 2023 (reviews or ratings, and metadata)."""
    from llmemf.scenarios.amazon import domain_name, find_category, read_amazon

    start = time.perf_counter()
    names = (domain_name(x), domain_name(y)) if domains is None else pair(domains, "--domains")
    name = name or "_".join(names)
    options = _options(
        min_user, min_item, filter, repeats, min_per_domain, min_length, max_length, max_days, split, eval_share,
        tie_break, seed, candidates, candidate_seed, max_bad_lines, hash_seed,
    )  # fmt: skip
    files = (find_category(folder, x, reviews_x, meta_x), find_category(folder, y, reviews_y, meta_y))
    _check_free(name, data_root, overwrite)
    for category, one in zip((x, y), files):
        if one.metadata is None:
            say(
                f"note: no meta_{category}.json.gz or meta_{category}.jsonl.gz in {folder}: its items get no titles or "
                "images",
                error=True,
            )
    with _progress() as progress:
        scenario, report = read_amazon(*files, name, names, options, progress, data_root)
    _finish(scenario, report, data_root, folder, overwrite, start)


@app.command("table")
def prepare_table(
    interactions: Annotated[Path, typer.Argument(help="Table of user, item, time, domain: CSV or Parquet.")],
    name: Name,
    items: Annotated[
        Path | None,
        typer.Option("--items", help="Table of item, domain, title, description, categories, image: CSV or Parquet."),
    ] = None,
    domains: Annotated[
        str | None, typer.Option("--domains", help="Names of X and Y; by default the domain column's two values.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="What the domain column calls X and Y; rows of other domains are left out."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Unusual column names, for example user=customer,time=bought.")
    ] = None,
    min_user: MinUser = 10,
    min_item: MinItem = 10,
    filter: FilterKind = Filter.core,
    repeats: RepeatKind = Repeats.first,
    min_per_domain: MinPerDomain = 3,
    min_length: MinLength = 6,
    max_length: MaxLength = 15,
    max_days: MaxDays = 30,
    split: SplitKind = Split.latest,
    eval_share: EvalShare = 0.1,
    tie_break: TieKind = TieBreak.random,
    seed: Seed = 0,
    candidates: Candidates = 999,
    candidate_seed: CandidateSeed = 0,
    max_bad_lines: MaxBad = 0.01,
    hash_seed: HashSeed = 0,
    data_root: DataRoot = DEFAULT_ROOT,
    overwrite: Overwrite = False,
) -> None:
    """Prepare a shop's own interactions of two domains."""
    from llmemf.scenarios.names import check_names
    from llmemf.scenarios.table import read_table

    start = time.perf_counter()
    options = _options(
        min_user, min_item, filter, repeats, min_per_domain, min_length, max_length, max_days, split, eval_share,
        tie_break, seed, candidates, candidate_seed, max_bad_lines, hash_seed,
    )  # fmt: skip
    names = None if domains is None else pair(domains, "--domains")
    check_names(name, names or ("x", "y"))
    _check_free(name, data_root, overwrite)
    with _progress() as progress:
        scenario, report = read_table(
            interactions,
            items,
            name,
            names,
            None if labels is None else pair(labels, "--labels"),
            _assignments(columns),
            options,
            progress,
            data_root,
        )
    _finish(scenario, report, data_root, items.parent if items is not None else Path("."), overwrite, start)


def _options(
    min_user, min_item, filter, repeats, min_per_domain, min_length, max_length, max_days, split, eval_share,
    tie_break, seed, candidates, candidate_seed, max_bad_lines, hash_seed,
):  # fmt: skip
    from llmemf.scenarios.preparation import PreparationOptions
    from llmemf.scenarios.window_cutter import WindowLimits

    return PreparationOptions(
        min_user=min_user,
        min_item=min_item,
        filter=filter.value,
        repeats=repeats.value,
        limits=WindowLimits(min_per_domain, min_length, max_length, max_days or None),
        split=split.value,
        eval_share=eval_share,
        tie_break=tie_break.value,
        seed=seed,
        candidates=candidates,
        candidate_seed=candidate_seed,
        max_bad_lines=max_bad_lines,
        hash_seed=hash_seed,
    )


def _progress():
    from llmemf.commands.reading_progress import ReadingProgress

    return ReadingProgress(Console(markup=False))


def _check_free(name: str, data_root: Path, overwrite: bool) -> None:
    """A name that is taken is told before hours of reading, not after."""
    if (data_root / name).exists() and not overwrite:
        raise InputError(f"scenario {name!r} exists already in {data_root / name}; give --overwrite or another --name")


def _assignments(text: str | None) -> dict[str, str]:
    """Roles and columns from `user=customer,time=bought`."""
    parts = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for role, equals, column in parts:
        if not (role.strip() and equals and column.strip()):
            raise InputError(f"--columns {text!r}: expected role=column, for example user=customer,time=bought")
    return {role.strip(): column.strip() for role, _, column in parts}


def _finish(scenario, report, data_root: Path, image_folder: Path, overwrite: bool, start: float) -> None:
    """Save, and say what became of the data and what comes next."""
    from llmemf.commands.preparation_view import notes, report_view
    from llmemf.commands.scenario_view import summary
    from llmemf.scenarios.images import is_address, save_with_images

    target = save_with_images(scenario, data_root, image_folder, overwrite=overwrite)
    console = Console(markup=False)
    console.print(report_view(report, scenario.domains))
    for note in notes(report):
        say(note)
    say(f"{scenario.name} written to {target} in {time.perf_counter() - start:.1f} s")
    console.print(summary(scenario))
    root = root_option(data_root)
    steps = [f"audit {scenario.name}"]
    say(f"next: llmemf data {steps[0]}{root}")
    if any(is_address(image) for image in scenario.items["image"]):
        say(f"next: llmemf features images {scenario.name}{root}")
    if (scenario.items["title"] != "").any():
        say(f"next: llmemf features enrich {scenario.name}{root}")
    else:
        say("note: the items have no titles; train with --set modalities=id")
