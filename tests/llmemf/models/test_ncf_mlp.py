"""NCF-MLP against NumPy: the network pair by pair on [user; item], and the loss by plain loops."""

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, random_model, whole

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import ncf_mlp
from llmemf.models.ncf_mlp import NCFMLPConfig, PairNetwork

BASE = {"model": "ncf_mlp", "dim": 8, "max_length": 12, "device": "cpu"}


@pytest.fixture(scope="module")
def data():
    return make_data()


def make_model(data, **options):
    return random_model(data, {**BASE, **options}, 0.5, around_start=True).train()


def logit_by_hand(tower, user, item):
    """The first layer as one matrix on [user; item]."""
    layers = [(torch.cat([tower.of_user.weight, tower.of_item.weight], 1), tower.of_item.bias)]
    layers += [(layer.weight, layer.bias) for layer in tower.hidden]
    h = np.concatenate([user, item])
    for weight, bias in layers:
        h = np.maximum(0, weight.detach().numpy() @ h + bias.detach().numpy())
    return float(tower.out.weight.detach().numpy()[0] @ h + tower.out.bias.detach().numpy()[0])


def table(parameter):
    return None if parameter is None else parameter.detach().numpy()


@pytest.mark.parametrize("options", [{}, {"layers": 1}, {"layers": 4}, {"user_mode": "id"}, {"user_mode": "fold_in"}], ids=str)  # fmt: skip
def test_scores_equal_loops(options):
    data = make_data(make_scenario(rows={"train": [[1, 2, 40], [3, 4, 50, 60], [5, 6]]}))
    model = make_model(data, **options).eval()
    mode = model.config.user_mode
    batch = whole(make_sequences(data, "valid", max_length=12))
    users, items, folding = table(model.users.rows), table(model.items), table(model.folding)
    for domain, ids in enumerate((range(NUM_X), range(NUM_X, NUM_ITEMS))):
        scores = model.score_all(batch, domain).detach().numpy()
        for case in range(8):
            user = data.valid.users[case]
            vector = np.zeros(8)
            if user < 3 and mode != "fold_in":
                vector = users[user]
            elif mode != "id":
                vector = np.mean([folding[item] for item in data.valid.row(case)[:-1]], 0)
            expected = [logit_by_hand(model.towers[domain], vector, items[c]) for c in ids]
            np.testing.assert_allclose(scores[case], expected, rtol=1e-8, atol=1e-10)


def test_parts_of_the_catalogue_give_the_same_scores(data, monkeypatch):
    model = make_model(data).eval()
    batch = whole(make_sequences(data, "valid", max_length=12))
    expected = model.score_all(batch, 1)
    monkeypatch.setattr(ncf_mlp, "SCORE_ELEMENTS", 3 * len(batch) * 8)
    torch.testing.assert_close(model.score_all(batch, 1), expected)


def other_items(item, count):
    low, high = (0, NUM_X) if item < NUM_X else (NUM_X, NUM_ITEMS)
    return [low + (item - low + 5 + 3 * k) % (high - low) for k in range(count)]


@pytest.mark.parametrize("options", [{"user_mode": "id"}, {"user_mode": "fold_in"}, {"user_mode": "id", "negatives": 2}], ids=str)  # fmt: skip
def test_loss_equals_loops(options, data):
    """The mean over all positives and negatives of X, plus that of Y."""
    model = make_model(data, **options)
    count = model.config.negatives
    model.unseen.draw = lambda users, positives, count: torch.tensor(
        [other_items(i, count) for i in positives.tolist()]
    )
    users, items, folding = table(model.users.rows), table(model.items), table(model.folding)
    terms = ([], [])
    for number in range(len(data.train)):
        row = data.train.row(number).tolist()
        for place, i in enumerate(row):
            others = row[:place] + row[place + 1 :]
            by_id = options["user_mode"] == "id"
            user = users[data.train.users[number]] if by_id else np.mean([folding[other] for other in others], 0)
            domain = int(i >= NUM_X)
            for item, label in [(i, 1), *((j, 0) for j in other_items(i, count))]:
                x = logit_by_hand(model.towers[domain], user, items[item])
                probability = 1 / (1 + np.exp(-x))
                terms[domain].append(-np.log(probability if label else 1 - probability))
    loss = model.training_loss(whole(make_sequences(data, "train", max_length=12)))
    assert float(loss) == pytest.approx(np.mean(terms[0]) + np.mean(terms[1]), rel=1e-6)


def test_each_domain_trains_its_own_tower():
    data = make_data(make_scenario(rows={"train": [[1, 2, 3], [4, 5]]}))
    model = make_model(data)
    model.training_loss(whole(make_sequences(data, "train", max_length=12))).backward()
    x, y = ([parameter.grad for parameter in tower.parameters()] for tower in model.towers)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in x)
    assert all(gradient is None or not gradient.any() for gradient in y)
    assert not model.items.grad[NUM_X:].any()


def test_hidden_layers_start_as_he_has_it():
    torch.manual_seed(0)
    he = PairNetwork(build_config(NCFMLPConfig, {**BASE, "dim": 256}))
    # Uniform in +-sqrt(6 / inputs) has the variance 2 / inputs; the first layer has 512 inputs in two parts.
    for layer, inputs in ((he.of_user, 512), (he.of_item, 512), (he.hidden[0], 256), (he.hidden[1], 128)):
        assert float(layer.weight.std()) == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
    assert float(he.out.weight.abs().max()) <= (3 / 64) ** 0.5


def test_widths_are_halved():
    tower = PairNetwork(build_config(NCFMLPConfig, {"dim": 32}))
    assert [tower.of_user.out_features, *(layer.out_features for layer in tower.hidden)] == [32, 16, 8]
    with pytest.raises(InputError, match="layers = 5 halves dim = 8 to nothing: at least 16"):
        build_config(NCFMLPConfig, {"dim": 8, "layers": 5})


@pytest.mark.parametrize("mode", ["auto", "id", "fold_in"])
def test_rows_that_a_batch_touches(mode, data):
    model = make_model(data, user_mode=mode)
    batch = make_sequences(data, "train", max_length=12).batch(torch.tensor([0, 1]))
    items = sorted({*data.train.row(0)[:-1].tolist(), *data.train.row(1)[:-1].tolist()})
    expected = [model.items[items]]
    if mode != "id":
        expected.append(model.folding[items])
    if mode != "fold_in":
        expected.append(model.users.rows[data.train.users[:2].tolist()])
    assert torch.equal(model.batch_rows(batch), torch.cat(expected))
