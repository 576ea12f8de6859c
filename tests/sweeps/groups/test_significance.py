import math

import numpy as np
import pytest
from scipy import stats

from llmemf.ranking import rank_metrics
from sweeps.groups.significance import Spread, gains, holm, intervals, mean_over_seeds, paired_p, paired_tests


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


VALUES = [0.0510, 0.0494, 0.0483, 0.0526, 0.0471]


def test_the_interval_is_scipys():
    spread = Spread.of(VALUES)
    low, high = stats.t.interval(0.95, len(VALUES) - 1, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (spread.low, spread.high) == pytest.approx((low, high), rel=1e-12)
    assert spread.mean == pytest.approx(np.mean(VALUES)) and spread.deviation == pytest.approx(stats.tstd(VALUES))


def test_the_interval_by_hand():
    """Of 1, 2, 3: mean 2, sd 1, t of 2 degrees of freedom 4.3027, half width 4.3027 / sqrt 3."""
    spread = Spread.of([1, 2, 3])
    assert (spread.low, spread.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)


def test_it_holds_the_true_mean_95_times_of_100():
    draws = np.random.default_rng(0).normal(3.0, 0.7, (4000, 5))
    spreads = [Spread.of(row) for row in draws]
    assert 0.94 < np.mean([spread.low <= 3.0 <= spread.high for spread in spreads]) < 0.96


def test_one_seed_has_no_interval():
    one = Spread.of([0.5])
    assert (one.mean, one.deviation, one.low, one.high, one.count) == (0.5, None, None, None, 1)
    assert one.overlaps(Spread.of([9, 9.1])), "nothing is known of it"


def test_overlap_is_mutual():
    low, middle, high = Spread(0, 1, -1, 1, 3), Spread(1, 1, 0.5, 3, 3), Spread(5, 1, 4, 6, 3)
    assert low.overlaps(middle) and middle.overlaps(low)
    assert not low.overlaps(high) and not high.overlaps(low)


def test_the_paired_test_agrees_with_a_permutation_test():
    """Signs of the differences flipped at random: no assumption of normality."""
    rng = np.random.default_rng(4)
    first = 1 / rng.integers(1, 60, 400)
    second = 1 / rng.integers(1, 60, 400)

    def mean_difference(a, b, axis):
        return (a - b).mean(axis=axis)

    for shift in (0.0, 0.008, 0.02):
        found = stats.permutation_test(
            (first + shift, second), mean_difference, permutation_type="samples", n_resamples=9999, vectorized=True,
            random_state=0,
        ).pvalue  # fmt: skip
        assert paired_p(first + shift, second) == pytest.approx(found, abs=0.02)


def test_over_few_seeds_too():
    """Five seeds have 32 sign patterns, so the smallest p of a permutation is 2 / 32; the t-test follows in between."""
    first, second = np.array(VALUES), np.array([0.0507, 0.0499, 0.0475, 0.0509, 0.0473])
    found = stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", vectorized=True
    ).pvalue
    assert paired_p(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-12)
    assert paired_p(first, second) == pytest.approx(found, abs=0.1)


def test_against_a_reference_only_the_others_count_for_holm():
    rng = np.random.default_rng(9)
    base = rng.random(300)
    values = {"full": base, "a": base - 0.05 + 0.2 * rng.random(300), "b": base + 0.03 * rng.random(300) - 0.01}
    tests = paired_tests(values, "full")
    assert set(tests) == {"a", "b"} and {test.against for test in tests.values()} == {"full"}
    p = {name: stats.ttest_rel(values[name], base).pvalue for name in ("a", "b")}
    small, large = sorted(p, key=p.get)
    assert tests[small].p == p[small] and tests[small].adjusted == pytest.approx(min(1, 2 * p[small]))
    assert tests[large].adjusted == pytest.approx(max(tests[small].adjusted, p[large]))
    assert tests["a"].difference == pytest.approx(values["a"].mean() - base.mean())
    assert paired_tests({"full": base}, "full") == {}
