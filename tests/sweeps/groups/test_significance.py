import math

import numpy as np
import pytest
from scipy import stats

from llmemf.ranking import rank_metrics
from sweeps.groups.significance import gains, holm, intervals, mean_over_seeds, paired_p, paired_tests


@pytest.mark.parametrize("metric", ["mrr", "ndcg_5", "ndcg_10"])
def test_the_mean_gain_of_all_cases_is_the_metric(metric):
    ranks = np.random.default_rng(0).integers(1, 40, 300) + np.random.default_rng(1).choice([0, 0.5], 300)
    assert gains(ranks, metric).mean() == pytest.approx(rank_metrics(ranks)[metric], abs=1e-15)


def test_gains_by_hand():
    ranks = np.array([1, 2, 5, 5.5, 11])
    assert gains(ranks, "mrr").tolist() == [1, 1 / 2, 1 / 5, 1 / 5.5, 1 / 11]
    log = np.log2
    assert gains(ranks, "ndcg_5").tolist() == [1, 1 / log(3), 1 / log(6), 0, 0]
    assert gains(ranks, "ndcg_10").tolist() == [1, 1 / log(3), 1 / log(6), 1 / log(6.5), 0]


def test_a_case_is_averaged_over_seeds():
    ranks = [np.array([1, 4]), np.array([2, 4]), np.array([4, 1])]
    np.testing.assert_allclose(mean_over_seeds(ranks, "mrr"), [(1 + 1 / 2 + 1 / 4) / 3, (1 / 4 + 1 / 4 + 1) / 3])


def test_the_paired_t_test_by_its_formula():
    rng = np.random.default_rng(3)
    first, second = rng.random(50), rng.random(50) + 0.1
    difference = first - second
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(50))
    assert paired_p(first, second) == pytest.approx(2 * stats.t.sf(abs(t), 49), rel=1e-12)
    assert paired_p(first, second) == paired_p(second, first)
    assert paired_p(first, second) != pytest.approx(stats.ttest_ind(first, second).pvalue), "it must be paired"


def test_the_paired_t_test_at_its_edges():
    values = np.array([0.1, 0.5])
    assert paired_p(values, values.copy()) == 1
    assert math.isnan(paired_p(values[:1], values[1:]))


def test_it_keeps_its_level_on_equal_systems():
    """Two systems with the same distribution of reciprocal ranks: 5 % of the tests fall below 0.05."""
    rng = np.random.default_rng(5)
    first, second = 1 / rng.integers(1, 1000, (2, 1000, 400))
    share = np.mean([paired_p(a, b) < 0.05 for a, b in zip(first, second)])
    assert 0.03 < share < 0.07, share


def test_holm_by_hand():
    """0.01 * 4 = 0.04; 0.02 * 3 = 0.06; 0.03 * 2 = 0.06; 0.04 * 1 = 0.04, not below the one before: 0.06."""
    assert holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.02}) == pytest.approx(
        {"d": 0.06, "a": 0.04, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.2}) == {"a": 0.2} and holm({}) == {}
    found = holm({"a": 0.01, "b": math.nan, "c": 0.04})
    assert found["a"] == 0.02 and found["c"] == 0.04 and math.isnan(found["b"])


def test_each_system_meets_the_best_other_one():
    rng = np.random.default_rng(7)
    base = rng.random(200)
    noise = 0.8 * rng.random((3, 200))
    values = {"low": base + noise[0] - 0.1, "best": base + noise[1] + 0.15, "second": base + noise[2]}
    tests = paired_tests(values)
    assert {name: test.against for name, test in tests.items()} == {"low": "best", "best": "second", "second": "best"}
    assert tests["best"].difference == -tests["second"].difference
    assert tests["low"].difference == pytest.approx(values["low"].mean() - values["best"].mean())
    # Three systems are two tests: the smaller p counts twice.
    low, second = (stats.ttest_rel(values[name], values["best"]).pvalue for name in ("low", "second"))
    assert 0 < low < second < 0.5
    assert (tests["low"].p, tests["second"].p, tests["best"].p) == (low, second, second)
    assert tests["low"].adjusted == 2 * low and tests["best"].adjusted == tests["second"].adjusted == second
    assert paired_tests({"alone": base}) == {}


def test_the_leaders_pair_is_counted_once():
    """p = 0.03 of the only pair stays as it is, although both systems show it."""
    first = np.array([0.5, 0.1, 0.9, 0.4, 0.7, 0.2])
    second = first - np.array([0.1, 0.2, -0.02, 0.1, 0.15, 0.05])
    tests = paired_tests({"a": first, "b": second})
    expected = stats.ttest_rel(first, second).pvalue
    assert tests["a"].adjusted == tests["b"].adjusted == expected


def bootstrap_of(first, second):
    rows = {"a": np.asarray(first), "b": np.asarray(second)}
    return intervals(rows, paired_tests({name: of_row.mean(0) for name, of_row in rows.items()}))["a"]


def test_with_one_seed_the_interval_is_that_of_the_mean_over_cases():
    rng = np.random.default_rng(3)
    first, second = rng.random((1, 600)) + 0.02, rng.random((1, 600))
    gap = (first - second)[0]
    half = 1.96 * gap.std() / np.sqrt(600)
    low, high = bootstrap_of(first, second)
    assert (low, high) == pytest.approx((gap.mean() - half, gap.mean() + half), abs=0.1 * half)


def test_seeds_that_differ_widen_the_interval():
    """Equal cases, seeds at 0 and 0.2 against two at 0: draws of two seeds mean 0, 0.1 or 0.2, at 1/4, 1/2 and 1/4."""
    flat = np.zeros((2, 50))
    assert bootstrap_of(flat + np.array([[0.0], [0.2]]), flat) == pytest.approx((0.0, 0.2))
    assert bootstrap_of(flat + 0.1, flat) == pytest.approx((0.1, 0.1))
