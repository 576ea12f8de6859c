"""Stored candidates: domain, exclusion, seeds, uniformity, small domains."""

from __future__ import annotations

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.scenarios.candidates import draw_candidates

NUM_X, NUM_ITEMS = 50, 170


def some_targets(count: int = 400) -> np.ndarray:
    return np.random.default_rng(3).integers(0, NUM_ITEMS, count)


def test_candidates_lie_in_the_targets_domain_and_never_hold_the_target():
    targets = some_targets()
    table = draw_candidates(targets, NUM_X, NUM_ITEMS, count=30)
    assert table.shape == (400, 30) and table.dtype == np.int32
    assert ((table >= NUM_X) == (targets >= NUM_X)[:, None]).all()
    assert table.min() >= 0 and table.max() < NUM_ITEMS
    assert (table != targets[:, None]).all()


def test_first_and_last_items_of_both_domains_are_drawn_and_excluded_correctly():
    edges = np.array([0, NUM_X - 1, NUM_X, NUM_ITEMS - 1])
    table = draw_candidates(edges, NUM_X, NUM_ITEMS, count=49)
    for row, target, domain in zip(table[:2], edges[:2], [range(NUM_X)] * 2):
        assert sorted(row.tolist()) == sorted(set(domain) - {int(target)})
    many = draw_candidates(np.repeat(edges, 200), NUM_X, NUM_ITEMS, count=45)
    assert set(many[400:600].ravel().tolist()) == set(range(NUM_X, NUM_ITEMS)) - {NUM_X}
    assert set(many[600:].ravel().tolist()) == set(range(NUM_X, NUM_ITEMS)) - {NUM_ITEMS - 1}


def test_draws_repeat_with_the_seed_and_differ_between_seeds_and_splits():
    targets = some_targets()
    first = draw_candidates(targets, NUM_X, NUM_ITEMS, count=30, seed=4, split="valid")
    assert np.array_equal(first, draw_candidates(targets, NUM_X, NUM_ITEMS, count=30, seed=4, split="valid"))
    assert not np.array_equal(first, draw_candidates(targets, NUM_X, NUM_ITEMS, count=30, seed=5, split="valid"))
    assert not np.array_equal(first, draw_candidates(targets, NUM_X, NUM_ITEMS, count=30, seed=4, split="test"))


def test_global_random_state_plays_no_part():
    np.random.seed(1)
    first = draw_candidates(some_targets(), NUM_X, NUM_ITEMS, count=30)
    np.random.seed(2)
    assert np.array_equal(first, draw_candidates(some_targets(), NUM_X, NUM_ITEMS, count=30))


@pytest.mark.parametrize("target", [0, 17, 49, 50, 111, 169])
def test_draws_are_uniform_over_the_other_items(target):
    table = draw_candidates(np.full(3000, target), NUM_X, NUM_ITEMS, count=40)
    first, size = (0, NUM_X) if target < NUM_X else (NUM_X, NUM_ITEMS - NUM_X)
    counts = np.delete(np.bincount(table.ravel() - first, minlength=size), target - first)
    expected = table.size / (size - 1)
    chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), size - 2
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_draws_are_with_replacement():
    table = draw_candidates(np.zeros(2000, dtype=int), NUM_X, NUM_ITEMS, count=40)
    distinct = np.mean([len(set(row)) for row in table.tolist()])
    assert distinct == pytest.approx(49 * (1 - (48 / 49) ** 40), abs=0.3)


def test_a_small_domain_gives_every_other_item_once_and_is_padded():
    targets = np.array([2, 5, 3, 900])
    table = draw_candidates(targets, 4, 1000, count=99)
    assert table.shape == (4, 99)
    assert table[0].tolist() == [0, 1, 3] + [-1] * 96
    assert table[2].tolist() == [0, 1, 2] + [-1] * 96
    assert (table[[1, 3]] >= 4).all()


def test_the_width_follows_the_larger_domain_when_both_are_small():
    table = draw_candidates(np.array([0, 6]), 3, 8, count=999)
    assert table.tolist() == [[1, 2, -1, -1], [3, 4, 5, 7]]


def test_a_count_below_one_and_a_domain_of_one_item_are_refused():
    with pytest.raises(InputError, match="0 candidates per case"):
        draw_candidates(np.array([0]), 3, 8, count=0)
    with pytest.raises(InputError, match="only one of its domain"):
        draw_candidates(np.array([0]), 1, 8)
