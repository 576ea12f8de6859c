"""LeCDSR against a twin in NumPy: one prefix at a time, no padding but the slots, convolutions as plain loops."""

import math

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_USERS, NUM_X, make_data, make_scenario

from llmemf.batches import DeviceSequences, TrialData
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import lecdsr
from llmemf.models.lecdsr import LeCDSR, LeCDSRConfig, alignment, batch_hinge, hinge_sums

WIDTH, HIDDEN, NEGATIVES = 5, 7, 4
OPTIONS = [
    {},
    {"max_length": 11},
    {"profile": "table"},
    {"temperature": 0.7, "align_temperature": 0.4, "align_weight": 2.0},
    {"align_weight": 0.0},
    {"literal_batch_negatives": True},
]


@pytest.fixture(scope="module")
def data():
    return make_data()


def make_model(data, **options):
    """A model whose parameters are all far from their initial values."""
    given = {"model": "lecdsr", "dim": WIDTH, "text_hidden": HIDDEN, "max_length": 12, "negatives": NEGATIVES}
    torch.manual_seed(0)
    model = LeCDSR(build_config(LeCDSRConfig, {**given, "device": "cpu", **options}), data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return model.eval()


def sequences_of(model, data, split):
    return DeviceSequences(
        getattr(data, split),
        num_x=NUM_X,
        num_items=NUM_ITEMS,
        max_length=model.config.max_length,
        held_out=split != "train",
    )


def whole(sequences):
    return sequences.batch(torch.arange(len(sequences)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def drawn_negatives(target):
    """What stands in for the random draws: fixed, of the target's domain, never the target."""
    low, size = (0, NUM_X) if target < NUM_X else (NUM_X, NUM_ITEMS - NUM_X)
    return [low + (target - low + step) % size for step in (1, 3, 8, 20)]


@pytest.fixture
def fixed_draws(monkeypatch):
    def draw(targets, count, *, num_x, num_items):
        assert (count, num_x, num_items) == (NEGATIVES, NUM_X, NUM_ITEMS)
        return torch.tensor([drawn_negatives(int(target)) for target in targets])

    monkeypatch.setattr(lecdsr, "draw_in_domain", draw)


class Twin:
    """Scores and loss of a user's items given as a list, oldest first."""

    def __init__(self, model, data):
        self.config = model.config
        self.p = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
        self.text, self.has = data.text.rows.astype(np.float64), data.text.has
        self.known = set(data.train.users.tolist())

    def mlp(self, name, row):
        p = self.p
        hidden = p[f"{name}.0.weight"] @ row + p[f"{name}.0.bias"]
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
        hidden = hidden * p[f"{name}.1.weight"] + p[f"{name}.1.bias"]
        hidden = np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in hidden])
        return p[f"{name}.3.weight"] @ hidden + p[f"{name}.3.bias"]

    def kernel(self):
        """(L, D) the learned filter as what a circular convolution slides over its input."""
        slots, half = self.config.max_length, self.p["filter"][..., 0] + 1j * self.p["filter"][..., 1]
        kernel = np.zeros((slots, WIDTH))
        for n in range(slots):
            for f in range(slots):
                weight = half[f] if f < len(half) else np.conj(half[slots - f])
                turn = np.exp(2j * np.pi * f * n / slots)
                # Frequencies that are their own mirror image carry no phase in a real signal.
                part = weight.real * turn.real if 2 * f in (0, slots) else (weight * turn).real
                kernel[n] += part / slots
        return kernel

    def fuse(self, ids, texts):
        p, slots = self.p, self.config.max_length
        padded = np.zeros((2, slots, WIDTH))
        padded[0, : len(ids)], padded[1, : len(ids)] = ids, texts
        kernel, x = self.kernel(), []
        for n in range(len(ids)):
            first = sum(kernel[m] * padded[0, (n - m) % slots] for m in range(slots))
            second = sum(padded[1, m] * padded[0, (n - m) % slots] for m in range(slots)) / math.sqrt(slots)
            gates = [
                sigmoid(p[f"gates.{k}.weight"][0] @ c + p[f"gates.{k}.bias"][0]) for k, c in enumerate((first, second))
            ]
            x.append(first * gates[0] + second * gates[1])
        return np.array(x)

    def user(self, user, items):
        if self.config.profile == "table":
            return self.p["users"][user] if user in self.known else np.zeros(WIDTH)
        rows = [self.text[item] for item in items if self.has[item]]
        return self.mlp("profile_map", np.mean(rows, 0) if rows else np.zeros(self.text.shape[1]))

    def query(self, user, items):
        p = self.p
        ids = np.array([p["items"][item] for item in items])
        x = self.fuse(ids, np.array([self.mlp("text_map", self.text[item]) for item in items]))
        u = self.user(user, items)
        gated, weights = [], []
        for t, item in enumerate(items):
            gate = p["feature_item.weight"] @ x[t] + p["feature_item.bias"] + p["feature_user.weight"] @ u
            gated.append(x[t] * sigmoid(gate))
            later = sum((other >= NUM_X) == (item >= NUM_X) for other in items[t + 1 :])
            weights.append(
                sigmoid(
                    gated[-1] @ p["instance_item.weight"][0]
                    + u @ p["instance_user.weight"][len(items) - 1 - t]
                    + p["positions"][later] @ p["instance_position.weight"][0]
                )
            )
        h = sum(weight * row for weight, row in zip(weights, gated)) / sum(weights)
        return u + h + x.mean(0)

    def score(self, user, items, candidate):
        return self.p["bias"][candidate] + self.query(user, items) @ self.p["output"][candidate]

    def align(self, items):
        items = [item for item in items if self.has[item]]
        if not items:
            return 0.0
        ids = np.array([self.p["items"][item] for item in items])
        texts = np.array([self.mlp("text_map", self.text[item]) for item in items])
        tau, total = self.config.align_temperature, 0.0
        for i in range(len(items)):
            wanted = softmax((ids @ ids[i] + texts @ texts[i]) / (2 * tau))
            for logits in (texts @ ids[i] / tau, ids @ texts[i] / tau):
                total -= wanted @ np.log(softmax(logits))
        return total / len(items)

    def loss(self, users, rows):
        config = self.config
        samples = [(user, row[:end], row[end]) for user, row in zip(users, rows) for end in range(1, len(row))]
        positive = [self.score(user, items, target) for user, items, target in samples]
        negative = [[self.score(u, items, c) for c in drawn_negatives(target)] for u, items, target in samples]
        everything = [score for scores in negative for score in scores]
        total = 0.0
        for (_, items, _), own, others in zip(samples, positive, negative):
            compared = everything if config.literal_batch_negatives else others
            total += sum(max(0.0, 1 + (score - own) / config.temperature) for score in compared)
            total += config.align_weight * self.align(items) / len(samples)
        return total / len(samples)


@pytest.mark.parametrize("options", OPTIONS[:3])
def test_scores_equal_the_twin(data, options):
    model = make_model(data, **options)
    twin, batch = Twin(model, data), whole(sequences_of(model, data, "valid"))
    with torch.no_grad():
        scores = [model.score_all(batch, domain).numpy() for domain in (0, 1)]
    for case in range(0, len(batch), 4):
        history = data.valid.row(case)[:-1].tolist()
        for domain, candidates in ((0, (0, 3, NUM_X - 1)), (1, (NUM_X, NUM_ITEMS - 1))):
            expected = [twin.score(int(data.valid.users[case]), history, c) for c in candidates]
            found = [scores[domain][case, c - NUM_X * domain] for c in candidates]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_loss_equals_the_twin(data, options, fixed_draws):
    model = make_model(data, **options)
    index = torch.tensor([0, 1, 2, 7, 10])
    loss = model.training_loss(sequences_of(model, data, "train").batch(index))
    rows = [data.train.row(int(case)).tolist() for case in index]
    expected = Twin(model, data).loss(data.train.users[index.numpy()].tolist(), rows)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_history_longer_than_the_slots_is_its_newest_items(data):
    model = make_model(data, max_length=4)
    batch = whole(sequences_of(model, data, "valid"))
    case = int(np.argmax(data.valid.lengths))
    history = data.valid.row(case)[:-1].tolist()
    assert len(history) > 4
    with torch.no_grad():
        found = model.score_all(batch, 1)[case, 5]
    expected = Twin(model, data).score(int(data.valid.users[case]), history[-4:], NUM_X + 5)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_prefix_does_not_know_what_comes_after_it(data):
    """Changing the items behind a prefix, its target among them, leaves its query as it is."""
    model = make_model(data)
    rows = torch.tensor([[2, 40, 5, 61, 9, 33], [2, 40, 5, 12, 50, 1]])
    (items,) = model._slots(rows)
    row, last = torch.tensor([0, 1, 0, 1]), torch.tensor([2, 2, 4, 4])
    with torch.no_grad():
        queries = model._queries(torch.zeros(2, dtype=torch.long), items, *model._vectors(items), row, last)
    torch.testing.assert_close(queries[0], queries[1])
    assert not torch.allclose(queries[2], queries[3])


def test_every_hinge_of_the_literal_switch_is_counted_with_its_gradient():
    generator = torch.Generator().manual_seed(3)
    positive = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    negative = (torch.randn(6, 5, generator=generator, dtype=torch.float64) * 2).requires_grad_()
    naive = torch.relu(1 + (negative.flatten()[None] - positive[:, None]) / 1.5).sum(1)
    sums = batch_hinge(positive, negative, 1.5)
    torch.testing.assert_close(sums, naive)
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((sums * weights).sum(), (positive, negative)),
        torch.autograd.grad((naive * weights).sum(), (positive, negative)),
    ):
        torch.testing.assert_close(ours, theirs)
    own = torch.relu(1 + (negative - positive[:, None]) / 1.5).sum(1)
    torch.testing.assert_close(hinge_sums(positive, negative, 1.5), own)


def test_alignment_of_one_item_is_nothing_and_of_none_is_finite():
    ids, texts = torch.randn(2, 3, 4).requires_grad_(), torch.randn(2, 3, 4).requires_grad_()
    seen = torch.tensor([[True, False, False], [False, False, False]])
    loss = alignment(ids, texts, torch.tensor([0, 1]), seen, 3.0)
    torch.testing.assert_close(loss, torch.zeros(2))
    gradients = torch.autograd.grad(loss.sum(), (ids, texts))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_of_a_long_window_some_prefixes_are_drawn(data):
    model = make_model(data, prefixes=3)
    following = torch.arange(24).view(2, 12).masked_fill(torch.tensor([[False], [True]]), NUM_ITEMS)
    following[1, 4] = 6
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        row, last = model._prefixes(following)
        assert row.tolist() == [0, 0, 0, 1] and last[3] == 4 and last[:3].unique().numel() == 3
        seen.update(last[:3].tolist())
    assert seen == set(range(12))


def test_a_user_table_is_zero_for_users_without_training():
    scenario = make_scenario(rows={"train": [[1, 40, 2], [35, 3, 4]]})
    model = make_model(make_data(scenario), profile="table")
    (slots,) = model._slots(torch.tensor([[1, 40]]))
    for user in range(NUM_USERS):
        u = model._user(torch.tensor([user]), slots, torch.tensor([0]), torch.tensor([1]))
        assert bool(u.any()) is (user in (0, 1))


def test_text_vectors_survive_initialisation_and_are_no_parameters(data):
    model = make_model(data)
    assert np.array_equal(model.text.rows.numpy(), data.text.rows)
    names = {name for name, _ in model.named_parameters()} | set(model.trainable_state())
    assert not any("rows" in name or "profiles" in name for name in names)


def test_it_needs_text():
    with pytest.raises(InputError, match="lecdsr reads text features"):
        make_model(TrialData.build(make_scenario()))


def test_status_and_needs_follow_the_profile(data):
    assert LeCDSR.needs(LeCDSRConfig()) == {"text"} and LeCDSR.status == "pseudo-profile"
    assert LeCDSR.needs(LeCDSRConfig(profile="llm")) == {"text", "profile"}
    assert make_model(data).status == "pseudo-profile"
