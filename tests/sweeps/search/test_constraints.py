import pytest

from llmemf.errors import InputError
from sweeps.search.constraints import Constraint


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("alpha + beta <= 1", {"alpha": 0.7, "beta": 0.3}, True),
        ("alpha + beta <= 1", {"alpha": 0.7, "beta": 0.4}, False),
        ("a + b + c <= 1", {"a": 0.7, "b": 0.2, "c": 0.1}, True),  # 1.0000000000000002 in floating point
        ("0 < a < 1", {"a": 1.0}, False),
        ("0 <= a <= 1", {"a": 1}, True),
        ("2 * a - b / 4 >= -(1)", {"a": 0.0, "b": 4.0}, True),
        ("a == 0.3", {"a": 0.1 + 0.2}, True),
        ("a != 0.3", {"a": 0.1 + 0.2}, False),
    ],
)
def test_comparison_over_settings(text, values, expected):
    assert Constraint.parse(text).holds(values) is expected


def test_it_knows_its_settings():
    assert Constraint.parse("beta + alpha <= 1").keys == ("alpha", "beta")


@pytest.mark.parametrize(
    "text",
    [
        "alpha",
        "alpha +",
        "1 <= 2",
        "alpha + beta",
        "f(alpha) <= 1",
        "alpha.real <= 1",
        "alpha[0] <= 1",
        "alpha <= True",
        "alpha <= 'x'",
        "alpha ** 9999 <= 1",
        "alpha <= 1 and beta <= 1",
        "__import__('os').system('true') == 0",
        "(lambda: 1)() <= alpha",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="constraint"):
        Constraint.parse(text)


def test_values_must_be_numbers():
    with pytest.raises(InputError, match="model = 'x' is not a number"):
        Constraint.parse("model <= 1").holds({"model": "x"})
    with pytest.raises(InputError, match="divides by zero"):
        Constraint.parse("a / b <= 1").holds({"a": 1, "b": 0})
