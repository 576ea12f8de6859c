"""Reader of the Amazon review releases of 2014, 2018 and 2023: reviews and metadata of two categories to a Scenario.

Download the review file and the metadata file of both categories into one folder; names are as published:

    2014    reviews_Books.json.gz  ratings_Books.csv    meta_Books.json.gz
    2018    Books.json.gz          Books.csv            meta_Books.json.gz
    2023    Books.jsonl.gz         Books.csv.gz         meta_Books.jsonl.gz

A file may also be Parquet with the same fields as columns (Books.parquet, meta_Books.parquet).

`review_files` and `metadata_files` say what is read from them, `preparation` what becomes of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmemf.errors import InputError, nearest
from llmemf.scenarios.interactions import InteractionCollector
from llmemf.scenarios.item_texts import ItemText
from llmemf.scenarios.lines import Progress
from llmemf.scenarios.metadata_files import read_metadata
from llmemf.scenarios.names import check_names
from llmemf.scenarios.preparation import PreparationReport, prepare
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.scenarios.review_files import read_reviews
from llmemf.scenarios.scenario import Scenario

ENDINGS = (".json.gz", ".jsonl.gz", ".csv.gz", ".json", ".jsonl", ".csv", ".parquet")
REVIEW_NAMES = ("reviews_{}", "{}", "reviews_{}_5", "{}_5", "ratings_{}")
METADATA_NAMES = ("meta_{}",)


@dataclass(frozen=True)
class CategoryFiles:
    """The files of one domain; `metadata` None leaves its items without texts and images."""

    reviews: Path
    metadata: Path | None


def find_category(folder: str | Path, category: str) -> CategoryFiles:
    """The files of a category in a folder.

    Raises:
        InputError: there is no review file, or there are several of one kind.
    """
    folder = Path(folder)
    reviews = _one_of(folder, category, REVIEW_NAMES, "review")
    if reviews is None:
        raise InputError(_no_reviews(folder, category))
    return CategoryFiles(reviews, _one_of(folder, category, METADATA_NAMES, "metadata"))


def domain_name(category: str) -> str:
    """A domain's name made of a category's: `Movies_and_TV` gives `movies_and_tv`."""
    return re.sub(r"[^a-z0-9]+", "_", category.lower()).strip("_")


def read_amazon(
    x: CategoryFiles,
    y: CategoryFiles,
    name: str,
    domains: tuple[str, str],
    options: PreparationOptions | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Scenario, PreparationReport]:
    """Read two categories and prepare their scenario.

    All reviews wait on disk until both files are read. Metadata is read last, for the items that are left.

    Args:
        x, y: the files.
        name: name of the new scenario.
        domains: names of X and Y.
        options: see there.
        progress: see `lines`.
        scratch: folder for temporary files, up to 80 bytes per review.
        tell: called with what is done next, where it may take long.

    Raises:
        InputError: a file is missing or too bad, or nothing is left after some step.
    """
    options = options or PreparationOptions()
    check_names(name, domains)
    for path in (x.reviews, y.reviews, x.metadata, y.metadata):
        if path is not None and not path.is_file():
            raise InputError(f"there is no file {path}")
    if x.reviews.resolve() == y.reviews.resolve():
        raise InputError(f"both domains name the file {x.reviews}: two different categories are needed")
    report = PreparationReport()

    def describe(external_ids: list[np.ndarray]) -> Iterator[dict[str, ItemText]]:
        for files, wanted in zip((x, y), external_ids):
            path = files.metadata
            yield read_metadata(report.counts(path, options), wanted, progress) if path else {}

    with InteractionCollector(scratch, options.hash_seed) as collector:
        for domain, files in enumerate((x, y)):
            for columns in read_reviews(report.counts(files.reviews, options), progress):
                collector.add(domain, *columns)
        scenario = prepare(collector, describe, name, domains, options, report, "amazon", tell)
    return scenario, report


def _one_of(folder: Path, category: str, names: tuple[str, ...], kind: str) -> Path | None:
    paths = [folder / (name.format(category) + ending) for name in names for ending in ENDINGS]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        raise InputError(
            f"{folder} has several {kind} files of {category}: {', '.join(path.name for path in found)}; leave one of them "
            "there"
        )
    return found[0] if found else None


def _no_reviews(folder: Path, category: str) -> str:
    """What to say of a category without a file."""
    if not folder.is_dir():
        return f"there is no folder {folder}: download review and metadata files into it"
    present = set()
    for path in folder.iterdir():
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is not None and not path.name.startswith("meta_"):
            stem = path.name.removesuffix(ending).removesuffix("_5")
            present.add(stem.removeprefix("reviews_").removeprefix("ratings_"))
    hint = nearest(category, present) if present else "it holds no review file"
    return f"no reviews of {category!r} in {folder} ({category}.json.gz, .jsonl.gz, .csv, .parquet, reviews_{category}.json.gz): {hint}"
