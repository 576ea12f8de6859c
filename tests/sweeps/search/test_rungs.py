import math
import random
from types import SimpleNamespace

import pytest

from sweeps.search.rungs import expected_epochs, milestones, rungs


@pytest.mark.parametrize(
    ("epochs", "grace", "factor", "expected"),
    [(100, 3, 3, [3, 9, 27, 81]), (8, 2, 3, [2, 6]), (9, 3, 3, [3]), (3, 3, 3, []), (10, 1, 2.5, [1, 3, 7])],
)
def test_rungs(epochs, grace, factor, expected):
    assert rungs(epochs, grace, factor) == expected


@pytest.mark.parametrize(("epochs", "grace", "factor"), [(100, 3, 3), (8, 2, 3), (9, 3, 3), (50, 1, 4), (20, 2, 2.5)])
def test_rungs_are_those_of_the_scheduler(epochs, grace, factor):
    from sweeps.search.asha import ResumableASHA

    scheduler = ResumableASHA([], max_t=epochs, grace_period=grace, reduction_factor=factor)
    milestones = sorted(math.ceil(milestone) for milestone, _ in scheduler.rungs if milestone < epochs)
    assert milestones == rungs(epochs, grace, factor)


def test_a_curve_is_thinned_to_some_epochs_and_its_last():
    assert list(milestones(dict.fromkeys(range(1, 98), 0.5))) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 97]


@pytest.mark.parametrize("trials", [1, 2, 5, 40])
def test_expected_epochs_are_the_mean_over_rays_own_halving(trials):
    """Random curves, one trial after the other, through the bracket of Ray's ASHA."""
    from ray.tune.schedulers.async_hyperband import _Bracket

    at, epochs, factor = [2, 6, 18], 20, 3
    rng, total, repetitions = random.Random(trials), 0, 3000 // trials
    for _ in range(repetitions):
        bracket = _Bracket(min_t=2, max_t=20, reduction_factor=factor, s=0)
        for number in range(trials):
            trial = SimpleNamespace(trial_id=str(number))
            total += next((r for r in at if bracket.on_result(trial, r, rng.random()) == "STOP"), epochs)
    assert expected_epochs(trials, epochs, at, factor) == pytest.approx(total / trials / repetitions, rel=0.05)


def test_expected_epochs_by_hand():
    assert expected_epochs(7, 10, [], 3) == 10
    assert expected_epochs(1, 10, [1], 3) == 10, "the first always passes"
    assert expected_epochs(2, 10, [1], 3) == pytest.approx(1 + 9 * 0.75), "the second one in half of the cases"
    assert expected_epochs(100_000, 10, [1], 4) == pytest.approx(1 + 9 / 4, rel=1e-3), "of many, one of four"
