"""Review lines through the fast parser and one by one give the same, whatever stands between them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmemf.scenarios import review_files
from llmemf.scenarios.bad_lines import LineCounts
from llmemf.scenarios.loose_records import NO_TIME
from llmemf.scenarios.review_files import read_reviews

GOOD = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1_300_000_000}
ODD = [
    ({"unixReviewTime": "1300000001"}, ("A1", "B1", 1_300_000_001)),
    ({"unixReviewTime": 1.3e9}, ("A1", "B1", 1_300_000_000)),
    ({"unixReviewTime": 1_300_000_000_123}, ("A1", "B1", 1_300_000_000)),
    ({"reviewerID": " A2 "}, ("A2", "B1", 1_300_000_000)),
    ({"asin": 1234567890}, ("A1", "1234567890", 1_300_000_000)),
    ({"parent_asin": "P1"}, ("A1", "P1", 1_300_000_000)),
    ({"unixReviewTime": None, "reviewTime": "03 13, 2011"}, ("A1", "B1", 1_299_974_400)),
    ({"reviewerID": "\u00c4\u00f6"}, ("\u00c4\u00f6", "B1", 1_300_000_000)),
    ({"asin": ""}, "no item"),
    ({"asin": {"x": 1}}, "no item"),
    ({"reviewerID": True}, "no user"),
    ({"unixReviewTime": "soon"}, NO_TIME),
    ({"unixReviewTime": float("inf")}, NO_TIME),
    ({"unixReviewTime": 0}, "time out of range 1970..2099"),
    ({"unixReviewTime": 10**30}, "time out of range 1970..2099"),
    ({"unixReviewTime": None}, "no time"),
]


def read(path):
    counts = LineCounts(path, 0.99)
    rows = []
    for users, items, times in read_reviews(counts):
        rows += zip(users.to_pylist(), items.to_pylist(), np.asarray(times).tolist())
    return rows, counts


@pytest.mark.parametrize(("change", "expected"), ODD)
def test_an_odd_line_among_many(tmp_path, change, expected):
    lines = [json.dumps(GOOD | {"asin": f"B{number}"}) for number in range(300)]
    lines.insert(170, json.dumps(GOOD | change))
    lines.insert(20, "")
    (tmp_path / "f").write_text("\n".join(lines))
    rows, counts = read(tmp_path / "f")
    usual = [("A1", f"B{number}", GOOD["unixReviewTime"]) for number in range(300)]
    if isinstance(expected, str):
        assert rows == usual and counts.bad == {expected: 1} and f":172: {expected}" in counts.first_bad[0]
    else:
        assert rows == [*usual[:170], expected, *usual[170:]] and not counts.bad
    assert counts.lines == 301


@pytest.mark.parametrize(
    "middle",
    [
        ['{"reviewerID": "A1", "asin": "B1",', '"unixReviewTime": 5}'],
        ['{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 5}' * 2],
    ],
    ids=["record in two lines", "two records in a line"],
)
def test_one_line_is_one_record(tmp_path, middle):
    """The fast parser alone would take both for reviews."""
    lines = [json.dumps(GOOD)] * 100 + middle + [json.dumps(GOOD)] * 100
    (tmp_path / "f").write_text("\n".join(lines))
    rows, counts = read(tmp_path / "f")
    assert len(rows) == 200 and counts.num_bad == len(middle)


def test_usual_lines_take_the_fast_way(tmp_path, monkeypatch):
    """Only the lines of the odd one's block are parsed in Python."""
    singles = []
    single = review_files._single
    monkeypatch.setattr(review_files, "_single", lambda line, counts: singles.append(line) or single(line, counts))
    monkeypatch.setattr("llmemf.scenarios.lines.BLOCK_BYTES", 10_000)
    lines = [json.dumps(GOOD)] * 5000
    lines[1234] = "{"
    (tmp_path / "f").write_text("\n".join(lines))
    rows, counts = read(tmp_path / "f")
    assert len(rows) == 4999 and counts.num_bad == 1
    assert 0 < len(singles) < 300


def test_ratings_with_quotes_and_other_columns(tmp_path):
    (tmp_path / "f").write_text(
        'Rating,"Timestamp",UserId,ProductId\n5,1300000000,"A,1",B1\n4,"1300000001",A2,"B""2"\n'
    )
    rows, counts = read(tmp_path / "f")
    assert rows == [("A,1", "B1", 1_300_000_000), ("A2", 'B"2', 1_300_000_001)] and counts.lines == 2
