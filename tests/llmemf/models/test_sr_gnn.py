"""SR-GNN against plain loops: graphs from adjacency matrices written down session by session, nodes one at a time."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, batch_of, make_data, make_scenario, random_model

import llmemf.models.sr_gnn as module
from llmemf.models import attention
from llmemf.models.sr_gnn import prefixes, session_graphs

WIDTH = 4
SETTINGS = {"model": "sr_gnn", "dim": WIDTH, "max_length": 12, "dropout": 0.0, "device": "cpu"}
REPEATS = [[3, 40, 3, 8], [5, 5, 5], [1, 2, 1, 2, 3, 1], [60], [7, 8, 9, 7, 8, 9, 8], [2, 9, 2, 40, 2, 9, 9, 1]]


def repeating_data():
    """Training sequences in which items come again, also at once."""
    rows = [*REPEATS, *([int(i) for i in np.random.default_rng(n).integers(0, 12, 7) + 25] for n in range(6))]
    rows = [row if len(row) > 1 else [*row, 61] for row in rows]
    return make_data(make_scenario(rows={"train": rows, "valid": rows}), missing=False)


def make(data, **values):
    return random_model(data, {**SETTINGS, **values}, 0.6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def adjacency(session):
    """Unique items in order of first visit, A_in and A_out of the page: rows sum to 1, or to 0 where there is no edge."""
    nodes = list(dict.fromkeys(session))
    follows = np.zeros((len(nodes), len(nodes)))
    for u, v in pairwise(session):
        follows[nodes.index(u), nodes.index(v)] = 1
    incoming, outgoing = np.zeros_like(follows), np.zeros_like(follows)
    for u in range(len(nodes)):
        for v in range(len(nodes)):
            if follows[u, v]:
                incoming[v, u] = 1 / follows[:, v].sum()
                outgoing[u, v] = 1 / follows[u].sum()
    return nodes, incoming, outgoing


def read(model, session, incoming=None, outgoing=None):
    """(D,) vector of one session."""
    w = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    nodes, *matrices = adjacency(session)
    incoming, outgoing = (matrices[0], matrices[1]) if incoming is None else (incoming, outgoing)
    h = w["items"][nodes]
    for _ in range(model.config.steps):
        a_in = incoming @ (h @ w["incoming.weight"].T + w["incoming.bias"]) + w["incoming_bias"]
        a_out = outgoing @ (h @ w["outgoing.weight"].T + w["outgoing.bias"]) + w["outgoing_bias"]
        new = np.zeros_like(h)
        for v in range(len(nodes)):
            a = w["cell.weight_ih"] @ np.concatenate([a_in[v], a_out[v]]) + w["cell.bias_ih"]
            b = w["cell.weight_hh"] @ h[v] + w["cell.bias_hh"]
            r, z = sigmoid(a[:WIDTH] + b[:WIDTH]), sigmoid(a[WIDTH : 2 * WIDTH] + b[WIDTH : 2 * WIDTH])
            n = np.tanh(a[2 * WIDTH :] + r * b[2 * WIDTH :])
            new[v] = n + z * (h[v] - n)
        h = new
    last, whole_session = h[nodes.index(session[-1])], np.zeros(WIDTH)
    for item in session:
        node = h[nodes.index(item)]
        opened = sigmoid(w["from_last.weight"] @ last + w["from_last.bias"] + w["from_node.weight"] @ node)
        whole_session += (w["attention.weight"][0] @ opened) * node
    return w["combine.weight"] @ np.concatenate([whole_session, last])


def table_of(rows, *, right=False):
    """Sessions as a table, padded on the left, or on the right."""
    width = max(map(len, rows))
    table = torch.full((len(rows), width), NUM_ITEMS)
    for number, row in enumerate(rows):
        if row:
            place = slice(0, len(row)) if right else slice(width - len(row), width)
            table[number, place] = torch.tensor(row)
    return table


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("right", [False, True])
def test_session_vectors_are_those_of_plain_loops(steps, right):
    model = make(repeating_data(), steps=steps)
    rows = [*REPEATS, [], [10, 11, 12, 13, 70]]
    with torch.no_grad():
        found = model.session_vectors(table_of(rows, right=right)).numpy()
    expected = np.stack([read(model, row) if row else np.zeros(WIDTH) for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_without_a_repeated_item_the_graph_is_a_path(steps):
    """A_in and A_out are then the shifts by one to the right and to the left."""
    data = make_data(missing=False)
    model = make(data, steps=steps)
    batch = batch_of(data, model, "valid")
    rows = [[item for item in row.tolist() if item < NUM_ITEMS] for row in batch.views["xy"].items]
    with torch.no_grad():
        found = model.session_vectors(batch.views["xy"].items).numpy()
    for row, vector in zip(rows, found):
        path = read(model, row, np.eye(len(row), k=-1), np.eye(len(row), k=1))
        np.testing.assert_allclose(vector, path, rtol=1e-6, atol=1e-6)


def test_graphs_hold_the_matrices_of_their_sessions():
    rows = [*REPEATS, []]
    graphs = session_graphs(table_of(rows), pad=NUM_ITEMS)
    assert len(graphs.items) == sum(len(set(row)) for row in rows)
    for number, row in enumerate(rows):
        nodes, incoming, outgoing = adjacency(row)
        mine = (graphs.session == number).nonzero()[:, 0].tolist()
        assert sorted(graphs.items[mine].tolist()) == sorted(nodes)
        place = {node: nodes.index(int(graphs.items[node])) for node in mine}
        a_in, a_out = np.zeros_like(incoming), np.zeros_like(outgoing)
        edges = zip(*(part.tolist() for part in (graphs.source, graphs.target, graphs.in_share, graphs.out_share)))
        for source, target, in_share, out_share in edges:
            assert (source in place) == (target in place)
            if source in place:
                a_in[place[target], place[source]] += in_share
                a_out[place[source], place[target]] += out_share
        np.testing.assert_allclose(a_in, incoming, rtol=1e-6)
        np.testing.assert_allclose(a_out, outgoing, rtol=1e-6)
        for node in mine:
            item = int(graphs.items[node])
            assert int(graphs.visits[node]) == row.count(item)
            assert bool(graphs.last[node]) is (item == row[-1])


def test_nothing_but_empty_sessions():
    data = repeating_data()
    model = make(data)
    assert not model.session_vectors(torch.full((3, 4), NUM_ITEMS)).any()


def test_every_prefix_is_a_session():
    data = repeating_data()
    view = batch_of(data, make(data), "train").views["xy"]
    sessions, targets = prefixes(view.items, view.next_merged, pad=NUM_ITEMS)
    found = {(tuple(i for i in row.tolist() if i < NUM_ITEMS), int(target)) for row, target in zip(sessions, targets)}
    rows = [tuple(map(int, data.train.row(number))) for number in range(len(data.train))]
    assert found == {(row[:stop], row[stop]) for row in rows for stop in range(1, len(row))}
    assert len(targets) == sum(len(row) - 1 for row in rows)


def loss_by_hand(model, data, scope):
    table, total = model.items.detach().numpy(), []
    for row in (data.train.row(number).tolist() for number in range(len(data.train))):
        for stop in range(1, len(row)):
            scores, target = table @ read(model, row[:stop]), row[stop]
            items = slice(0, NUM_ITEMS) if scope == "all" else slice(0, NUM_X) if target < NUM_X else slice(NUM_X, None)
            total.append(np.log(np.exp(scores[items]).sum()) - scores[target])
    return np.mean(total)


@pytest.mark.parametrize("scope", ["domain", "all"])
def test_the_loss_is_a_softmax_over_every_prefix(scope):
    data = repeating_data()
    model = make(data, softmax_scope=scope)
    found = model.training_loss(batch_of(data, model, "train")).item()
    assert found == pytest.approx(loss_by_hand(model, data, scope), rel=1e-6)


def test_scores_are_inner_products_with_the_input_vectors():
    data = repeating_data()
    model = make(data)
    batch, table = batch_of(data, model, "valid"), model.items.detach().numpy()
    for domain, items in ((0, slice(0, NUM_X)), (1, slice(NUM_X, NUM_ITEMS))):
        with torch.no_grad():
            scores = model.score_all(batch, domain).numpy()
        for row, found in zip(batch.views["xy"].items, scores):
            vector = read(model, [item for item in row.tolist() if item < NUM_ITEMS])
            np.testing.assert_allclose(found, table[items] @ vector, rtol=1e-6, atol=1e-6)


def test_a_later_item_changes_no_earlier_prefix():
    """The target of a step and what follows it are no part of its graph."""
    data = make_data(missing=False)
    model = make(data)
    items = torch.randint(0, NUM_ITEMS, (3, 8))
    following = torch.cat([items[:, 1:], torch.full((3, 1), 5)], 1)
    column = torch.arange(8).repeat(3)
    with torch.no_grad():
        before = model.session_vectors(prefixes(items, following, pad=NUM_ITEMS)[0])
        for place in range(8):
            changed = items.clone()
            changed[:, place] = (changed[:, place] + 1) % NUM_ITEMS
            after = model.session_vectors(prefixes(changed, following, pad=NUM_ITEMS)[0])
            torch.testing.assert_close(after[column < place], before[column < place], rtol=0, atol=0)
            assert bool((after[column >= place] != before[column >= place]).any(1).all())


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_parts_computed_one_after_another_give_the_same_gradients(monkeypatch, rate):
    """Bounded memory changes nothing without dropout; with it, a part draws the same when it is computed again."""
    data = repeating_data()
    model = make(data, dropout=rate).train()
    batch = batch_of(data, model, "train")

    def gradients():
        model.zero_grad()
        torch.manual_seed(1)
        loss = model.training_loss(batch)
        loss.backward()
        return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]

    loss, expected = gradients()
    assert all(grad.any() for grad in expected), "everything trained gets a gradient"
    monkeypatch.setattr(module, "CELLS_AT_ONCE", 60)
    if rate == 0:
        parts, found = gradients()
        assert parts == pytest.approx(loss, rel=1e-9)
        for ours, theirs in zip(found, expected):
            torch.testing.assert_close(ours, theirs)
        return
    recomputed = gradients()
    monkeypatch.setattr(attention, "checkpoint", lambda function, part, use_reentrant: function(part))
    kept = gradients()
    assert recomputed[0] == kept[0]
    for ours, theirs in zip(recomputed[1], kept[1]):
        torch.testing.assert_close(ours, theirs)
