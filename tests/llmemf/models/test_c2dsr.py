"""C2DSR against a twin in NumPy: one user at a time, no padding, plain loops over items, columns and edges."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import attention_block, layer_norm, linear
from tiny import NUM_ITEMS, NUM_X, NUM_Y, SMALL, make_data, make_scenario, make_sequences, random_model, whole

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models.c2dsr import C2DSRConfig, successor_graphs

WIDTH = 6
OPTIONS = [
    {},
    {"loss_columns": 3},
    {"loss_columns": 0},
    {"softmax_share": 0.2},
    {"softmax_share": 1.0},
    {"graph_layers": 0},
    {"graph_layers": 3, "encoder_layers": 1, "heads": 2},
]


@pytest.fixture(scope="module")
def data():
    return make_data()


SETTINGS = {**{key: value for key, value in SMALL.items() if key != "id_dim"}, "model": "c2dsr", "dim": WIDTH}


def make_config(**options):
    return build_config(C2DSRConfig, {**SETTINGS, **options})


def make_model(data, **options):
    return random_model(data, {**SETTINGS, **options}, 0.3, around_start=True, double=False)


def in_domain(item, domain):
    return (item >= NUM_X) == bool(domain)


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


class Twin:
    """Scores and loss of sequences given as lists, oldest item first."""

    def __init__(self, model, data):
        self.config = model.config
        self.p = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
        rows = [data.train.row(number).tolist() for number in range(len(data.train))]
        self.tables = {}
        for s in ("x", "y", "xy"):
            parts = rows if s == "xy" else [[i for i in row if in_domain(i, d)] for row in rows for d in (0, 1)]
            followers = {item: [] for item in range(NUM_ITEMS)}
            for row in parts:
                for before, after in pairwise(row):
                    followers[before].append(after)
            self.tables[s] = self.smooth(s, followers)

    def smooth(self, s, followers):
        """E + mean of the layers, every item the plain mean of what follows it."""
        table = self.p[f"tables.{s}.rows"]
        layers = [table]
        for number in range(self.config.graph_layers):
            layer = np.zeros_like(table)
            for item, after in followers.items():
                for other in after:
                    layer[item] += layers[-1][other] / len(after)
            layers.append(layer + self.p[f"tables.{s}.biases.{number}"])
        return sum(layers) / len(layers) + table

    def states(self, s, items):
        x = np.sqrt(WIDTH) * self.tables[s][items] + self.p[f"encoders.{s}.positions"][: len(items)]
        for number in range(self.config.encoder_layers):
            x = attention_block(x, self.p, f"encoders.{s}.blocks.{number}", self.config.heads, False)
        return layer_norm(x, self.p, f"encoders.{s}.norm")

    def score(self, history, domain):
        merged = self.states("xy", history)[-1]
        own = [item for item in history if in_domain(item, domain)]
        last = self.states("xy"[domain], own)[-1] if own else 0
        return linear(merged + last, self.p, f"outputs.{domain}")

    def nll(self, domain, state, pad_state, target):
        pad = linear(pad_state, self.p, "output_pad")
        logits = np.concatenate([linear(state, self.p, f"outputs.{domain}"), pad])
        return np.log(np.exp(logits).sum()) - logits[target - (NUM_X if domain else 0)]

    def discriminate(self, d, r, c):
        return float(r @ self.p[f"discriminators.{d}.weight"] @ c + self.p[f"discriminators.{d}.bias"][0])

    def loss(self, sequences, corrupted):
        """`corrupted[d][row]` is corr of domain d of the inputs of a row."""
        columns = self.config.loss_columns or self.config.max_length
        softmax, infomax, with_both = 0.0, 0.0, 0
        for number, sequence in enumerate(sequences):
            inputs = sequence[:-1]
            merged = self.states("xy", inputs)
            false = [self.states("xy", corrupted[d][number]) for d in (0, 1)]
            means = []
            for d in (0, 1):
                where = [t for t, item in enumerate(inputs) if in_domain(item, d)]
                own = self.states("xy"[d], [inputs[t] for t in where]) if where else []
                specific = []
                for count, t in enumerate(where):
                    later = [item for item in sequence[t + 1 :] if in_domain(item, d)]
                    if not later:
                        continue
                    specific.append((count, t))
                    if t >= len(inputs) - columns:
                        softmax += self.nll(d, merged[t] + own[count], own[count], later[0])
                for t in range(max(0, len(inputs) - columns), len(inputs)):
                    if in_domain(sequence[t + 1], d):
                        softmax += self.nll(d, merged[t], merged[t], sequence[t + 1])
                if specific:
                    counts, places = map(list, zip(*specific))
                    means.append((own[counts].mean(0), merged[places].mean(0), false[d][places].mean(0)))
            if len(means) == 2:
                with_both += 1
                for d in (0, 1):
                    user, (_, real, fake) = means[d][0], means[1 - d]
                    infomax -= log_sigmoid(self.discriminate(d, user, real))
                    infomax -= log_sigmoid(-self.discriminate(d, user, fake))
        share = self.config.softmax_share
        return share * softmax / (len(sequences) * columns) + (1 - share) * infomax / max(with_both, 1)


def histories(data):
    return [data.valid.row(number)[:-1].tolist() for number in range(len(data.valid))]


def loss_and_corruptions(model, batch):
    """Loss of a batch and the corrupted rows that it drew, without their padding."""
    drawn, corrupt = {}, model._corrupt

    def remember(items, domain):
        result = corrupt(items, domain)
        drawn[domain] = [row[row < NUM_ITEMS].tolist() for row in result]
        return result

    model._corrupt = remember
    loss = model.training_loss(batch)
    del model._corrupt
    return loss, drawn


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_scores_and_loss_are_those_of_the_twin(data, options):
    model = make_model(data, **options)
    twin = Twin(model, data)
    valid = whole(make_sequences(data, "valid", config=model.config))
    with torch.no_grad():
        for domain in (0, 1):
            expected = np.stack([twin.score(history, domain) for history in histories(data)])
            np.testing.assert_allclose(model.score_all(valid, domain), expected, atol=2e-4)
        loss, corrupted = loss_and_corruptions(model, whole(make_sequences(data, "train", config=model.config)))
    sequences = [data.train.row(number).tolist() for number in range(len(data.train))]
    assert loss.item() == pytest.approx(twin.loss(sequences, corrupted), rel=1e-5)


def test_a_corruption_keeps_a_domain_and_redraws_the_other_uniformly(data):
    model = make_model(data)
    torch.manual_seed(0)
    items = torch.tensor([[NUM_ITEMS, 3, NUM_X, NUM_X + 7, 0, NUM_X - 1]]).expand(20_000, -1)
    of_y = torch.tensor([2, 3])
    corrupted = model._corrupt(items, 0)
    rest = [0, 1, 4, 5]
    assert torch.equal(corrupted[:, rest], items[:, rest])
    counts = torch.bincount(corrupted[:, of_y].flatten(), minlength=NUM_ITEMS)
    assert not counts[:NUM_X].any()
    assert bool(((counts[NUM_X:] / counts.sum() * NUM_Y - 1).abs() < 0.15).all())
    corrupted = model._corrupt(items, 1)
    assert torch.equal(corrupted[:, [0, 2, 3]], items[:, [0, 2, 3]])
    assert bool((corrupted[:, [1, 4, 5]] < NUM_X).all()) and len(corrupted[:, 1].unique()) == NUM_X


@pytest.mark.parametrize("sequence", ["x", "y", "xy"])
def test_a_later_item_changes_no_earlier_state(data, sequence):
    model = make_model(data)
    items = torch.tensor([[NUM_ITEMS, 3, 40, 8, 50, 9], [4, 60, 61, 2, 62, 1]])
    before = model.states(sequence, items)
    for column in range(1, 6):
        changed = items.clone()
        changed[:, column] = torch.tensor([17, 18])
        after = model.states(sequence, changed)
        torch.testing.assert_close(after[:, :column], before[:, :column], rtol=0, atol=0)
        assert not torch.allclose(after[:, column:], before[:, column:], atol=1e-4)


def dense(graph):
    """(N, N) weights, edge by edge."""
    matrix = torch.zeros(NUM_ITEMS, NUM_ITEMS)
    for item in range(NUM_ITEMS):
        following, _, weights = graph.edges(torch.tensor([item]))
        for other, weight in zip(following.tolist(), weights.tolist()):
            matrix[item, other] += weight
    return matrix


def test_graphs_are_row_normalised_counts_of_successors_and_know_training_alone():
    rows = {
        "train": [[1, 30, 2, 31], [1, 2, 3], [1, 30]],
        "valid": [[7, 8, 9, 33, 34]],
        "test": [[10, 11, 12, 35, 36]],
    }
    merged, single = successor_graphs(make_data(make_scenario(rows=rows)))
    expected = torch.zeros(2, NUM_ITEMS, NUM_ITEMS)
    for graph, before, after, weight in [
        (0, 1, 30, 2 / 3), (0, 1, 2, 1 / 3), (0, 30, 2, 1.0), (0, 2, 31, 0.5), (0, 2, 3, 0.5),
        (1, 1, 2, 1.0), (1, 2, 3, 1.0), (1, 30, 31, 1.0),
    ]:  # fmt: skip
        expected[graph, before, after] = weight
    torch.testing.assert_close(dense(merged), expected[0])
    torch.testing.assert_close(dense(single), expected[1])


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_rows_of_some_items_and_their_gradients_are_those_of_the_whole_table(data, layers):
    table = make_model(data, graph_layers=layers).tables["xy"]
    matrix, bias = dense(table.graph), list(table.biases)
    layer = total = table.rows
    for number in range(layers):
        layer = matrix @ layer + bias[number]
        total = total + layer
    expected = total / (layers + 1) + table.rows
    for ids in (torch.tensor([[5, 40], [5, 0], [70, 69]]), torch.tensor([[3]]), torch.arange(NUM_ITEMS)):
        found = table(ids)
        torch.testing.assert_close(found, expected[ids])
        upstream = torch.randn_like(found)
        gradients = [
            torch.autograd.grad(rows, [table.rows, *bias], upstream, retain_graph=True)
            for rows in (found, expected[ids])
        ]
        for one, other in zip(*gradients):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_first_item_of_y_is_seen_as_one_of_y(data):
    """As the final item of a sequence it is a shared target of Y and gives the Y item before it a specific one."""
    model = make_model(data, softmax_share=1.0)
    scenario = make_scenario(rows={"train": [[3, NUM_X + 4, NUM_X]]})
    batch = whole(make_sequences(make_data(scenario), "train", config=model.config))
    model.training_loss(batch).backward()
    gradient = model.outputs[1].weight.grad
    assert gradient[0].abs().max() > gradient[1:4].abs().max() > 0
    merged, own = model.states("xy", batch.views["xy"].items)[0], model.states("y", batch.views["y"].items)[0]
    states = [(merged[0], merged[0], 4), (merged[1], merged[1], 0), (merged[1] + own[-1], own[-1], 0)]
    expected = 0
    for state, pad_state, target in states:
        logits = torch.cat([model.outputs[1](state), model.output_pad(pad_state)])
        expected = expected + F.cross_entropy(logits, torch.tensor(target))
    assert model.training_loss(batch).item() == pytest.approx(expected.item() / 10, rel=1e-5)


def test_the_sampled_objective_estimates_the_full_one_without_bias(data):
    batch = whole(make_sequences(data, "train", config=make_config()))
    exact = make_model(data, softmax_share=1.0).training_loss(batch).item()
    model = make_model(data, softmax_share=1.0, objective="sampled", sampled_negatives=3_000)
    torch.manual_seed(1)
    losses = [model.training_loss(batch).item() for _ in range(8)]
    # The items of the whole split are counted exactly, and hardly one is left to draw.
    assert np.mean(losses) == pytest.approx(exact, rel=1e-3)
    few = whole(
        make_sequences(make_data(make_scenario(rows={"train": [[3, 40, 5, 45]]})), "train", config=model.config)
    )
    losses = [model.training_loss(few).item() for _ in range(30)]
    assert np.std(losses) > 0
    expected = make_model(data, softmax_share=1.0).training_loss(few).item()
    assert np.mean(losses) == pytest.approx(expected, rel=1e-2)


def test_sequences_of_one_domain_have_no_infomax(data):
    model = make_model(data)
    alone = make_data(make_scenario(rows={"train": [[1, 2, 3], [NUM_X + 1, NUM_X + 2]]}))
    batch = whole(make_sequences(alone, "train", config=model.config))
    only_softmax = make_model(data, softmax_share=1.0).training_loss(batch).item()
    assert model.training_loss(batch).item() == pytest.approx(0.7 * only_softmax, rel=1e-6)


def test_l2_of_embedding_rows_is_over_the_items_of_the_batch(data):
    model = make_model(data)
    rows = model.batch_rows(whole(make_sequences(make_data(make_scenario(rows={"train": [[3, 40, 3, 5]]})), "train", config=model.config)))  # fmt: skip
    expected = torch.cat([model.tables[s].rows[[3, 40]] for s in ("x", "y", "xy")])
    assert torch.equal(rows, expected)


def test_settings_that_cannot_be_are_refused():
    for values, words in (({"heads": 4}, "heads = 4"), ({"softmax_scope": "all"}, "softmax_scope"), ({"layout": "compact"}, "layout")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            make_config(**values)
