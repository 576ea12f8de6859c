import math

import pytest

from sweeps.search.rungs import milestones, rungs


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
