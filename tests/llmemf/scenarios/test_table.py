"""A shop's own tables, CSV and Parquet, to the scenario that was worked out by hand in `test_amazon`."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime

import pandas as pd
import pytest
from film_book_reviews import ANN, B1, BOB, BOOKS, CID, DROPPED, FILMS, M1, M3, OPTIONS, at, check

from llmemf.errors import InputError
from llmemf.scenarios.loose_records import NO_TIME
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.table import read_table

# In a shop's own tables an item of both domains is two items, so that reason never appears.
EXPECTED = {reason: count for reason, count in DROPPED.items() if reason != "item is also in X"}
TEXTS = {
    M1: ("Heat; the film", "Two\nmen", "Film > Action", "covers/heat.jpg"),
    M3: ("Ran", "", "", "https://example.com/ran.png"),
    B1: ('"Emma"', "", "", ""),
}
CHECKED = TEXTS | {M1: ("Heat; the film", "Two men", "Film > Action", "covers/heat.jpg")}


def interactions(time=at) -> pd.DataFrame:
    rows = [(user, item, time(day), "Film") for user, item, day in FILMS]
    rows += [(user, item, time(day), "BOOK") for user, item, day in BOOKS]
    return pd.DataFrame(rows, columns=["user", "item", "time", "domain"])


def item_table() -> pd.DataFrame:
    rows = [("Book" if item == B1 else "film", item, *texts) for item, texts in TEXTS.items()]
    rows.append(("book", M1, "the book of that number, another item", "", "", ""))
    return pd.DataFrame(rows, columns=["shop", "sku", "name", "description", "categories", "image"])


def numbered(items: pd.Series) -> pd.Series:
    """Ids as whole numbers."""
    return items.map({item: 100 + place for place, item in enumerate(sorted(set(items)))})


def test_whole_numbers_of_a_column_of_floats_are_ids(tmp_path):
    table = interactions()
    table.assign(item=numbered(table.item).astype(float)).to_parquet(tmp_path / "i.parquet")
    scenario, _ = read_table(tmp_path / "i.parquet", None, "tiny", ("film", "book"), options=OPTIONS)
    assert all(name.isdecimal() for name in scenario.items.external_id)
    table.assign(item=numbered(table.item) + 0.5).to_parquet(tmp_path / "i.parquet")
    with pytest.raises(InputError, match="number with a fraction"):
        read_table(tmp_path / "i.parquet", None, "tiny", ("film", "book"), options=OPTIONS)


@pytest.mark.parametrize(("form", "other"), [("{}.0", "{}"), ("{}", "{}.0")])
def test_ids_that_one_table_writes_as_floats_are_the_same_items(tmp_path, form, other):
    table = interactions()
    numbers = numbered(table.item).astype(str)
    table.assign(item=numbers.map(other.format)).to_csv(tmp_path / "i.csv", index=False)
    names = pd.DataFrame({"item": numbers.map(form.format), "title": "x", "domain": table.domain})
    names.to_csv(tmp_path / "t.csv", index=False)
    scenario, _ = read_table(tmp_path / "i.csv", tmp_path / "t.csv", "tiny", ("film", "book"), options=OPTIONS)
    assert (scenario.items.title == "x").all() and all(name.isdecimal() for name in scenario.items.external_id)


def test_users_whose_names_look_like_missing_values_stay_apart(tmp_path):
    table = interactions()
    table["user"] = table.user.map({ANN: "NaN", BOB: "nan", CID: "None"}).fillna("NA")
    table.to_csv(tmp_path / "i.csv", index=False)
    scenario, _ = read_table(tmp_path / "i.csv", None, "tiny", ("film", "book"), options=OPTIONS)
    folder = scenario.save(tmp_path)
    assert sorted(Scenario.load(folder).user_ids) == ["NaN", "None", "nan"]


def test_labels_that_give_no_name_need_one(tmp_path):
    table = interactions()
    table["domain"] = table.domain.map({"Film": "\U0001f3ac", "BOOK": "\U0001f4da"})
    table.to_csv(tmp_path / "i.csv", index=False)
    with pytest.raises(InputError, match="--domains movie,book --labels \U0001f3ac,\U0001f4da"):
        read_table(tmp_path / "i.csv", None, "tiny", options=OPTIONS)
    labels = ("\U0001f3ac", "\U0001f4da")
    scenario, _ = read_table(tmp_path / "i.csv", None, "tiny", ("film", "book"), labels, options=OPTIONS)
    check(scenario, {})


def test_a_cell_may_be_longer_than_pythons_own_limit(tmp_path):
    interactions().to_csv(tmp_path / "i.csv", index=False)
    pd.DataFrame({"item": [M1], "description": ["x" * 200_000]}).to_csv(tmp_path / "t.csv", index=False)
    scenario, _ = read_table(tmp_path / "i.csv", tmp_path / "t.csv", "tiny", ("film", "book"), options=OPTIONS)
    assert scenario.items.description.str.len().max() == 200_000


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(tmp_path, separator):
    interactions().to_csv(tmp_path / "i.csv", index=False, sep=separator)
    item_table().to_csv(tmp_path / "t.csv", index=False, sep=separator, quoting=csv.QUOTE_ALL)
    scenario, report = read_table(
        tmp_path / "i.csv", tmp_path / "t.csv", "tiny", labels=("film", "book"), options=OPTIONS
    )
    check(scenario, CHECKED)
    assert report.dropped == EXPECTED and scenario.source["labels"] == ["film", "book"]


@pytest.mark.parametrize("kind", ["timestamp", "date", "milliseconds"])
def test_parquet(tmp_path, kind):
    def moment(day):
        time = datetime.fromtimestamp(at(day), UTC)
        return {"timestamp": time, "date": time.date(), "milliseconds": at(day) * 1000}[kind]

    interactions(moment).to_parquet(tmp_path / "i.parquet")
    table = item_table()
    table["categories"] = [["Film", "Action"] if item == M1 else [] for item in table["sku"]]
    table.to_parquet(tmp_path / "t.parquet")
    scenario, report = read_table(
        tmp_path / "i.parquet", tmp_path / "t.parquet", "tiny", ("film", "book"), options=OPTIONS
    )
    check(scenario, CHECKED)
    assert report.dropped == EXPECTED


def test_other_column_names_and_the_domain_in_the_item_table(tmp_path):
    table = interactions().drop(columns="domain").rename(columns={"user": "Kunde", "time": "Datum", "item": "Artikel"})
    table["Datum"] = [datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for time in table["Datum"]]
    with gzip.open(tmp_path / "i.csv.gz", "wt") as file:
        table.to_csv(file, index=False)
    items = interactions()[["item", "domain"]].drop_duplicates()
    items[items.item != "B0000000M5"].to_csv(tmp_path / "t.csv", index=False)
    scenario, report = read_table(
        tmp_path / "i.csv.gz",
        tmp_path / "t.csv",
        "tiny",
        ("film", "book"),
        columns={"user": "kunde", "time": "Datum", "item": "Artikel"},
        options=OPTIONS,
    )
    check(scenario, {})
    assert report.facts["rows item has no domain in the item table"] == 2


def test_bad_rows_are_counted_with_their_lines(tmp_path):
    table = interactions()
    text = (
        table.to_csv(index=False)
        + f"{BOB},,1,Film\n{BOB},x,yesterday,Film\n{BOB},x,{at(1)},\na,b\n{BOB},toy,{at(1)},Toy\n"
    )
    (tmp_path / "i.csv").write_text(text)
    scenario, report = read_table(tmp_path / "i.csv", None, "tiny", ("film", "book"), options=OPTIONS)
    check(scenario, {})
    assert report.files[0].bad == {
        "no item": 1,
        NO_TIME: 1,
        "no domain": 1,
        "not 4 cells": 1,
    }
    assert report.files[0].first_bad[0].startswith(f"{tmp_path / 'i.csv'}:26: no item")
    assert report.facts["rows of another domain"] == 1
    strict = PreparationOptions(**(vars(OPTIONS) | {"max_bad_lines": 0.1}))
    with pytest.raises(InputError, match="4 of 29 lines cannot be used .*i.csv:26: no item"):
        read_table(tmp_path / "i.csv", None, "tiny", ("film", "book"), options=strict)


def test_a_third_domain_needs_labels(tmp_path):
    table = interactions()
    table.loc[len(table)] = ["u", "i", at(0), "Toy"]
    table.to_csv(tmp_path / "i.csv", index=False)
    with pytest.raises(InputError, match="i.csv:26: a third domain 'Toy' after 'Film' and 'BOOK'.*--labels"):
        read_table(tmp_path / "i.csv", None, "tiny", options=OPTIONS)
    scenario, _ = read_table(tmp_path / "i.csv", None, "tiny", labels=("BOOK", "film"), options=OPTIONS)
    assert scenario.domains == ("book", "film") and scenario.num_x == 3


def test_wrong_tables_are_told(tmp_path):
    path = tmp_path / "i.csv"

    def fails(match, columns=None, items=None):
        with pytest.raises(InputError, match=match):
            read_table(path, items, "tiny", columns=columns, options=OPTIONS)

    fails("cannot read .*i.csv")
    interactions().to_csv(path, index=False)
    fails("--columns user=usr: no such column in .*i.csv; did you mean 'user'", {"user": "usr"})
    fails("no such role; roles are user, item", {"person": "user"})
    interactions().drop(columns="time").to_csv(path, index=False)
    fails("no column for the time .looked for time, timestamp.*--columns time=")
    interactions().drop(columns="domain").to_csv(path, index=False)
    fails("has no domain column: name it with --columns domain=")
    fails("no column for the domain", items=path)
    interactions().query("domain == 'Film'").to_csv(path, index=False)
    fails("two domains are needed, found rows of 'Film'")
    path.write_bytes(b"PAR1 but no more")
    fails("no readable Parquet file")
    path.write_text('user,item,time,domain\na,b,1,Film\na,"b,1,Film\n' + "a,b,1,Film\n" * 3)
    fails("i.csv:3: a quote is not closed")


def test_a_last_line_that_was_cut_off_in_a_quote_is_one_bad_row(tmp_path):
    (tmp_path / "i.csv").write_text(interactions().to_csv(index=False) + f'{BOB},"{M1},1')
    scenario, report = read_table(tmp_path / "i.csv", None, "tiny", ("film", "book"), options=OPTIONS)
    check(scenario, {})
    assert report.files[0].bad == {"not 4 cells": 1} and "i.csv:26:" in report.files[0].first_bad[0]


def test_a_long_cell_is_a_cell(tmp_path):
    """Longer than the 131,072 characters that Python's csv module allows by itself."""
    interactions().to_csv(tmp_path / "i.csv", index=False)
    table = item_table()
    table.loc[table["sku"] == B1, "description"] = "long " * 40_000
    table.to_csv(tmp_path / "t.csv", index=False)
    scenario, _ = read_table(tmp_path / "i.csv", tmp_path / "t.csv", "tiny", ("film", "book"), options=OPTIONS)
    check(scenario, CHECKED | {B1: ('"Emma"', ("long " * 40_000).strip(), "", "")})


@pytest.mark.parametrize("image", ["/etc/passwd", "../../../../etc/passwd", "covers/../../heat.jpg"])
def test_an_image_outside_the_folder_of_the_table_is_refused(tmp_path, image):
    interactions().to_csv(tmp_path / "i.csv", index=False)
    table = item_table()
    table.loc[table["sku"] == M1, "image"] = image
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=rf"t.csv:3: .*'{image}'"):
        read_table(tmp_path / "i.csv", tmp_path / "t.csv", "tiny", ("film", "book"), options=OPTIONS)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_names_that_look_like_missing_values_are_names(tmp_path, ending):
    table = interactions().replace({"user": {ANN: "NaN", BOB: "None", CID: "nan"}, "item": {M1: "NA"}})
    path = tmp_path / f"i.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    scenario, _ = read_table(path, None, "tiny", ("film", "book"), options=OPTIONS)
    loaded = Scenario.load(scenario.save(tmp_path / "data"))
    assert loaded.user_ids.tolist() == ["NaN", "None", "nan"]
    assert loaded.items["external_id"].tolist()[3] == "NA"


def test_what_follows_the_reading_is_told_with_the_number_of_interactions(tmp_path):
    interactions().to_csv(tmp_path / "i.csv", index=False)
    told = []
    read_table(tmp_path / "i.csv", None, "tiny", ("film", "book"), options=OPTIONS, tell=told.append)
    (line,) = told
    assert f" {len(interactions()):,} " in line
