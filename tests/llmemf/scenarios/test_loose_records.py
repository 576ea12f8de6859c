"""Lines that are almost JSON, or Python literals: what they say, and that nothing in them is run."""

from __future__ import annotations

import json

import pytest

from llmemf.scenarios.bad_lines import BadLine
from llmemf.scenarios.item_texts import category_paths, item_text, plain_text
from llmemf.scenarios.lines import NOT_UTF8
from llmemf.scenarios.loose_records import BAD_ESCAPE, flat_literal, identifier, parse_record, unix_seconds


@pytest.mark.parametrize(
    ("line", "record", "mended"),
    [
        (b'{"a": 1}', {"a": 1}, []),
        (b"{'a': 'it\\'s', 'b': \"it's\", 'c': [1, 2.5, None, True], 'd': {'e': (1,)}}",
         {"a": "it's", "b": "it's", "c": [1, 2.5, None, True], "d": {"e": (1,)}}, []),
        (b"{'a': '\\d'}", {"a": "\\d"}, []),
        (b"{'a': '\\N', 'b': '\\\\N \\N{BULLET}'}", {"a": "\\N", "b": "\\N \u2022"}, [BAD_ESCAPE]),
        (b'{"a": "\\N \\\\N \\x \\u00e9"}', {"a": "\\N \\N \\x \u00e9"}, [BAD_ESCAPE]),
        (b'{"a": "tab\there"}', {"a": "tab\there"}, [BAD_ESCAPE]),
        (b'{"a": "caf\xe9 \xc3\xa9 \x93x\x94"}', {"a": "caf\u00e9 \u00e9 \u201cx\u201d"}, [NOT_UTF8]),
        (b"{'a': '\xe9'}\r", {"a": "\u00e9"}, [NOT_UTF8]),
    ],
)  # fmt: skip
def test_records(line, record, mended):
    assert parse_record(line) == (record, mended)


@pytest.mark.parametrize(
    "line",
    [
        b"null", b"[1]", b"{", b'{"a": 1', b"{'a': 1", b"{'a': __import__('os')}", b"{'a': x}", b"{'a': 1}{'a': 2}",
        b"{'a': " + b"[" * 100_000, b"[" * 100_000, b"{'a': " + b"-" * 100_000 + b"1}", b"{'a': " + b"9" * 10_000 + b"}",
        b"{'a': 1}\x00", b"{'a': '\\N{NO SUCH NAME}'}", b"{'a': '" + b"x" * (1 << 22) + b"'}",
    ],
    ids=lambda line: line[:12].decode() + str(len(line)),
)  # fmt: skip
def test_bad_lines(line):
    with pytest.raises(BadLine):
        parse_record(line)


def test_a_flat_literal_is_read_without_parsing_and_only_if_it_is_one():
    record = {
        "reviewerID": "A1",
        "reviewText": """He said: 'asin': 'X', "it's" \\ {1}""",
        "helpful": [1, 2],
        "overall": 5.0,
        "none": None,
        "time": -3,
    }
    flat = flat_literal(repr(record))
    assert {name: eval_free(value) for name, value in flat.items()} == {n: str(v) for n, v in record.items()}
    for text in (
        repr({"a": {"b": 1}}), repr({"a": [["b"]]}), repr({"a": ["b"]}), repr(record)[:-1], repr(record) + "x", "{}",
        json.dumps(record), "{'a': 'b' 'c'}", "{'a': f(1)}", "{'a': 1 'b': 2}",
    ):  # fmt: skip
        assert flat_literal(text) is None, text


def eval_free(value: str) -> str:
    """A string literal without its quotes and escapes, other things as they are."""
    return value[1:-1].replace("\\'", "'").replace("\\\\", "\\") if value[0] in "'\"" else value


def test_a_long_hostile_line_takes_no_long_time():
    """The pattern of flat literals must not try combinations."""
    assert flat_literal("{" + "'a': 'b'," * 100_000 + "!") is None
    assert flat_literal("{'a': '" + "\\'" * 100_000) is None
    assert flat_literal("{'a': [" + "1, " * 100_000) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("A", "A"), (" A ", "A"), (7, "7"), (["A"], "A"), ("\\N", None), ("", None), (None, None), (True, None), (118.0, "118"), ("118.0", "118"), ("v1.0", "v1.0"),
     (["A", "B"], None), (1.5, None)],
)  # fmt: skip
def test_identifiers(value, expected):
    record = {"first": value, "second": "S"}
    assert identifier(record, ("first", "second"), "none") == (expected or "S")
    if expected is None:
        with pytest.raises(BadLine, match="nobody"):
            identifier(record, ("first",), "nobody")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("a <b>bold</b> <br/>claim: 1 < 2 and 3 > 2", "a bold claim: 1 < 2 and 3 > 2"),
        ("x<script>alert('y')</script>z<!-- c -->", "x z"),
        (["one", "", "two", "one", None, ["deep"]], "one two"),
        (" \n\t\u00a0 ", ""),
        ("\\N", ""),
        (12, "12"),
        (float("nan"), ""),
        ({"a": 1}, ""),
        (True, ""),
    ],
)
def test_plain_text(value, text):
    assert plain_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([["Books", "Fiction"], ["Gifts"], ["Gifts"]], "Books > Fiction | Gifts"),
        (["Books", "", "Fiction", 3], "Books > Fiction"),
        ("Movies &amp; TV", "Movies & TV"),
        ([], ""),
        ({"a": 1}, ""),
    ],
)
def test_categories(value, text):
    assert category_paths(value) == text


@pytest.mark.parametrize(
    ("record", "image"),
    [
        ({"imUrl": "javascript:alert(1)", "imageURL": ["http://a/1.jpg"]}, "http://a/1.jpg"),
        ({"imUrl": "http://g/no-img-sm._V1.gif"}, ""),
        ({"images": [{"large": "http://a/pt.jpg", "variant": "PT01"}, {"hi_res": "http://a/m.jpg", "variant": "MAIN"}]},
         "http://a/m.jpg"),
        ({"images": {"large": [None, "http://a/2.jpg"], "thumb": ["http://a/t.jpg"]}}, "http://a/2.jpg"),
        ({"images": ["https://a/x y.jpg", "https://a/3.jpg?a=1&amp;b=2"]}, "https://a/3.jpg?a=1&b=2"),
        ({"images": [None, 3, {"large": 4}]}, ""),
    ],
)  # fmt: skip
def test_images(record, image):
    assert item_text(record).image == image


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1300000000", 1_300_000_000),
        (" 1300000000.9 ", 1_300_000_000),
        (1_300_000_000_999, 1_300_000_000),
        ("2011-03-13", 1_299_974_400),
        ("2011-03-13 07:06:40", 1_300_000_000),
        ("2011-03-13T09:06:40+02:00", 1_300_000_000),
        ("", "no time"),
        (None, "no time"),
        (float("nan"), "neither"),
        ("13.03.2011", "neither"),
        ("1969-01-01", "out of range"),
    ],
)
def test_times(value, expected):
    if isinstance(expected, int):
        assert unix_seconds(value) == expected
    else:
        with pytest.raises(BadLine, match=expected):
            unix_seconds(value)
