"""Raw files of every Amazon release, with the oddities of the real ones, to a scenario that was worked out by hand."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from film_book_reviews import (
    ANN,
    B1,
    B3,
    BOB,
    BOOKS,
    CID,
    DAN,
    DROPPED,
    FILMS,
    M1,
    M2,
    M3,
    M4,
    OPTIONS,
    START,
    at,
    check,
)

from llmemf.errors import InputError
from llmemf.scenarios.amazon import CategoryFiles, domain_name, find_category, read_amazon
from llmemf.scenarios.preparation import PreparationReport
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.scenarios.scenario import Scenario

RNG = np.random.default_rng(0)


def pack(path: Path, lines: list[bytes | str]) -> Path:
    """A gzip of lines."""
    raw = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(raw))
    return path


def write_ratings(folder: Path, films: list, books: list) -> Path:
    """Ratings of both categories without a header; returns their folder."""
    for name, events in (("Films", films), ("Books", books)):
        lines = (f"{user},{item},5,{at(day)}\n" for user, item, day in events)
        (folder / f"{name}.csv").write_text("".join(lines))
    return folder


def prepared(folder: Path, scratch: Path | None = None, **changes) -> tuple[Scenario, PreparationReport]:
    """The scenario of the folder's Films and Books; `changes` of the options."""
    options = dataclasses.replace(OPTIONS, **changes)
    files = (find_category(folder, name) for name in ("Films", "Books"))
    return read_amazon(*files, "tiny", ("film", "book"), options, scratch=scratch)


def test_release_2014_json_and_python_literals(tmp_path):
    def review(user, item, day, **more):
        return {
            "reviewerID": user,
            "asin": item,
            "reviewerName": 'J. "Bo" O\'Neill',
            "helpful": [2, 3],
            "reviewText": 'He said: {"asin": "XXXXXXXXXX"}, don\'t\n',
            "overall": 5.0,
            "summary": "",
            "unixReviewTime": at(day),
            "reviewTime": "01 01, 2010",
        } | more

    films = [json.dumps(review(*event)) for event in FILMS]
    films[3] = json.dumps(review(ANN, M2, 2, unixReviewTime=str(at(2))))
    films[4] = json.dumps({"reviewerID": BOB, "asin": M1, "reviewTime": "01 6, 2010"})
    films[5] = json.dumps(review(BOB, [M2], 7, unixReviewTime=float(at(7))))
    films[6] = json.dumps(review(CID, M1, 11)).encode().replace(b"helpful", b"caf\xe9 \xc3\xa9")
    films[7] = json.dumps(review(CID, M4, 13, summary="\\N")).replace("\\\\N", "\\N")
    films += ["", "   ", json.dumps(review("\\N", M1, 8)), json.dumps(review(BOB, None, 8))]
    films += [json.dumps(review(CID, M1, 0, unixReviewTime=-5)), '{"reviewerID": "cut off', "null"]
    books = [repr(review(*event)) for event in BOOKS]
    books += [repr(review(ANN, B1, 9)).replace("J. ", "\\N"), "{'reviewerID': open('/etc/passwd')}", "{'asin': "]
    films_path = pack(tmp_path / "reviews_Films.json.gz", films)
    pack(tmp_path / "reviews_Books.json.gz", books)
    meta = [
        {
            "asin": M1,
            "title": "Kicking &amp;amp; Screaming &lt;b&gt;(DVD)&lt;/b&gt;",
            "price": 5.0,
            "imUrl": "http://ecx.images-amazon.com/images/I/51.jpg",
            "related": {"also_bought": [M2, "B000000099"]},
            "salesRank": {"Movies & TV": 12},
            "categories": [["Movies & TV", "Movies"], ["Movies & TV", "Gifts", "\\N"]],
            "description": "One\n<br/>two   three",
        },
        {"asin": M2, "imUrl": "http://g-ecx.images-amazon.com/images/G/01/icons/no-img-sm.gif", "title": "\\N"},
        {"asin": M3, "title": ["A list", "A list", "of two"], "categories": "Movies", "description": None},
        {"asin": "B000000099", "title": "not wanted"},
    ]
    pack(tmp_path / "meta_Films.json.gz", [*map(repr, meta), "{'asin': 'B0000000M4', 'title': ", "garbage"])
    pack(tmp_path / "meta_Books.json.gz", [json.dumps({"asin": B3, "title": 'It\'s "B3"', "description": ["a", "b"]})])

    scenario, report = prepared(tmp_path)
    check(
        scenario,
        {
            M1: (
                "Kicking & Screaming (DVD)",
                "One two three",
                "Movies & TV > Movies | Movies & TV > Gifts",
                "http://ecx.images-amazon.com/images/I/51.jpg",
            ),
            M3: ("A list of two", "", "Movies", ""),
            B3: ('It\'s "B3"', "a b", "", ""),
        },
    )
    # One of ann's book lines only repeats B1.
    assert report.dropped == DROPPED | {"item taken again, the first counts": (1, 1)}
    assert (report.read, report.left) == ((14, 11), (9, 8))
    of_films, of_books, of_meta, _ = report.files
    assert (of_films.lines, of_books.lines, of_meta.lines) == (19, 13, 6)
    assert dict(of_films.bad) == {
        "no user": 1,
        "no item": 1,
        "time out of range 1970..2099": 1,
        "neither JSON nor a Python literal": 1,
        "not a record of names and values": 1,
    }
    assert of_films.first_bad[0].startswith(f'{films_path}:17: no user: \'{{"reviewerID"')
    assert [text.split(": ")[0].rsplit(":", 1)[1] for text in of_films.first_bad] == ["17", "18", "19"]
    assert sum(of_films.mended.values()) == 2 and of_books.num_bad == 2
    assert of_meta.num_bad == 2


def test_release_2018_lists_and_strings(tmp_path):
    def review(user, item, day, **more):
        return {
            "overall": 4.0,
            "vote": "1,204",
            "verified": True,
            "reviewTime": "01 1, 2010",
            "reviewerID": user,
            "asin": item,
            "style": {"Format:": " Hardcover"},
            "image": ["https://images-na.ssl-images-amazon.com/images/I/71._SY88.jpg"],
            "unixReviewTime": at(day),
        } | more

    films = [json.dumps(review(*event)) for event in FILMS]
    films += [json.dumps(review(DAN, f"B00000X{number:03d}", 3, reviewText=RNG.bytes(40).hex())) for number in range(9)]
    pack(tmp_path / "Films.json.gz", films)
    books = [json.dumps(review(*event)) for event in BOOKS]
    pack(tmp_path / "Books_5.json.gz", books)
    address = "https://images-na.ssl-images-amazon.com/images/I/"
    meta = [
        {"asin": M1, "title": "First", "category": ["Movies &amp; TV", "Movies", "</span></span></span>"]},
        {"asin": M1, "title": "Second record", "description": ["", "filled <i>in</i>", "filled in"], "price": "$3.17"},
        {"asin": M2, "title": "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();", "brand": "X"},
        {"asin": M3, "title": 1917, "imageURL": [address + "a._SS40_.jpg"], "imageURLHighRes": [address + "a.jpg"]},
        {"asin": M4, "title": "T\u00ebst \ud800", "image": address + "4.jpg", "category": [], "description": "x" * 9},
    ]
    pack(tmp_path / "meta_Films.json.gz", [json.dumps(one) for one in meta])
    books_meta = [{"asin": B1, "title": {"no": "string"}, "imageURL": address + "b.jpg", "imageURLHighRes": "\\N"}]
    pack(tmp_path / "meta_Books.json.gz", [json.dumps(one) for one in books_meta])
    scenario, report = prepared(tmp_path)
    check(
        scenario,
        {
            M1: ("First", "filled in", "Movies & TV > Movies", ""),
            M3: ("1917", "", "", address + "a.jpg"),
            M4: ("Tëst ?", "xxxxxxxxx", "", address + "4.jpg"),
            B1: ("", "", "", address + "b.jpg"),
        },
    )
    assert report.files[0].num_bad == 0 and len(report.files[0].sha256) == 64
    assert report.dropped["user of one domain alone"][0] >= 2


def test_release_2023_parents_and_milliseconds(tmp_path):
    def review(user, item, day):
        return {
            "rating": 5.0,
            "title": "&lt;br&gt;",
            "text": "fine",
            "images": [{"small_image_url": "https://m.media-amazon.com/images/I/s.jpg"}],
            "asin": "B0VARIANT1",
            "parent_asin": item,
            "user_id": user,
            "timestamp": at(day) * 1000 + 999,
            "helpful_vote": 0,
            "verified_purchase": True,
        }

    films = [review(*event) for event in FILMS]
    films[0]["parent_asin"], films[0]["asin"] = None, M1
    del films[9]["parent_asin"]
    films[9]["asin"] = M3
    pack(tmp_path / "Films.jsonl.gz", [json.dumps(one) for one in films])
    (tmp_path / "Books.jsonl").write_text("\ufeff" + "".join(json.dumps(review(*event)) + "\r\n" for event in BOOKS))
    media = "https://m.media-amazon.com/images/I/"
    meta = [
        {
            "main_category": "Movies & TV",
            "title": "Heat",
            "average_rating": 4.5,
            "features": ["x"],
            "description": ["Two ", " men"],
            "price": None,
            "images": [
                {"thumb": media + "t0.jpg", "large": media + "l0.jpg", "variant": "PT01", "hi_res": None},
                {"thumb": media + "t.jpg", "large": None, "variant": "MAIN", "hi_res": media + "h.jpg"},
            ],
            "categories": ["Movies & TV", "Action"],
            "details": {"asin": M2},
            "parent_asin": M1,
        },
        {
            "title": "Ran",
            "images": {"hi_res": [None, media + "h2.jpg"], "large": [media + "l2.jpg"]},
            "parent_asin": M2,
        },
        {"title": "", "main_category": "All", "images": [], "categories": [], "parent_asin": M3, "price": "from 14.99"},
    ]
    (tmp_path / "meta_Films.jsonl").write_text("".join(json.dumps(one) + "\n" for one in meta))
    scenario, report = prepared(tmp_path)
    check(
        scenario,
        {
            M1: ("Heat", f"Two men x asin: {M2}", "Movies & TV > Action", media + "h.jpg"),
            M2: ("Ran", "", "", media + "l2.jpg"),
            M3: ("", "", "All", ""),
        },
    )
    assert report.dropped == DROPPED
    assert [one.num_bad for one in report.files] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["whole", "float times", "dates"])
def test_release_2023_as_parquet(tmp_path, kind):
    def moment(day):
        time = pd.Timestamp(at(day), unit="s")
        return {"whole": at(day) * 1000, "float times": float(at(day)), "dates": time}[kind]

    for name, events in (("Films", FILMS), ("Books", BOOKS)):
        rows = [(user, item, "B0VARIANT1", moment(day)) for user, item, day in events]
        table = pd.DataFrame(rows, columns=["user_id", "parent_asin", "asin", "timestamp"])
        table.to_parquet(tmp_path / f"{name}.parquet")
    media = "https://m.media-amazon.com/images/I/"
    meta = pd.DataFrame(
        {
            "parent_asin": [M1, M2, "B0UNWANTED"],
            "title": ["None", "Ran", "x"],
            "features": [["Widescreen", "None"], [], []],
            "description": [["[]"], ["Two men"], []],
            "details": [json.dumps({"Brand:": "Lego", "Rank": {"Toys": 3}, "Colour": "[]"}), "{broken", "{}"],
            "images": [{"large": [media + "l.jpg"], "hi_res": [None]}, {"large": [None], "hi_res": [None]}, None],
        }
    )
    meta.to_parquet(tmp_path / "meta_Films.parquet")
    scenario, report = prepared(tmp_path)
    check(
        scenario,
        {M1: ("", "Widescreen Brand: Lego", "", media + "l.jpg"), M2: ("Ran", "Two men", "", "")},
    )
    assert report.dropped == DROPPED and [one.lines for one in report.files] == [len(FILMS), len(BOOKS), 3]
    assert all(one.sha256 for one in report.files)


def test_parquet_without_the_columns_is_named_with_those_it_has(tmp_path):
    for name in ("Films", "Books"):
        pd.DataFrame({"who": ["a"], "parent_asin": [M1], "timestamp": [1]}).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="Films.parquet.*user_id.*it has who, parent_asin, timestamp"):
        prepared(tmp_path)


@pytest.mark.parametrize("release", [2014, 2018, 2023])
def test_ratings_alone(tmp_path, release):
    """Columns are told by their header or by what they hold; there are no texts."""

    def line(user, item, day):
        if release == 2018:
            return f"{item},{user},5.0,{at(day)}"
        return f"{user},{item},5.0,{at(day) * (1000 if release == 2023 else 1)}"

    head = ["user_id,parent_asin,rating,timestamp"] if release == 2023 else []
    films = [*head, *(line(*event) for event in FILMS), "nonsense", f"{ANN},{M1},5.0,never", f"{ANN},,5.0,{at(1)}"]
    pack(tmp_path / "Films.csv.gz", films)
    (tmp_path / "ratings_Books.csv").write_text("\n".join([*head, *(line(*event) for event in BOOKS)]))
    scenario, report = prepared(tmp_path)
    check(scenario, {})
    assert report.dropped == DROPPED
    assert report.files[0].num_bad == 3
    assert report.files[0].first_bad[0] == f"{tmp_path / 'Films.csv.gz'}:{15 + len(head)}: not 4 cells: 'nonsense'"


def test_the_order_of_the_lines_changes_nothing(tmp_path):
    """Ties are drawn by content; a day's reviews come in any order in the real files."""

    def scenario_of(films, books, seed):
        weeks = ([(user, item, day // 7 * 7) for user, item, day in events] for events in (films, books))
        return prepared(write_ratings(tmp_path, *weeks), seed=seed)[0]

    first = scenario_of(FILMS, BOOKS, 0)
    assert scenario_of(FILMS[::-1], BOOKS[::-1], 0).fingerprint == first.fingerprint
    assert any(scenario_of(FILMS, BOOKS, seed).fingerprint != first.fingerprint for seed in range(1, 5))


def test_an_item_of_both_categories_stays_in_x(tmp_path):
    """One product may be listed in both; its review would be history and target at once."""
    scenario, report = prepared(write_ratings(tmp_path, FILMS, [*BOOKS, (ANN, M1, 0), (BOB, M1, 5)]))
    check(scenario, {})
    assert report.dropped == DROPPED | {"item is also in X": (0, 2)}


def test_a_different_hash_gives_the_same_scenario(tmp_path):
    check(prepared(write_ratings(tmp_path, FILMS, BOOKS), hash_seed=7)[0], {})


def test_wrong_files_are_told(tmp_path):
    good = pack(tmp_path / "Books.json.gz", ['{"reviewerID": "a", "asin": "b", "unixReviewTime": 1}'])

    def fails(content: bytes, *parts: str, max_bad: float = 0.01) -> None:
        path = tmp_path / "Films.json.gz"
        path.write_bytes(content)
        options = PreparationOptions(max_bad_lines=max_bad)
        with pytest.raises(InputError) as error:
            read_amazon(CategoryFiles(path, None), CategoryFiles(good, None), "tiny", ("film", "book"), options)
        assert all(part in str(error.value) for part in (*parts, str(path))), str(error.value)

    page = b"\n <!DOCTYPE html><html>Access denied</html>"
    fails(page, "web page")
    fails(gzip.compress(page), "web page")
    fails(b"", "empty")
    fails(gzip.compress(b"\n \n"), "empty")
    fails(b"PK\x03\x04....", "zip archive")
    fails(
        b'{"reviewerID": "a", "asin": "b", "unixReviewTime": 1}\n' * 50 + b"{\n", "1 of 51 lines", ":51:", max_bad=0.01
    )
    fails(b'{"asin": "x", "title": "metadata, not reviews"}\n', "1 of 1 lines", "no user")
    fails(b"a,b,c\n1,2,3\n", "expected JSON lines, or user,item,rating,time")
    fails(b"u1,i1,5,1\nu2,i2,5,1\n", "put the line user,item,rating,timestamp on top")
    lines = [
        b'{"reviewerID": "%s", "asin": "b", "unixReviewTime": 1}' % RNG.bytes(40).hex().encode() for _ in range(20000)
    ]
    broken = bytearray(gzip.compress(b"\n".join(lines)))
    broken[-1000:-900] = b"\0" * 100
    fails(bytes(broken), "compressed data is damaged in its first lines", "get the file again")
    fails(gzip.compress(b"\n".join(2 * lines))[:-500], "compressed data is damaged behind line")


def test_no_common_user_is_told(tmp_path):
    for name, user in (("Films", ANN), ("Books", BOB)):
        (tmp_path / f"{name}.csv").write_text(f"user,item,rating,time\n{user},{M1},5,{START}\n")
    with pytest.raises(InputError, match="no user has interactions in both domains"):
        prepared(tmp_path)


def test_files_of_a_category_are_found(tmp_path):
    (tmp_path / "reviews_Books.json.gz").touch()
    (tmp_path / "meta_Books.json.gz").touch()
    (tmp_path / "Movies_and_TV.jsonl.gz").touch()
    assert find_category(tmp_path, "Books").reviews == tmp_path / "reviews_Books.json.gz"
    assert find_category(tmp_path, "Books").metadata == tmp_path / "meta_Books.json.gz"
    assert find_category(tmp_path, "Movies_and_TV").metadata is None
    with pytest.raises(InputError, match="did you mean 'Movies_and_TV'"):
        find_category(tmp_path, "Movies_and_TVs")
    (tmp_path / "Books_5.json.gz").touch()
    with pytest.raises(InputError, match="several review files of Books.*leave one of them"):
        find_category(tmp_path, "Books")
    with pytest.raises(InputError, match="there is no folder"):
        find_category(tmp_path / "absent", "Books")
    assert domain_name("Grocery_and_Gourmet_Food") == "grocery_and_gourmet_food"


def test_nothing_of_a_preparation_stays_behind(tmp_path):
    write_ratings(tmp_path, FILMS, BOOKS)
    scratch = tmp_path / "scratch"
    prepared(tmp_path, scratch)
    with pytest.raises(InputError, match="no interaction is left"):
        prepared(tmp_path, scratch, min_user=99)
    assert list(scratch.iterdir()) == []
