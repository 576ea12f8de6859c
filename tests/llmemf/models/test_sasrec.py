"""SASRec against a plain NumPy version of its blocks, one history and one query at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, batch_of, make_data, make_scenario, random_model

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models.sasrec import SASRecConfig

WIDTH = 4
SETTINGS = {"model": "sasrec", "dim": WIDTH, "max_length": 12, "dropout": 0.0, "device": "cpu"}
FORMS = [{}, {"heads": 2, "encoder_layers": 3}]


@pytest.fixture(scope="module")
def data():
    return make_data(missing=False)


def make(data, **values):
    return random_model(data, {**SETTINGS, **values}, 0.5)


def layer_norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attend(queries, x, weights, block, heads):
    """Each position on its own: softmax over itself and what is before it."""
    q, k, v = (
        linear(queries, weights, f"{block}.query"),
        linear(x, weights, f"{block}.key"),
        linear(x, weights, f"{block}.value"),
    )
    width, mixed = WIDTH // heads, np.zeros_like(x)
    for t in range(len(x)):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            raw = np.array([q[t, part] @ k[j, part] / np.sqrt(width) for j in range(t + 1)])
            share = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
            mixed[t, part] = sum(share[j] * v[j, part] for j in range(t + 1))
    return linear(mixed, weights, f"{block}.out")


def read(model, history):
    """(length, D) states of one history."""
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    config, count = model.config, len(history)
    x = np.sqrt(WIDTH) * weights["items"][history] + weights["encoder.positions"][:count]
    for number in range(config.encoder_layers):
        block = f"encoder.blocks.{number}"

        def network(states, block=block):
            return linear(np.maximum(0, linear(states, weights, f"{block}.inner")), weights, f"{block}.outer")

        def norm(states, which, block=block):
            return layer_norm(states, weights, f"{block}.norm_{which}")

        q = norm(x, "attention")
        x = norm(q + attend(q, x, weights, block, config.heads), "network")
        x = x + network(x)
    return layer_norm(x, weights, "encoder.norm")


def real(row):
    return [item for item in row.tolist() if item < NUM_ITEMS]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("domains", ["merged", "target_only"])
def test_scores_are_those_of_plain_loops(data, form, domains):
    model = make(data, **form, domains=domains)
    table, batch = model.items.detach().numpy(), batch_of(data, model, "valid")
    for domain, items in ((0, slice(0, NUM_X)), (1, slice(NUM_X, NUM_ITEMS))):
        with torch.no_grad():
            scores = model.score_all(batch, domain).numpy()
        view = batch.views["xy" if domains == "merged" else "xy"[domain]]
        for row, found in zip(view.items, scores):
            history = real(row)
            expected = table[items] @ read(model, history)[-1] if history else np.zeros(len(table[items]))
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def steps_of(data, domains):
    """(user, history, next item) of every step of every training sequence."""
    found = []
    for user, row in zip(data.train.users, map(data.train.row, range(len(data.train)))):
        parts = [row] if domains == "merged" else [row[row < NUM_X], row[row >= NUM_X]]
        found += [(user, part[:stop].tolist(), int(part[stop])) for part in parts for stop in range(1, len(part))]
    return found


@pytest.mark.parametrize("scope", ["domain", "all"])
@pytest.mark.parametrize("domains", ["merged", "target_only"])
def test_cross_entropy_of_every_step(data, scope, domains):
    model = make(data, softmax_scope=scope, domains=domains)
    table, total = model.items.detach().numpy(), []
    for _, history, target in steps_of(data, domains):
        scores = table @ read(model, history)[-1]
        items = slice(0, NUM_ITEMS) if scope == "all" else slice(0, NUM_X) if target < NUM_X else slice(NUM_X, None)
        total.append(np.log(np.exp(scores[items]).sum()) - scores[target])
    assert model.training_loss(batch_of(data, model, "train")).item() == pytest.approx(np.mean(total), rel=1e-9)


@pytest.mark.parametrize("domains", ["merged", "target_only"])
def test_binary_cross_entropy_of_every_step(data, domains, monkeypatch):
    """The negative is made a function of user and target, so that each step must meet its own."""
    model = make(data, loss="bce", domains=domains)
    monkeypatch.setattr(
        model.unseen, "draw", lambda users, targets: ((users * 7 + targets * 3 + 1) % NUM_ITEMS)[:, None]
    )
    table, total = model.items.detach().numpy(), []
    for user, history, target in steps_of(data, domains):
        state = read(model, history)[-1]
        negative = (user * 7 + target * 3 + 1) % NUM_ITEMS
        right, wrong = (1 / (1 + np.exp(-state @ table[item])) for item in (target, negative))
        total.append(-np.log(right) - np.log(1 - wrong))
    assert model.training_loss(batch_of(data, model, "train")).item() == pytest.approx(np.mean(total), rel=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_later_item_changes_no_earlier_state(data, form):
    model = make(data, **form)
    items = torch.randint(0, NUM_ITEMS, (4, 9))
    items[0, :3] = NUM_ITEMS
    with torch.no_grad():
        before = model.states(items)
        for column in range(3, 9):
            changed = items.clone()
            changed[:, column] = (changed[:, column] + 1) % NUM_ITEMS
            after = model.states(changed)
            assert torch.equal(after[:, :column], before[:, :column])
            assert not torch.equal(after[:, column], before[:, column])


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="heads = 3 must divide dim = 4"):
        build_config(SASRecConfig, {**SETTINGS, "heads": 3})


@pytest.mark.parametrize("scope", ["domain", "all"])
def test_a_negative_is_no_item_that_its_user_has_met(scope):
    """Drawn often, each unmet item of the scope comes up, and nothing else; user 0 has met nearly all of X."""
    rows = [[*range(15), NUM_X + 2], [*range(14, NUM_X - 2), NUM_X + 2], [4, NUM_X, 7]]
    scenario = make_scenario(rows={"train": rows})
    train = type(scenario.train).from_rows(np.array([0, 0, 1]), rows)
    model = make(replace(make_data(scenario, missing=False), train=train), loss="bce", softmax_scope=scope)
    met = {0: {*rows[0], *rows[1]}, 1: set(rows[2]), 2: set()}
    cases = [(user, target) for user in met for target in (0, NUM_X - 1, NUM_X, NUM_ITEMS - 1)]
    torch.manual_seed(0)
    drawn = model.unseen.draw(*(torch.tensor(part) for part in zip(*cases)), 3000)
    for (user, target), row in zip(cases, drawn):
        low, high = (0, NUM_ITEMS) if scope == "all" else (0, NUM_X) if target < NUM_X else (NUM_X, NUM_ITEMS)
        assert set(row.tolist()) == set(range(low, high)) - met[user]
