import numpy as np
import pytest
import torch
import two_domain_reference as reference
from tiny import NUM_X, make_data

from llmemf.models import psjnet
from llmemf.models.psjnet import Join


@pytest.fixture(scope="module")
def data():
    return make_data(missing=False)


def split(model, states, others, line):
    """s^k_i of every step i and role k, (steps, K, D)."""
    p = reference.part(reference.arrays(model), f"splits.{line}.")
    width = model.config.dim
    u, u_ = p["recurrent.weight"][:width], p["recurrent.weight"][width:]
    found = []
    for role in p["roles"]:
        s, steps = np.zeros(width), []
        for h, b in zip(states[line], others[line]):
            g = reference.sigmoid(
                reference.linear(p, "gate", np.concatenate([h, b])) + u @ s + p["role_gate.weight"] @ role
            )
            c = np.tanh(reference.linear(p, "candidate", h) + u_ @ s + p["role_candidate.weight"] @ role)
            s = g * c + (1 - g) * s
            steps.append(s)
        found.append(steps)
    return [[steps[i] for steps in found] for i in range(len(states[line]))]


def join(p, giver, target, kind, width):
    """z out of the giver's steps; a target without steps counts as one at zero."""
    if not giver:
        return np.zeros(width)
    roles = len(giver[0])
    target = target or [[np.zeros(width)] * roles]
    rho = np.zeros((len(giver), roles))
    for i in range(len(giver)):
        for k in range(roles):
            rho[i, k] = max(
                p["vector.weight"][0]
                @ np.tanh(p["from_giver.weight"] @ giver[i][k] + p["from_target.weight"] @ other[k])
                for other in target
            )
    if kind == "joint":
        weights = reference.softmax(rho.reshape(-1)).reshape(rho.shape)
    else:
        weights = np.stack([reference.softmax(rho[:, k]) for k in range(roles)], 1) / roles
    return sum(weights[i, k] * giver[i][k] for i in range(len(giver)) for k in range(roles))


def by_hand(model, row, domain):
    width = model.config.dim
    states, others = reference.walk(model, row)
    if model.config.variant == "I":
        z = reference.last(reference.transfer(model, states, others, 1 - domain), width)
    else:
        steps = [split(model, states, others, line) for line in (0, 1)]
        p = reference.part(reference.arrays(model), f"joins.{domain}.")
        z = join(p, steps[1 - domain], steps[domain], model.config.join, width)
    return reference.logits(model, z, reference.last(states[domain], width), domain)


@pytest.mark.parametrize("values", [{}, {"join": "per_role_mean"}, {"roles": 1}, {"variant": "I"}])
def test_scores_equal_the_equations(data, values):
    model = reference.make_model("psjnet", data, **values)
    with torch.no_grad():
        for domain in (0, 1):
            for row, score in zip(reference.ROWS, model.score_all(reference.histories(reference.ROWS), domain).numpy()):
                np.testing.assert_allclose(score, by_hand(model, row, domain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "values",
    [{}, {"join": "per_role_mean"}, {"variant": "I"}, {"prefixes": "whole"}, {"prefixes": "whole", "v2_causal": False}],
)
def test_training_loss_by_hand(data, values):
    """The join looks at all steps, so each target's inputs must be cut before it: the reference sees nothing else."""
    model = reference.make_model("psjnet", data, **values)
    rows = [row for row in reference.ROWS if len(row) > 1]

    def value(seen, domain, target):
        found = by_hand(model, seen, domain)
        return np.logaddexp.reduce(found) - found[target - (NUM_X if domain else 0)]

    with torch.no_grad():
        expected = reference.mean_loss(rows, model.config, value)
        assert float(model.training_loss(reference.training(rows))) == pytest.approx(expected, rel=1e-6)


def test_variant_one_is_pi_net(data):
    ours, theirs = reference.make_model("psjnet", data, variant="I"), reference.make_model("pi_net", data)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for domain in (0, 1):
            assert torch.equal(
                ours.score_all(reference.histories(reference.ROWS), domain),
                theirs.score_all(reference.histories(reference.ROWS), domain),
            )


def naive_join(layer, giver, target, giver_seen, target_seen):
    """The same with the whole table of pairs, differentiated by torch."""
    table = layer.from_giver(giver).unsqueeze(3) + layer.from_target(target).unsqueeze(2)
    rho = layer.vector(torch.tanh(table))[..., 0]
    hidden = torch.arange(target.shape[2]) >= target_seen[:, None]
    rho = rho.masked_fill(hidden[:, None, None], -torch.inf).amax(3)
    rho = rho.masked_fill((torch.arange(giver.shape[2]) >= giver_seen[:, None])[:, None], -torch.inf)
    return torch.einsum("bkl,bkld->bd", rho.flatten(1).softmax(1).view_as(rho), giver)


@pytest.mark.parametrize("elements", [1, 2**25])
def test_the_join_of_several_targets_is_that_of_each_alone(elements, monkeypatch):
    """Values and gradients against a plain table of pairs per target, in pieces of one row as well as in one piece."""
    monkeypatch.setattr(psjnet, "PAIR_ELEMENTS", elements)
    torch.manual_seed(1)
    layer = Join(4).double()
    inputs = [torch.randn(3, 2, length, 4, dtype=torch.float64, requires_grad=True) for length in (5, 6)]
    seen = torch.tensor([[5, 1], [2, 2], [3, 4]]), torch.tensor([[1, 3], [6, 2], [4, 5]])

    def one_by_one(*given):
        return torch.stack([naive_join(layer, *given[:2], given[2][:, t], given[3][:, t]) for t in (0, 1)], 1)

    found = []
    for function in (layer, one_by_one):
        result = function(*inputs, *seen)
        found.append([result, *torch.autograd.grad(result.sin().sum(), [*inputs, *layer.parameters()])])
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
