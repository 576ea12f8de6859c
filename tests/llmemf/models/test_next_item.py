import numpy as np
import pytest
import torch

from llmemf.config import build_config
from llmemf.models.next_item import NextItemConfig, domain_items, draw_in_domain, next_item_nll, score_items

NUM_X, NUM_ITEMS, WIDTH = 5, 12, 3


def make(rows=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(NUM_ITEMS, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, NUM_ITEMS, (rows,), generator=generator)
    return states, table, targets


def by_hand(states, table, targets, scope):
    """Row by row in NumPy."""
    total = 0.0
    for h, y in zip(states.detach().numpy(), targets.numpy()):
        logits = table.detach().numpy() @ h
        low, high = (0, NUM_ITEMS) if scope == "all" else (0, NUM_X) if y < NUM_X else (NUM_X, NUM_ITEMS)
        total -= logits[y] - np.log(np.exp(logits[low:high]).sum())
    return total / len(targets)


@pytest.mark.parametrize("scope", ["domain", "all"])
def test_equals_a_softmax_by_hand(scope):
    states, table, targets = make()
    config = build_config(NextItemConfig, {"softmax_scope": scope})
    loss = next_item_nll(config, states, targets, table, num_x=NUM_X, exact=targets)
    assert float(loss) == pytest.approx(by_hand(states, table, targets, scope), rel=1e-12)


def test_gradients_are_those_of_the_softmax():
    states, table, targets = make(4)
    config = build_config(NextItemConfig, {})
    assert torch.autograd.gradcheck(
        lambda s, t: next_item_nll(config, s, targets, t, num_x=NUM_X, exact=targets), (states, table)
    )


def test_the_sampled_objective_is_exact_where_all_items_are_counted_exactly():
    states, table, targets = make()
    everything = torch.arange(NUM_ITEMS)
    losses = [
        next_item_nll(
            build_config(NextItemConfig, {"objective": objective, "sampled_negatives": 4}),
            states, targets, table, num_x=NUM_X, exact=everything,
        )
        for objective in ("full", "sampled")
    ]  # fmt: skip
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-12)


def test_no_row_of_a_domain_and_no_row_at_all():
    states, table, _ = make()
    config = build_config(NextItemConfig, {})
    only_x = torch.zeros(len(states), dtype=torch.long)
    assert torch.isfinite(next_item_nll(config, states, only_x, table, num_x=NUM_X, exact=only_x))
    assert float(next_item_nll(config, states[:0], only_x[:0], table, num_x=NUM_X, exact=only_x)) == 0


def test_scores_of_a_domain():
    states, table, _ = make()
    bias = torch.arange(NUM_ITEMS, dtype=torch.float64)
    for domain, low, high in ((0, 0, NUM_X), (1, NUM_X, NUM_ITEMS)):
        expected = states.detach().numpy() @ table.detach().numpy()[low:high].T + bias.numpy()[low:high]
        scores = score_items(states, table, domain, num_x=NUM_X, bias=bias)
        np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-12)
        assert domain_items(domain, NUM_X, NUM_ITEMS) == slice(low, high)


def test_negatives_are_uniform_in_the_domain_without_the_target():
    targets = torch.tensor([0, 4, NUM_X, NUM_ITEMS - 1, 7])
    torch.manual_seed(0)
    drawn = draw_in_domain(targets, 20000, num_x=NUM_X, num_items=NUM_ITEMS)
    for row, target in zip(drawn, targets.tolist()):
        domain = set(range(NUM_X)) if target < NUM_X else set(range(NUM_X, NUM_ITEMS))
        values, counts = row.unique(return_counts=True)
        assert set(values.tolist()) == domain - {target}
        share = counts / len(row) * (len(domain) - 1)
        assert bool(((share > 0.9) & (share < 1.1)).all())


@pytest.mark.parametrize(("num_x", "num_items"), [(1, 4), (3, 4)])
def test_a_domain_of_one_item_yields_that_item(num_x, num_items):
    """Beside it the other domain keeps its range; nothing lies outside the catalogue."""
    torch.manual_seed(0)
    drawn = draw_in_domain(torch.arange(num_items), 200, num_x=num_x, num_items=num_items)
    for target, row in enumerate(drawn):
        domain = set(range(num_x)) if target < num_x else set(range(num_x, num_items))
        assert set(row.tolist()) == (domain - {target} or {target})
