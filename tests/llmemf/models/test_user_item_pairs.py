"""The training view of pairs and folded-in users against loops over sequences."""

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, make_data, make_scenario, make_sequences, whole

from llmemf.batches import Batch, SequenceView
from llmemf.config import build_config
from llmemf.models import user_item_pairs as module
from llmemf.models.user_item_pairs import PairConfig, Pairs, UserVectors, user_item_pairs

WIDTH = 5


@pytest.fixture(scope="module")
def data():
    return make_data()


def config(**options):
    return build_config(PairConfig, options)


def make_users(data, **options):
    users = UserVectors(config(**options), data, WIDTH)
    if users.rows is not None:
        torch.nn.init.normal_(users.rows)
    return users


def test_every_item_of_a_sequence_is_a_pair(data):
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, NUM_ITEMS)
    found = [pairs.items[pairs.rows == row].tolist() for row in range(len(batch))]
    assert found == [data.train.row(row).tolist() for row in range(len(data.train))]


def test_windows_of_a_long_sequence_share_an_item(data):
    batch = whole(make_sequences(data, "train", max_length=3))
    pairs = user_item_pairs(batch, NUM_ITEMS)
    windows = sum(max(1, -(-(len(data.train.row(n)) - 1) // 3)) for n in range(len(data.train)))
    assert len(batch) == windows > len(data.train)
    assert len(pairs.items) == len(data.train.items) + windows - len(data.train)


def test_a_pair_sees_the_mean_of_the_other_items(data):
    users = make_users(data, user_mode="fold_in")
    table = torch.randn(NUM_ITEMS, WIDTH)
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, NUM_ITEMS)
    vectors = users.of_pairs(batch.users, pairs, table)
    for vector, row, item in zip(vectors.numpy(), pairs.rows.tolist(), pairs.items.tolist()):
        others = [other for other in data.train.row(row).tolist() if other != item]
        np.testing.assert_allclose(vector, table.numpy()[others].mean(0), rtol=1e-4, atol=1e-5)


def test_the_positive_does_not_reach_its_own_folded_vector(data):
    users = make_users(data, user_mode="fold_in")
    table = torch.randn(NUM_ITEMS, WIDTH, dtype=torch.float64, requires_grad=True)
    batch = whole(make_sequences(data, "train", max_length=12))
    pairs = user_item_pairs(batch, NUM_ITEMS)
    last = int((pairs.rows == 7).nonzero()[-1])
    (gradient,) = torch.autograd.grad(users.of_pairs(batch.users, pairs, table)[last].sum(), table)
    touched = set(gradient.abs().sum(1).gt(1e-12).nonzero().flatten().tolist())
    assert touched == set(data.train.row(7).tolist()[:-1])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pairs_see_the_row_or_the_mean_with_the_given_probability(data, share, monkeypatch):
    torch.manual_seed(1)
    monkeypatch.setattr(module, "FOLD_IN_SHARE", share)
    users = make_users(data)
    table = torch.randn(NUM_ITEMS, WIDTH)
    rows = torch.zeros(4000, dtype=torch.long)
    pairs = Pairs(torch.tensor([[NUM_ITEMS, 3, 40]]), rows, rows + 1)
    vectors = users.of_pairs(torch.tensor([6]), pairs, table)
    by_row = torch.isclose(vectors, users.rows[6]).all(1)
    folded = torch.isclose(vectors, table[40], rtol=1e-4, atol=1e-5).all(1)
    assert bool((by_row ^ folded).all())
    assert float(folded.float().mean()) == pytest.approx(share, abs=0.03)


def test_without_other_items_a_pair_sees_the_row(data, monkeypatch):
    monkeypatch.setattr(module, "FOLD_IN_SHARE", 1.0)
    users = make_users(data)
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
