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


def test_the_published_way_and_repeatable_draws(splits):
    tables = stored_candidates(splits, "c2dsr", 20, 3)
    for part in ("valid", "test"):
        expected = draw_candidates(splits[part].targets, NUM_X, NUM_ITEMS, 20, 3, part)
        assert np.array_equal(tables[part], expected)
    one, two, other = (stored_candidates(splits, "distinct_unseen", 20, seed) for seed in (3, 3, 4))
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
