import numpy as np
import torch
from tiny import NUM_ITEMS, NUM_X, make_config, make_data, make_sequences, whole

from llmemf.models.columns import before_next, merged_columns


def of_domain(items, domain):
    return (items < NUM_X) if domain == 0 else (items >= NUM_X) & (items < NUM_ITEMS)


def by_hand(own, merged, domain):
    """Column of every item of a domain's view in the merged row, both as plain lists with padding."""
    columns = [column for column, item in enumerate(merged) if item < NUM_ITEMS and (item >= NUM_X) == bool(domain)]
    count = sum(item < NUM_ITEMS for item in own)
    known = ([-1] * len(own) + columns)[-max(count, 1) :] if count else []
    return [-1] * (len(own) - len(known)) + known


def test_every_item_of_a_domain_is_found_on_the_merged_time_line():
    data = make_data()
    for split, length in (("train", 12), ("valid", 12), ("valid", 4)):
        batch = whole(make_sequences(data, split, config=make_config(max_length=length)))
        merged = batch.views["xy"].items
        for domain, name in enumerate("xy"):
            own = batch.views[name].items
            found = merged_columns(own.shape[1], of_domain(merged, domain))
            assert found.tolist() == [
                by_hand(row, line, domain) for row, line in zip(own.tolist(), merged.tolist(), strict=True)
            ]
            rows, columns = (found >= 0).nonzero(as_tuple=True)
            assert torch.equal(merged[rows, found[rows, columns]], own[rows, columns])
            older = (own < NUM_ITEMS) & (found < 0)
            assert bool(older.any()) == (length == 4), "a short merged view begins after a domain's own"


def test_a_key_is_visible_until_the_next_target_item():
    """Merged x0 y0 y1 x1 y2, after one column of padding; targets are of X."""
    at_x, at_y = torch.tensor([[1, 4]]), torch.tensor([[2, 3, 5]])
    merged = torch.arange(6)[None]
    real = merged > 0
    mixed = before_next(at_x, merged, real, 6)
    assert mixed[0].int().tolist() == [[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]]
    assert before_next(at_x, at_y, at_y >= 0, 6)[0].int().tolist() == [[1, 1, 0], [1, 1, 1]]
    assert before_next(at_x, at_x, at_x >= 0, 6)[0].int().tolist() == [[1, 0], [1, 1]]
    older = torch.tensor([[-1, -1]])
    assert before_next(at_x, older, torch.tensor([[False, True]]), 6)[0].int().tolist() == [[0, 1], [0, 1]]


def test_shapes_with_a_view_wider_or_narrower_than_the_merged_one():
    line = torch.tensor([[False, True, True]])
    assert merged_columns(5, line).tolist() == [[-1, -1, -1, 1, 2]]
    assert merged_columns(1, line).tolist() == [[2]]
    assert merged_columns(2, torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[-1, -1]] * 2
    assert np.shape(merged_columns(4, torch.ones(3, 2, dtype=torch.bool))) == (3, 4)
