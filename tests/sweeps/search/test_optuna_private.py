import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from sweeps.search.optuna_private import contains


def test_the_private_attribute_is_there():
    assert hasattr(BaseDistribution, "_contains"), "a resumed sweep could not tell which trials lie in its space"


@pytest.mark.parametrize(
    ("distribution", "value", "expected"),
    [
        (FloatDistribution(0.0, 1.0), 0.5, True),
        (FloatDistribution(0.0, 1.0), 1.5, False),
        (FloatDistribution(0.0, 1.0), "many", False),
        (CategoricalDistribution(["1", "2"]), "2", True),
        (CategoricalDistribution(["1", "2"]), "3", False),
    ],
)
def test_values_of_a_parameter(distribution, value, expected):
    assert contains(distribution, value) is expected
