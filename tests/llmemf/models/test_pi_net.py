import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data
from two_domain_reference import ROWS, gru, histories, last, logits, make_model, mean_loss, training, transfer, walk

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models.pi_net import GatedFilter, PiNetConfig
from llmemf.models.time_lines import whole_history


@pytest.fixture(scope="module")
def data():
    return make_data(missing=False)


def by_hand(model, row, domain, bug=False):
    """Logits over the domain's items."""
    states, others = walk(model, row)
    z = last(transfer(model, states, others, 1 - domain, bug=bug), model.config.dim)
    return logits(model, z, last(states[domain], model.config.dim), domain)


@pytest.mark.parametrize("values", [{}, {"members": 1}, {"literal_member_bug": True}])
def test_scores_equal_the_equations(data, values):
    model = make_model("pi_net", data, **values)
    with torch.no_grad():
        for domain in (0, 1):
            scores = model.score_all(histories(ROWS), domain).numpy()
            for row, score in zip(ROWS, scores):
                expected = by_hand(model, row, domain, bug=model.config.literal_member_bug)
                np.testing.assert_allclose(score, expected, rtol=1e-9, atol=1e-9)


def test_the_reference_gru_is_torchs():
    """The reference itself against one step of `torch.nn.GRUCell`, which has the same equations."""
    cell = torch.nn.GRUCell(3, 4).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    state = cell(x[1:], cell(x[:1]))
    weights = {f"{name}_l0": value.detach().numpy() for name, value in cell.named_parameters()}
    np.testing.assert_allclose(gru(weights, x.numpy())[-1], state[0].detach().numpy(), rtol=1e-12)


def test_the_member_bug_changes_scores(data):
    one, other = (make_model("pi_net", data, literal_member_bug=bug) for bug in (False, True))
    other.load_state_dict({name: one.state_dict()[name] for name in other.state_dict()})
    with torch.no_grad():
        assert not torch.allclose(one.score_all(histories(ROWS[:1]), 0), other.score_all(histories(ROWS[:1]), 0))


VIEWS = [{}, {"prefixes": "whole"}, {"prefixes": "whole", "v2_causal": False}]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("objective", ["full", "sampled"])
def test_training_loss_by_hand(data, view, objective):
    model = make_model("pi_net", data, objective=objective, **view)
    rows = [row for row in ROWS if len(row) > 1]
    batch = training(rows)
    if objective == "sampled":
        # With every item among the inputs, all are counted exactly and nothing is estimated.
        rows = rows + [[item, 1 if item < NUM_X else 41] for item in range(NUM_ITEMS)]
        batch = training(rows)

    def value(seen, domain, target):
        found = by_hand(model, seen, domain)
        return np.logaddexp.reduce(found) - found[target - (NUM_X if domain else 0)]

    with torch.no_grad():
        assert float(model.training_loss(batch)) == pytest.approx(mean_loss(rows, model.config, value), rel=1e-6)


def test_the_views_have_losses_of_their_own(data):
    batch = training([row for row in ROWS if len(row) > 1])
    losses = [make_model("pi_net", data, **view).training_loss(batch).item() for view in VIEWS]
    assert min(abs(a - b) for a, b in ((losses[0], losses[1]), (losses[1], losses[2]))) > 1e-3


def test_the_originals_view_and_every_item_as_a_target_exclude_each_other():
    with pytest.raises(InputError, match="v2_causal = false needs prefixes = whole"):
        build_config(PiNetConfig, {"v2_causal": False})


def test_earlier_states_know_nothing_of_later_items(data):
    model = make_model("pi_net", data)
    row = [3, 35, 8, 50, 9, 60]
    found = []
    for final in (60, 9):
        lines = whole_history(
            histories([[*row[:4], final, *([] if final == 60 else [60])]]), num_x=NUM_X, pad=NUM_ITEMS
        )
        with torch.no_grad():
            states = model.encode(lines)
            found.append(
                [states[0][0, :2], states[1][0, :2], *(model.transfer(lines, states, d)[0, :2] for d in (0, 1))]
            )
    for one, other in zip(*found):
        assert torch.equal(one, other)


def test_the_filter_gradient_is_right():
    torch.manual_seed(0)
    cell = GatedFilter(3, 2, 0.0).double()
    own, other = (torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(cell, (own, other))


def test_a_softmax_over_both_domains_is_refused():
    with pytest.raises(InputError, match="softmax_scope"):
        build_config(PiNetConfig, {"softmax_scope": "all"})
