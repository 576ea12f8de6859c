"""GRU4Rec against plain loops over users and steps in NumPy."""

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, batch_of, make_data, make_scenario, random_model

from llmemf.batches import Batch, SequenceView, device_sequences
from llmemf.config import build_config
from llmemf.models.gru4rec import GRU4Rec, GRU4RecConfig

WIDTH = 5
SETTINGS = {"model": "gru4rec", "dim": WIDTH, "max_length": 12, "dropout": 0.0, "device": "cpu"}
FORMS = [
    {"variant": "ce"},
    {"variant": "ce", "layers": 2},
    {"variant": "pinet"},
    {"variant": "official"},
]


@pytest.fixture(scope="module")
def data():
    return make_data(missing=False)


def make(data, **values):
    return random_model(data, {**SETTINGS, **values}, 0.5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def read(model, history):
    """States after each item of one history, one after another."""
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    inputs = [weights["items"][item][:WIDTH] for item in history]
    for layer in range(model.config.layers):
        recurrent, given = weights[f"gru.weight_hh_l{layer}"], weights[f"gru.weight_ih_l{layer}"]
        size = recurrent.shape[1]
        bias_in = weights.get(f"gru.bias_ih_l{layer}", np.zeros(3 * size))
        bias_state = weights.get(f"gru.bias_hh_l{layer}", np.zeros(3 * size))
        part = [slice(0, size), slice(size, 2 * size), slice(2 * size, 3 * size)]
        h, outputs = np.zeros(size), []
        for x in inputs:
            a, b = given @ x + bias_in, recurrent @ h + bias_state
            r, z = sigmoid(a[part[0]] + b[part[0]]), sigmoid(a[part[1]] + b[part[1]])
            n = np.tanh(a[part[2]] + r * b[part[2]])
            h = (1 - z) * n + z * h
            outputs.append(h)
        inputs = outputs
    return inputs


def logits(model, state):
    """Of all items."""
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    if model.config.variant == "ce":
        return weights["items"] @ (weights["project.weight"] @ state + weights["project.bias"])
    table = weights["items"] if model.config.variant == "official" else weights["output"]
    return table[:, :-1] @ state + table[:, -1]


def real(row):
    return [item for item in row.tolist() if item < NUM_ITEMS]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("domains", ["merged", "target_only"])
def test_scores_are_those_of_a_plain_loop(data, form, domains):
    model = make(data, **form, domains=domains)
    batch = batch_of(data, model, "valid")
    empty = 0
    for domain, items in ((0, slice(0, NUM_X)), (1, slice(NUM_X, NUM_ITEMS))):
        with torch.no_grad():
            scores = model.score_all(batch, domain).numpy()
        view = batch.views["xy" if domains == "merged" else "xy"[domain]]
        for row, found in zip(view.items, scores):
            states = read(model, real(row))
            empty += not states
            state = states[-1] if states else np.zeros(model.config.state_width)
            np.testing.assert_allclose(found, logits(model, state)[items], rtol=1e-5, atol=1e-5)
    assert (empty > 0) is (domains == "target_only"), "histories without an item of a domain are among the cases"


def softmax_loss(model, rows, scope):
    """Mean over (history, next item) pairs, one at a time."""
    total = []
    for history, target in rows:
        scores = logits(model, read(model, history)[-1])
        items = slice(0, NUM_ITEMS) if scope == "all" else slice(0, NUM_X) if target < NUM_X else slice(NUM_X, None)
        total.append(np.log(np.exp(scores[items]).sum()) - scores[target])
    return np.mean(total)


def prefix_pairs(data, domains):
    """(history, next item) of every step of every training sequence."""
    pairs = []
    for row in map(data.train.row, range(len(data.train))):
        parts = [row] if domains == "merged" else [row[row < NUM_X], row[row >= NUM_X]]
        pairs += [(part[:stop].tolist(), int(part[stop])) for part in parts for stop in range(1, len(part))]
    return pairs


@pytest.mark.parametrize("variant", ["ce", "pinet"])
@pytest.mark.parametrize("scope", ["domain", "all"])
@pytest.mark.parametrize("domains", ["merged", "target_only"])
def test_the_loss_is_a_softmax_over_every_prefix(data, variant, scope, domains):
    model = make(data, variant=variant, softmax_scope=scope, domains=domains)
    expected = softmax_loss(model, prefix_pairs(data, domains), scope)
    assert model.training_loss(batch_of(data, model, "train")).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_later_item_changes_no_earlier_state(data, form):
    model = make(data, **form)
    items = torch.randint(0, NUM_ITEMS, (4, 9))
    with torch.no_grad():
        before = model.states(items)
        for column in range(9):
            changed = items.clone()
            changed[:, column] = (changed[:, column] + 1) % NUM_ITEMS
            after = model.states(changed)
            assert torch.equal(after[:, :column], before[:, :column])
            assert not torch.equal(after[:, column], before[:, column])


def test_the_other_domain_is_read_only_in_the_merged_sequence(data):
    base = batch_of(data, make(data), "valid")
    moved = {
        name: SequenceView(torch.where((v.items >= NUM_X) & (v.items < NUM_ITEMS - 1), v.items + 1, v.items), v.next_same, v.next_merged)
        for name, v in base.views.items()
    }  # fmt: skip
    for domains in ("merged", "target_only"):
        model = make(data, domains=domains)
        with torch.no_grad():
            before, after = (model.score_all(b, 0) for b in (base, Batch(base.users, moved, None)))
        assert torch.equal(before, after) is (domains == "target_only")


def elu(x, alpha):
    return np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1))


def ranking_loss(model, sequences, drawn, scope, length):
    """The authors' loss, row by row: negatives are the other sequences' targets of the same step, and the drawn items."""
    config, total, count = model.config, 0.0, 0
    for number, row in enumerate(sequences):
        for stop in range(1, len(row)):
            target, scores = row[stop], logits(model, read(model, row[:stop])[-1])
            negatives = [other[stop] for n, other in enumerate(sequences) if n != number and stop < len(other)]
            if scope == "domain":
                negatives += drawn[0 if target < NUM_X else 1]
                negatives = [item for item in negatives if (item < NUM_X) == (target < NUM_X)]
            else:
                negatives += drawn[0]
            negatives = [item for item in negatives if item != target]
            count += 1
            if not negatives:
                continue
            own, others = scores[target], scores[negatives]
            if config.ranking_loss == "cross_entropy":
                total += np.log(np.exp([own, *others]).sum()) - own
                continue
            if config.final_activation != "linear":
                alpha = {"elu-0.5": 0.5, "elu-1": 1.0}[config.final_activation]
                own, others = elu(own, alpha), elu(others, alpha)
            weights = np.exp(others) / np.exp(others).sum()
            total += -np.log((weights * sigmoid(own - others)).sum()) + config.bpreg * (weights * others**2).sum()
    assert count == length
    return total / count


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"bpreg": 0.0, "final_activation": "elu-1"},
        {"final_activation": "linear", "softmax_scope": "all"},
        {"ranking_loss": "cross_entropy"},
        {"ranking_loss": "cross_entropy", "softmax_scope": "all"},
    ],
    ids=str,
)
def test_the_ranking_loss_is_that_of_a_plain_loop(data, values, monkeypatch):
    model = make(data, variant="official", bpreg=values.pop("bpreg", 0.7), **values)
    scope = model.config.softmax_scope
    drawn = [[1, 5, 5, 9], [NUM_X, NUM_X + 7, NUM_ITEMS - 1, NUM_X + 3]] if scope == "domain" else [[2, 2, 40, 66]]
    chosen = {0: drawn[0], NUM_X: drawn[-1]}
    monkeypatch.setattr(model, "_draw", lambda low, high, count: torch.tensor(chosen[low]))
    rows = [data.train.row(number).tolist() for number in range(len(data.train))]
    expected = ranking_loss(model, rows, drawn, scope, sum(len(row) - 1 for row in rows))
    assert model.training_loss(batch_of(data, model, "train")).item() == pytest.approx(expected, rel=1e-5)


def test_a_row_without_any_negative_counts_nothing(data, monkeypatch):
    model = make(data, variant="official")
    sequences = device_sequences(model.config, data, "train", torch.device("cpu"))
    batch = sequences.batch(torch.tensor([4]))
    targets = batch.views["xy"].next_merged[0]
    first = {
        low: int(targets[(targets >= low) & (targets < high)][0]) for low, high in ((0, NUM_X), (NUM_X, NUM_ITEMS))
    }
    monkeypatch.setattr(model, "_draw", lambda low, high, count: torch.full((count,), first[low]))
    loss = model.training_loss(batch)
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_negatives_are_drawn_in_proportion_to_a_power_of_support(power):
    rows = [[0, 1, 2, 40, 41], [0, 1, 40], [0, 40], [0, 40, 43]]
    data = make_data(make_scenario(rows={"train": rows}), missing=False)
    model = make(data, variant="official", support_power=power)
    support = {0: 4, 1: 2, 2: 1, 40: 4, 41: 1, 43: 1}
    torch.manual_seed(0)
    for low, high in ((0, NUM_X), (NUM_X, NUM_ITEMS), (0, NUM_ITEMS)):
        drawn = model._draw(low, high, 40000).bincount(minlength=NUM_ITEMS) / 40000
        weights = {item: number**power for item, number in support.items() if low <= item < high}
        expected = torch.zeros(NUM_ITEMS)
        for item, weight in weights.items():
            expected[item] = weight / sum(weights.values())
        torch.testing.assert_close(drawn, expected, rtol=0, atol=0.01)
        assert not drawn[expected == 0].any()


def test_the_official_form_learns(data):
    """BPR-max with popularity-sampled negatives, on the sequences themselves: the next item comes near the top."""
    torch.manual_seed(0)
    model = GRU4Rec(
        build_config(GRU4RecConfig, {**SETTINGS, "variant": "official", "dim": 24, "sampled_negatives": 64}), data
    )
    batch = batch_of(data, model, "train")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(120):
        optimizer.zero_grad()
        model.training_loss(batch).backward()
        optimizer.step()
    model.eval()
    last = batch.views["xy"].next_merged[:, -1]
    ranks = []
    with torch.no_grad():
        for domain, low in ((0, 0), (1, NUM_X)):
            scores = model.score_all(batch, domain)
            for row, target in zip(scores, last.tolist()):
                if (target >= NUM_X) == bool(domain):
                    ranks.append(1 + int((row > row[target - low]).sum()))
    assert np.mean(1 / np.array(ranks)) > 0.9


def test_widths_of_the_states_of_each_form():
    widths = {
        v: build_config(GRU4RecConfig, {**SETTINGS, "variant": v}).state_width for v in ("ce", "pinet", "official")
    }
    assert widths == {"ce": 2 * WIDTH, "pinet": WIDTH, "official": WIDTH}
