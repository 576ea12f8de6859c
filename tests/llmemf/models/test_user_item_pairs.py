"""The training view of pairs against loops over sequences; negatives against sets; folded-in users against loops."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, whole

from llmemf.batches import Batch, SequenceView
from llmemf.config import build_config
from llmemf.models.user_item_pairs import Negatives, PairConfig, Pairs, user_item_pairs
from llmemf.models.user_vectors import UserVectors

WIDTH = 5


@pytest.fixture(scope="module")
def data():
    return make_data()


def config(**options):
    return build_config(PairConfig, options)


def in_x(item):
    return item < NUM_X


def make_users(data, **options):
    users = UserVectors(config(**options), data, WIDTH)
    if users.rows is not None:
        torch.nn.init.normal_(users.rows)
    return users


def test_every_item_of_a_sequence_is_a_pair(data):
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, pad=NUM_ITEMS, positives="all")
    found = [pairs.items[pairs.rows == row].tolist() for row in range(len(batch))]
    assert found == [data.train.row(row).tolist() for row in range(len(data.train))]


def test_the_last_item_alone(data):
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, pad=NUM_ITEMS, positives="last")
    assert pairs.items.tolist() == data.train.targets.tolist()
    assert pairs.rows.tolist() == list(range(len(batch)))


def test_windows_of_a_long_sequence_share_an_item(data):
    batch = whole(make_sequences(data, "train", max_length=3))
    pairs = user_item_pairs(batch, pad=NUM_ITEMS, positives="all")
    windows = sum(max(1, -(-(len(data.train.row(n)) - 1) // 3)) for n in range(len(data.train)))
    assert len(batch) == windows > len(data.train)
    assert len(pairs.items) == len(data.train.items) + windows - len(data.train)


def test_unseen_negatives_are_of_the_domain_and_in_no_training_sequence_of_the_user(data):
    torch.manual_seed(0)
    users, positives = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 40, 29, 70])
    drawn = Negatives(config(negatives=4000), data).draw(users, positives)
    for user, positive, row in zip(users.tolist(), positives.tolist(), drawn.tolist()):
        met = {int(i) for n in np.flatnonzero(data.train.users == user) for i in data.train.row(n)}
        assert set(row) == {i for i in range(NUM_ITEMS) if in_x(i) == in_x(positive)} - met


def test_a_user_who_has_met_all_items_of_a_domain():
    data = make_data(make_scenario(rows={"train": [list(range(NUM_X))]}))
    drawn = Negatives(config(negatives=2000), data).draw(torch.tensor([0]), torch.tensor([2]))
    assert set(drawn[0].tolist()) == set(range(NUM_X)) - {2}


def test_any_negative_but_the_positive(data):
    torch.manual_seed(0)
    drawn = Negatives(config(negatives=4000, negative_sampling="any"), data).draw(
        torch.tensor([0, 0]), torch.tensor([2, 40])
    )
    assert set(drawn[0].tolist()) == set(range(NUM_X)) - {2}
    assert set(drawn[1].tolist()) == set(range(NUM_X, NUM_ITEMS)) - {40}


def test_negatives_from_events_are_as_frequent_as_the_events():
    data = make_data(make_scenario(rows={"train": [[1, 2, 40], [1, 40, 41], [1, 3, 40]]}))
    torch.manual_seed(0)
    drawn = Negatives(config(negatives=20000, negative_sampling="events"), data).draw(
        torch.tensor([0, 0]), torch.tensor([1, 40])
    )
    assert data.train.items.tolist() != sorted(data.train.items.tolist())
    for row, expected in zip(drawn.tolist(), ({1: 0.6, 2: 0.2, 3: 0.2}, {40: 0.75, 41: 0.25})):
        share = {item: count / len(row) for item, count in Counter(row).items()}
        assert share == pytest.approx(expected, abs=0.02)


def test_a_pair_sees_the_mean_of_the_other_items(data):
    users = make_users(data, user_mode="fold_in")
    table = torch.randn(NUM_ITEMS, WIDTH)
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, pad=NUM_ITEMS, positives="all")
    vectors = users.of_pairs(batch.users, pairs, table)
    for vector, row, item in zip(vectors.numpy(), pairs.rows.tolist(), pairs.items.tolist()):
        others = [other for other in data.train.row(row).tolist() if other != item]
        np.testing.assert_allclose(vector, table.numpy()[others].mean(0), rtol=1e-4, atol=1e-5)


def test_the_positive_does_not_reach_its_own_folded_vector(data):
    users = make_users(data, user_mode="fold_in")
    table = torch.randn(NUM_ITEMS, WIDTH, dtype=torch.float64, requires_grad=True)
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, pad=NUM_ITEMS, positives="last")
    (gradient,) = torch.autograd.grad(users.of_pairs(batch.users, pairs, table)[7].sum(), table)
    touched = set(gradient.abs().sum(1).gt(1e-12).nonzero().flatten().tolist())
    assert touched == set(data.train.row(7).tolist()[:-1])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pairs_see_the_row_or_the_mean_with_the_given_probability(data, share):
    torch.manual_seed(1)
    users = make_users(data, fold_in_share=share)
    table = torch.randn(NUM_ITEMS, WIDTH)
    rows = torch.zeros(4000, dtype=torch.long)
    pairs = Pairs(torch.tensor([[NUM_ITEMS, 3, 40]]), rows, rows + 1)
    vectors = users.of_pairs(torch.tensor([6]), pairs, table)
    by_row = torch.isclose(vectors, users.rows[6]).all(1)
    folded = torch.isclose(vectors, table[40], rtol=1e-4, atol=1e-5).all(1)
    assert bool((by_row ^ folded).all())
    assert float(folded.float().mean()) == pytest.approx(share, abs=0.03)


def test_without_other_items_a_pair_sees_the_row(data):
    users = make_users(data, fold_in_share=1.0)
    pairs = Pairs(torch.tensor([[NUM_ITEMS, 3]]), torch.tensor([0]), torch.tensor([1]))
    assert torch.equal(users.of_pairs(torch.tensor([6]), pairs, torch.randn(NUM_ITEMS, WIDTH))[0], users.rows[6])


def histories(users, rows):
    width = max(map(len, rows))
    items = torch.tensor([[NUM_ITEMS] * (width - len(row)) + row for row in rows])
    view = SequenceView(items, torch.full_like(items, NUM_ITEMS), torch.full_like(items, NUM_ITEMS))
    return Batch(torch.tensor(users), {"x": view, "y": view, "xy": view}, None)


@pytest.mark.parametrize("mode", ["auto", "id", "fold_in"])
def test_known_and_unknown_users_in_evaluation(mode):
    """User 0 is known; user 9 is not, once with a history and once without."""
    data = make_data(make_scenario(rows={"train": [[1, 2, 40]]}))
    users = make_users(data, user_mode=mode)
    table = torch.randn(NUM_ITEMS, WIDTH)
    vectors = users.of_histories(histories([0, 9, 9], [[3, 50], [4, 5, 60], []]), None if mode == "id" else table)
    zero, means = torch.zeros(WIDTH), [(table[3] + table[50]) / 2, (table[4] + table[5] + table[60]) / 3]
    expected = {
        "fold_in": [*means, zero],
        "auto": [users.rows[0] if mode == "auto" else zero, means[1], zero],
        "id": [users.rows[0] if mode == "id" else zero, zero, zero],
    }[mode]
    torch.testing.assert_close(vectors, torch.stack(expected))


def test_no_table_by_user_where_all_are_folded_in(data):
    assert not list(make_users(data, user_mode="fold_in").parameters())
