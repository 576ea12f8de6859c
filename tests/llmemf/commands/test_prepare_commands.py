"""`llmemf data prepare` as a user meets it."""

from __future__ import annotations

import gzip
import json

import pytest
from film_book_reviews import BOOKS, FILMS, M1, OPTIONS, at

from llmemf.scenarios.scenario import Scenario

SMALL = (
    "--min-user", 4, "--min-item", 2, "--min-per-domain", 1, "--min-length", 3, "--max-length", 4, "--max-days", 10,
    "--split", "timeline", "--eval-share", OPTIONS.eval_share, "--candidates", 2, "--max-bad-lines", 0.2,
)  # fmt: skip


@pytest.fixture
def raw(tmp_path):
    """The films and books of `test_amazon` as a 2018 release, one line of it broken."""
    folder = tmp_path / "raw files"
    folder.mkdir()
    for name, events in (("Films", FILMS), ("Books", BOOKS)):
        lines = [json.dumps({"reviewerID": u, "asin": i, "unixReviewTime": at(day)}) for u, i, day in events]
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            file.write("\n".join([*lines, "{broken"] if name == "Films" else lines))
    meta = {"asin": M1, "title": "The [red] Balloon", "imageURL": ["https://example.com/1.jpg"], "category": ["Film"]}
    with gzip.open(folder / "meta_Films.json.gz", "wt") as file:
        file.write(json.dumps(meta))
    return folder


def prepare(llmemf, raw, *more):
    return llmemf("data", "prepare", "amazon", raw, "--x", "Films", "--y", "Books", *SMALL, *more)


def test_amazon_says_what_became_of_the_data(llmemf, raw, tmp_path):
    code, out, err = prepare(llmemf, raw)
    assert code == 0
    assert err == f"note: no meta_Books.json.gz, .jsonl.gz or .parquet in {raw}: its items get no titles or images\n"
    words = " ".join(out.split())
    for part in (
        "Films.json.gz 15 1 0",
        "read 14 10",
        "user of one domain alone -2 -1",
        "in the scenario 9 8",
        "1 bad line: neither JSON nor a Python literal",
        f"{raw / 'Films.json.gz'}:15: neither JSON",
        "titles 14.3 % of the items",
        "llmemf features images films_books",
    ):
        assert part in words, part
    scenario = Scenario.load(tmp_path / "data" / "films_books")
    assert scenario.domains == ("films", "books") and scenario.items.title[0] == "The [red] Balloon"
    assert scenario.items.image[0] == "https://example.com/1.jpg" and scenario.items.categories[0] == "Film"
    assert (scenario.source["reader"], scenario.source["min_item"], scenario.source["max_days"]) == ("amazon", 2, 10)
    assert len(scenario.source["files"]) == 3 and all(scenario.source["files"].values())
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["films_books"]

    assert "No leak found." in llmemf("data", "audit", "films_books")[1]
    shown = llmemf("data", "show", "films_books")[1]
    assert "reader amazon" in shown and "categories" in shown
    code, _, err = prepare(llmemf, raw)
    assert code == 2 and "exists already" in err
    assert prepare(llmemf, raw, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--x", "Filmes"), "did you mean 'Films'"),
        (("--domains", "film"), "two names with a comma"),
        (("--domains", "Film,book"), "lower-case"),
        (("--name", "a/b"), "scenario name 'a/b'"),
        (("--name", "a" * 101), "has 101 characters"),
        (("--domains", f"film,{'b' * 101}"), "use 100 at most"),
        (("--max-days", "inf"), "--max-days inf: a number is expected"),
        (("--eval-share", "nan"), "--eval-share nan: a number is expected"),
        (("--min-length", 5), "at most 4 items cannot hold 5"),
        (("--max-bad-lines", 0), "1 of 15 lines cannot be used"),
        (("--max-bad-lines", 1), "--max-bad-lines 1.0"),
        (("--min-user", 50), "lower --min-user"),
    ],
)
def test_mistakes_take_one_line(llmemf, raw, tmp_path, more, part):
    code, _, err = prepare(llmemf, raw, *more)
    errors = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert code == 2 and len(errors) == 1 and errors[0].startswith("error: ") and part in errors[0]
    assert not list((tmp_path / "data").glob("*")) and not list((tmp_path / "data").glob(".*"))


def test_table_takes_images_along(llmemf, tmp_path):
    (tmp_path / "shop" / "covers").mkdir(parents=True)
    (tmp_path / "shop/covers/1.jpg").write_bytes(b"picture")
    rows = [f"{user},{item},{at(day)},film" for user, item, day in FILMS]
    rows += [f"{user},{item},{at(day)},book" for user, item, day in BOOKS]
    (tmp_path / "orders.csv").write_text("kunde,item,time,domain\n" + "\n".join(rows))
    (tmp_path / "shop/items.csv").write_text(f"item,title,image\n{M1},Heat,covers/1.jpg\n")
    code, out, err = llmemf(
        "data", "prepare", "table", "orders.csv", "--items", "shop/items.csv", "--name", "mine",
        "--columns", "user=kunde", *SMALL,
    )  # fmt: skip
    assert (code, err) == (0, "") and "llmemf data audit mine\n" in out
    assert "features images" not in out
    assert (tmp_path / "data/mine/images/0.jpg").read_bytes() == b"picture"
    scenario = Scenario.load(tmp_path / "data/mine")
    assert scenario.domains == ("film", "book") and scenario.items.title[0] == "Heat"
    assert scenario.fingerprint[:16] in out, "that of the images' paths as they were stored"
    code, _, err = llmemf("data", "prepare", "table", "orders.csv", "--name", "other", "--columns", "user")
    assert code == 2 and "expected role=column" in err


def test_a_scenario_with_few_windows_for_training_is_told(llmemf, raw, tmp_path):
    for split in ("timeline", "latest"):
        code, out, _ = prepare(llmemf, raw, "--overwrite", "--split", split)
        scenario = Scenario.load(tmp_path / "data" / "films_books")
        told = [line for line in out.splitlines() if line.startswith("note: only ") and "--split timeline" in line]
        few = len(scenario.train) < len(scenario.valid) + len(scenario.test)
        assert code == 0 and len(told) == (split == "latest" and few), split
    assert f"only {len(scenario.train)} of {len(scenario.train) + len(scenario.valid) + len(scenario.test)}" in told[0]
