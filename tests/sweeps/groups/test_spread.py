import numpy as np
import pytest
from scipy import stats

from sweeps.groups.significance import paired_p, paired_tests
from sweeps.groups.spread import Spread

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
