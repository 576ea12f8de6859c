"""BPRMF against NumPy: scores and loss by plain loops, the gradient of the paper, users that are folded in."""

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, random_model, whole

from llmemf.config import build_config
from llmemf.models.bprmf import BPRMFConfig
from llmemf.training import Trainer

BASE = {"model": "bprmf", "dim": 6, "max_length": 12, "device": "cpu"}
OPTIONS = [{}, {"negatives": 3}]


@pytest.fixture(scope="module")
def data():
    return make_data()


def make_model(data, **options):
    return random_model(data, {**BASE, **options}, 1.0).train()


def numbers(model):
    """P (or None), q, b as NumPy."""
    rows = model.users.rows
    return None if rows is None else rows.detach().numpy().copy(), *(
        t.detach().numpy().copy() for t in (model.items, model.bias)
    )


def fixed_negatives(model, data):
    """Negatives by a rule in place of draws."""

    def draw(users, positives, count):
        return torch.tensor([other_items(i, count) for i in positives.tolist()])

    model.unseen.draw = draw


def other_items(item, count):
    low, high = (0, NUM_X) if item < NUM_X else (NUM_X, NUM_ITEMS)
    return [low + (item - low + 5 + 3 * k) % (high - low) for k in range(count)]


def loss_by_hand(data, config, p, q, b):
    """Sequence by sequence; without P the user is the mean of the sequence's other items."""
    terms = []
    for number in range(len(data.train)):
        row = data.train.row(number).tolist()
        for place, i in enumerate(row):
            others = row[:place] + row[place + 1 :]
            user = p[data.train.users[number]] if p is not None else sum(q[other] for other in others) / len(others)
            for j in other_items(i, config.negatives):
                x_uij = user @ q[i] + b[i] - user @ q[j] - b[j]
                terms.append(np.log1p(np.exp(-x_uij)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("mode", ["id", "fold_in"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss_equals_loops(options, mode, data):
    model = make_model(data, user_mode=mode, **options)
    fixed_negatives(model, data)
    loss = model.training_loss(whole(make_sequences(data, "train", max_length=12)))
    assert loss.item() == pytest.approx(loss_by_hand(data, model.config, *numbers(model)), rel=1e-9)


def test_gradient_is_that_of_the_paper(data):
    """Per triple: -sigmoid(-x_uij) times q_i - q_j for p_u, p_u for q_i, -p_u for q_j, 1 for b_i, -1 for b_j."""
    model = make_model(data, user_mode="id")
    fixed_negatives(model, data)
    p, q, b = numbers(model)
    d_p, d_q, d_b, triples = np.zeros_like(p), np.zeros_like(q), np.zeros_like(b), 0
    for number in range(len(data.train)):
        u = data.train.users[number]
        for i in data.train.row(number).tolist():
            (j,) = other_items(i, 1)
            pull = -1 / (1 + np.exp(p[u] @ q[i] + b[i] - p[u] @ q[j] - b[j]))
            d_p[u] += pull * (q[i] - q[j])
            d_q[i] += pull * p[u]
            d_q[j] += -pull * p[u]
            d_b[i] += pull
            d_b[j] -= pull
            triples += 1
    model.training_loss(whole(make_sequences(data, "train", max_length=12))).backward()
    for parameter, expected in ((model.users.rows, d_p), (model.items, d_q), (model.bias, d_b)):
        np.testing.assert_allclose(parameter.grad.numpy(), expected / triples, rtol=1e-9, atol=1e-12)


def test_the_gradient_reaches_the_items_that_a_user_is_folded_in_from(data):
    """Against differences of the loss by hand."""
    model = make_model(data, user_mode="fold_in")
    fixed_negatives(model, data)
    model.training_loss(whole(make_sequences(data, "train", max_length=12))).backward()
    _, q, b = numbers(model)
    for item, column in ((4, 0), (13, 5), (22, 2), (40, 1), (70, 3)):
        values = []
        for step in (1e-5, -1e-5):
            moved = q.copy()
            moved[item, column] += step
            values.append(loss_by_hand(data, model.config, None, moved, b))
        assert float(model.items.grad[item, column]) == pytest.approx(
            (values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8
        )


@pytest.mark.parametrize("mode", ["auto", "id", "fold_in"])
def test_scores_equal_loops(mode):
    data = make_data(make_scenario(rows={"train": [[1, 2, 40], [3, 4, 50, 60], [5, 6]]}))
    model = make_model(data, user_mode=mode).eval()
    p, q, b = numbers(model)
    batch = whole(make_sequences(data, "valid", max_length=12))
    assert {bool(user < 3) for user in data.valid.users} == {True, False}
    for domain, items in enumerate((range(NUM_X), range(NUM_X, NUM_ITEMS))):
        scores = model.score_all(batch, domain).detach().numpy()
        for case, user in enumerate(data.valid.users):
            history = data.valid.row(case).tolist()[:-1]
            vector = np.zeros(6)
            if user < 3 and mode != "fold_in":
                vector = p[user]
            elif mode != "id":
                vector = np.mean([q[item] for item in history], 0)
            np.testing.assert_allclose(scores[case], [vector @ q[c] + b[c] for c in items], rtol=1e-9, atol=1e-12)


def test_rows_that_a_batch_touches(data):
    model = make_model(data)
    batch = make_sequences(data, "train", max_length=12).batch(torch.tensor([0, 1]))
    items = sorted({*data.train.row(0)[:-1].tolist(), *data.train.row(1)[:-1].tolist()})
    expected = torch.cat([model.items[items], model.users.rows[data.train.users[:2].tolist()]])
    assert torch.equal(model.batch_rows(batch), expected)


@pytest.mark.parametrize("mode", ["auto", "fold_in"])
def test_users_without_training_are_ranked_by_their_history(mode):
    """Two groups of readers: items below 15 of X and 50 of Y, and the others; users of validation are new."""
    rng = np.random.default_rng(0)
    groups = [(np.arange(15), np.arange(30, 50)), (np.arange(15, 30), np.arange(50, 71))]

    def row(group):
        return rng.permutation(np.concatenate([rng.choice(pool, 3, replace=False) for pool in group])).tolist()

    scenario = make_scenario(rows={"train": [row(groups[n % 2]) for n in range(30)], "valid": [row(groups[n % 2]) for n in range(40)]})  # fmt: skip
    data = make_data(scenario)
    trainer = Trainer(
        build_config(BPRMFConfig, {**BASE, "lr": 0.1, "epochs": 10, "patience": 0, "l2": 0.0, "user_mode": mode}), data
    )
    list(trainer.epochs())
    cases = torch.arange(30, 40)
    for domain, boundary in ((0, 15), (1, 20)):
        scores = trainer.model.score_all(trainer.valid_sequences.batch(cases), domain)
        first = scores[:, :boundary].mean(1) > scores[:, boundary:].mean(1)
        assert first.tolist() == [True, False] * 5
