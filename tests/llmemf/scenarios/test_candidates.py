"""Stored candidates: what a case may be ranked against, by both protocols."""

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.scenarios import candidates
from llmemf.scenarios.candidates import draw_candidates
from llmemf.scenarios.reader_options import CandidateOptions
from llmemf.scenarios.sequences import Sequences

NUM_X, NUM_ITEMS = 60, 140


def stored_candidates(splits, draw, count, seed=0):
    return candidates.stored_candidates(splits, NUM_X, NUM_ITEMS, CandidateOptions(count, seed, draw))


@pytest.fixture
def splits():
    """40 users with a training, a validation and a test sequence each."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(NUM_ITEMS, 9, replace=False) for _ in range(40)]
    users = np.arange(40)
    return {
        "train": Sequences.from_rows(users, [row[:-2] for row in rows]),
        "valid": Sequences.from_rows(users, [row[3:-1] for row in rows]),
        "test": Sequences.from_rows(users, [row[3:] for row in rows]),
    }


def met(splits, user):
    return {int(item) for part in splits.values() for item in part.row(user)}


@pytest.mark.parametrize("count", [20, 999])
def test_distinct_unseen_ones_are_all_of_the_domain_new_to_the_user_and_different(splits, count):
    tables = stored_candidates(splits, "distinct_unseen", count)
    for part in ("valid", "test"):
        for case, target in enumerate(splits[part].targets):
            domain = range(NUM_X) if target < NUM_X else range(NUM_X, NUM_ITEMS)
            allowed = set(domain) - met(splits, case)
            drawn = [int(item) for item in tables[part][case] if item >= 0]
            assert len(drawn) == len(set(drawn)) == min(count, len(allowed))
            assert set(drawn) <= allowed


def test_every_allowed_item_is_drawn_equally_often(splits):
    """4,000 draws of 10 out of one user's items; 4.5 standard deviations of a binomial count."""
    one = {name: Sequences.from_rows(np.zeros(2000, int), [part.row(0)] * 2000) for name, part in splits.items()}
    table = stored_candidates(one, "distinct_unseen", 10)["test"]
    target = int(one["test"].targets[0])
    allowed = sorted(set(range(NUM_X) if target < NUM_X else range(NUM_X, NUM_ITEMS)) - met(one, 0))
    counts = np.array([(table == item).sum() for item in allowed])
    share = 10 / len(allowed)
    assert np.abs(counts - 2000 * share).max() < 4.5 * np.sqrt(2000 * share * (1 - share))


def test_the_published_way(splits):
    tables = stored_candidates(splits, "c2dsr", 20, 3)
    for part in ("valid", "test"):
        expected = draw_candidates(splits[part].targets, NUM_X, NUM_ITEMS, 20, 3, part)
        assert np.array_equal(tables[part], expected)


@pytest.mark.parametrize("draw", ["c2dsr", "distinct_unseen"])
def test_draws_repeat_with_the_seed_and_differ_between_seeds_and_splits(splits, draw):
    alike = splits | {"valid": splits["test"]}
    one, two, other = (stored_candidates(alike, draw, 20, seed) for seed in (3, 3, 4))
    assert np.array_equal(one["test"], two["test"]) and not np.array_equal(one["test"], other["test"])
    assert not np.array_equal(one["test"], one["valid"])


def test_a_user_who_has_met_everything_is_named(splits):
    rows = [[*range(NUM_X)], [*range(NUM_X - 1, -1, -1)]]
    everything = {name: Sequences.from_rows([0, 0], rows) for name in ("train", "valid", "test")}
    with pytest.raises(InputError, match="valid case 0"):
        stored_candidates(everything, "distinct_unseen", 20)
    with pytest.raises(InputError, match="--candidates"):
        stored_candidates(splits, "distinct_unseen", 0)
    with pytest.raises(InputError, match="--candidate-draw"):
        stored_candidates(splits, "other", 20)


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
    table = draw_candidates(edges, NUM_X, NUM_ITEMS, count=59)
    for row, target, domain in zip(table[:2], edges[:2], [range(NUM_X)] * 2):
        assert sorted(row.tolist()) == sorted(set(domain) - {int(target)})
    many = draw_candidates(np.repeat(edges, 200), NUM_X, NUM_ITEMS, count=45)
    assert set(many[400:600].ravel().tolist()) == set(range(NUM_X, NUM_ITEMS)) - {NUM_X}
    assert set(many[600:].ravel().tolist()) == set(range(NUM_X, NUM_ITEMS)) - {NUM_ITEMS - 1}


@pytest.mark.parametrize("target", [0, 17, 59, 60, 111, 139])
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
    assert distinct == pytest.approx(59 * (1 - (58 / 59) ** 40), abs=0.3)


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
