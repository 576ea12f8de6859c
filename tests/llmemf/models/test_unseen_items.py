import pytest
import torch
from tiny import NUM_ITEMS, NUM_USERS, NUM_X, make_data, make_scenario

from llmemf.models.unseen_items import UnseenItems


@pytest.fixture(scope="module")
def data():
    return make_data()


def seen_by(data, user):
    return {item for number in range(len(data.train)) if data.train.users[number] == user for item in data.train.row(number)}  # fmt: skip


@pytest.mark.parametrize("scope", ["domain", "all"])
def test_draws_are_uniform_over_exactly_the_unseen_items(data, scope):
    sampler = UnseenItems(data, scope=scope)
    torch.manual_seed(0)
    for user in (0, 1, 4, NUM_USERS - 1):
        for target in (2, NUM_X + 5):
            allowed = set(range(NUM_ITEMS)) if scope == "all" else {i for i in range(NUM_ITEMS) if (i < NUM_X) == (target < NUM_X)}  # fmt: skip
            allowed -= seen_by(data, user)
            drawn = sampler.draw(torch.tensor([user]), torch.tensor([target]), 20_000)
            assert drawn.shape == (1, 20_000)
            items, counts = drawn.unique(return_counts=True)
            assert set(items.tolist()) == allowed
            share = counts / 20_000 * len(allowed)
            assert bool(((share > 0.8) & (share < 1.2)).all())


def test_each_row_has_its_own_user_and_domain(data):
    sampler = UnseenItems(data)
    users = torch.arange(NUM_USERS).repeat_interleave(2)
    targets = torch.tensor([0, NUM_ITEMS - 1]).repeat(NUM_USERS)
    for _ in range(20):
        drawn = sampler.draw(users, targets)[:, 0]
        assert torch.equal(drawn >= NUM_X, targets >= NUM_X)
        assert not [user for user, item in zip(users.tolist(), drawn.tolist()) if item in seen_by(data, user)]


def test_a_user_who_has_seen_all_gets_another_item_than_the_target():
    rows = {"train": [list(range(NUM_X)), [NUM_X, NUM_X + 1]]}
    data = make_data(make_scenario(rows=rows))
    drawn = UnseenItems(data).draw(torch.zeros(1, dtype=torch.int32), torch.tensor([4]), 3_000)
    assert set(drawn.flatten().tolist()) == set(range(NUM_X)) - {4}


def test_the_validation_split_counts_for_nothing(data):
    changed = make_data(make_scenario(rows={"valid": [[1, 2, NUM_X], [3, 4, 5]]}))
    first, second = UnseenItems(data), UnseenItems(changed)
    assert torch.equal(first.keys, second.keys) and torch.equal(first.starts, second.starts)
    assert not first.state_dict()
