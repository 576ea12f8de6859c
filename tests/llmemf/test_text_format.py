import json
from pathlib import Path

import numpy as np
import pytest

from llmemf import text_format
from llmemf.errors import InputError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "1e-3"),
        (5e-5, "5e-5"),
        (0.00354321, "3.54e-3"),
        (0.01, "0.01"),
        (0.009997, "0.01"),
        (0.00999, "9.99e-3"),
        (0.3, "0.3"),
        (0.18345, "0.183"),
        (0.0, "0"),
        (1.0, "1"),
        (14.2857, "14.286"),
        (12345.0, "1.23e4"),
        (256, "256"),
        (True, "True"),
        ("full", "full"),
        (("id", "text"), "id+text"),
        (None, "None"),
    ],
)
def test_numbers_are_short(value, text):
    assert text_format.number(value) == text


def test_names_in_a_row():
    assert [text_format.listed(names) for names in (["a"], ("a", "b"), dict.fromkeys("abc"))] == [
        "a",
        "a and b",
        "a, b and c",
    ]


def test_settings_and_durations():
    assert text_format.settings({"lr": 1e-3, "alpha": 0.3}) == "lr=1e-3 alpha=0.3"
    assert [text_format.duration(s) for s in (0, 42, 725, 11220)] == ["0:00", "0:42", "12:05", "3:07:00"]
    assert text_format.plural(1, "trial") == "1 trial" and text_format.plural(1200, "trial") == "1,200 trials"
    assert [text_format.chance(share) for share in (0.001, 0.567, 0.999, 1.0)] == [
        "less than 1 %",
        "57 %",
        "more than 99 %",
        "more than 99 %",
    ]
    assert text_format.percent(0.567) == "57 %" and text_format.percent(0.0123, 1) == "1.2 %"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", 5400),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d2h3m4s", 86400 + 7200 + 180 + 4),
        ("45s", 45),
        ("45", 45),
        ("0.5", 0.5),
        (" 2H ", 7200),
    ],
)
def test_times_that_a_user_types(text, expected):
    assert text_format.seconds(text, "--time-budget") == expected


@pytest.mark.parametrize("text", ["", "soon", "0", "0m", "-5m", "1.5h", "30m1h", "5 m", "1h 30m", "h", "nan", "inf"])
def test_times_that_cannot_be_read(text):
    with pytest.raises(InputError, match=f"--time-budget {text}: a time like 90m, 2h, 1h30m or 7d"):
        text_format.seconds(text, "--time-budget")


def test_json_has_no_numbers_that_json_does_not_know():
    content = {"a": [float("nan"), np.float32(0.5)], "b": (float("-inf"), 2, None, True), "c": Path("x")}
    assert json.loads(text_format.json_text(content), parse_constant=pytest.fail) == {
        "a": [None, 0.5], "b": [None, 2, None, True], "c": "x",
    }  # fmt: skip
