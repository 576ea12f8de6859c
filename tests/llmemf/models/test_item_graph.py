"""Relations and sub-graphs against plain loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_features, make_scenario

from llmemf.models import item_graph, item_knn
from llmemf.models.item_graph import RELATIONS, build_item_graph
from llmemf.models.sub_graph import sub_graph
from llmemf.scenarios.sequences import Sequences

DAY = 86_400


def domain(item):
    return int(item >= NUM_X)


@pytest.fixture(scope="module")
def train():
    """Sequences over few items, so that pairs recur; times step over days, some are unknown."""
    rng = np.random.default_rng(5)
    pool = np.array([1, 2, 3, 4, 5, NUM_X, NUM_X + 1, NUM_X + 2, NUM_X + 3, NUM_ITEMS - 1])
    rows = [rng.choice(pool, rng.integers(2, 8)).tolist() for _ in range(40)]
    times = [np.sort(rng.integers(0, 3 * DAY, len(row))).tolist() for row in rows]
    times[3] = [-1] * len(rows[3])
    return Sequences.from_rows(np.zeros(40, int), rows, times)


def by_hand(train, relation, top, min_count, text=None):
    """Neighbour lists {item: [...]} of one relation."""
    groups, following = [], {}
    for number in range(len(train)):
        row = train.row(number).tolist()
        times = train.times[train.offsets[number] : train.offsets[number + 1]].tolist()
        if relation == "bought_together":
            days = {}
            for item, time in zip(row, times):
                if time >= 0:
                    days.setdefault(time // DAY, set()).add(item)
            groups += days.values()
        else:
            groups.append(set(row))
        for d in (0, 1):
            own = [item for item in row if domain(item) == d]
            for pair in itertools.pairwise(own):
                if pair[0] != pair[1]:
                    following[pair] = following.get(pair, 0) + 1
    strengths = {}
    for i, j in itertools.permutations(range(NUM_ITEMS), 2):
        if relation == "also_view":
            if text is not None and domain(i) == domain(j) and text.has[i] and text.has[j]:
                strengths[i, j] = float(text.rows[i].astype(np.float64) @ text.rows[j])
        elif relation == "buy_after_view":
            if following.get((i, j), 0) >= min_count:
                strengths[i, j] = following[i, j]
        elif (domain(i) != domain(j)) == (relation == "adaptation"):
            count = sum(i in group and j in group for group in groups)
            if count >= min_count:
                n_i, n_j = (sum(item in group for group in groups) for item in (i, j))
                strengths[i, j] = np.float32(count) / np.sqrt(np.float32(n_i) * np.float32(n_j))
    result = {}
    for i in range(NUM_ITEMS):
        found = sorted((-strength, j) for (source, j), strength in strengths.items() if source == i)
        result[i] = [j for _, j in found[:top]]
    return result


@pytest.mark.parametrize("block", [7, 2048])
def test_relations_equal_a_count_by_hand(train, block, monkeypatch):
    monkeypatch.setattr(item_knn, "BLOCK_ITEMS", block)
    monkeypatch.setattr(item_graph, "BLOCK_ITEMS", block)
    text = make_features(make_scenario(), "text", missing=(3, 4, NUM_X + 5))
    graph = build_item_graph(train, num_x=NUM_X, num_items=NUM_ITEMS, top=3, min_count=2, text=text)
    assert graph.shape == (NUM_ITEMS + 1, 5, 3) and (graph[NUM_ITEMS] == NUM_ITEMS).all()
    for number, relation in enumerate(RELATIONS):
        expected = by_hand(train, relation, 3, 2, text)
        assert any(expected.values()), relation
        for item, others in expected.items():
            found = graph[item, number]
            assert found[found < NUM_ITEMS].tolist() == others, (relation, item)


def test_without_text_and_times_two_relations_are_empty(train):
    undated = replace(train, times=np.full_like(train.times, -1))
    graph = build_item_graph(undated, num_x=NUM_X, num_items=NUM_ITEMS)
    empty = [relation for number, relation in enumerate(RELATIONS) if (graph[:, number] == NUM_ITEMS).all()]
    assert empty == ["also_view", "bought_together"]


def choose_by_hand(row, neighbours, size, hops):
    """The nodes of one session, by sets and loops."""
    pad = NUM_ITEMS
    session = row[-(size // 2) :]
    reached = {item: [0.0, 0.0] for item in session}
    for item in session:
        reached[item][domain(item)] += 1
    for item in session:
        for other in neighbours[item].reshape(-1):
            if other < pad:
                reached.setdefault(int(other), [0.0, 0.0])[domain(item)] += 1
    share = [(sum(domain(item) == d for item in session) + 1) / (len(session) + 2) for d in (0, 1)]

    def choose():
        keys = dict.fromkeys(session, 0.0)
        for d in (0, 1):
            free = [item for item in reached if item not in session and domain(item) == d]
            free.sort(key=lambda item: (-(min(reached[item]) > 0), -sum(reached[item]), item))
            for place, item in enumerate(free):
                keys[item] = (place + 1) / share[d]
        return sorted(sorted(keys), key=lambda item: keys[item])[:size]

    nodes = choose()
    if hops == 2 and not any(min(sides) > 0 for sides in reached.values()):
        before = {item: list(sides) for item, sides in reached.items()}
        for item in nodes:
            if item not in session:
                for other in neighbours[item].reshape(-1):
                    if other < pad:
                        sides = reached.setdefault(int(other), [0.0, 0.0])
                        for d in (0, 1):
                            sides[d] += (before[item][d] > 0) / 64
        nodes = choose()
    return sorted(nodes)


ROWS = [[3, 35, 8, 50, 9, 4], [40, 41, 2], [7], [33, 7, 33], [1, 2, 3, 5, 6, 7, 8, 9], []]


@pytest.fixture(scope="module")
def neighbours():
    rng = np.random.default_rng(0)
    table = rng.integers(0, NUM_ITEMS, (NUM_ITEMS + 1, 5, 3)).astype(np.int64)
    table[rng.random(table.shape) < 0.5] = NUM_ITEMS
    table[NUM_ITEMS] = NUM_ITEMS
    # Items 7 and 2 stay within their domain for one hop, so that a second one has something to do.
    table[[7, 2]] = np.where(table[[7, 2]] >= NUM_X, NUM_ITEMS, table[[7, 2]])
    return table


def around(rows, neighbours, size, hops, extra=0):
    width = max(map(len, rows)) + extra
    session = torch.full((len(rows), width), NUM_ITEMS)
    for number, row in enumerate(rows):
        session[number, : len(row)] = torch.tensor(row, dtype=torch.long)
    seen = torch.tensor([len(row) for row in rows])
    return sub_graph(session, seen, torch.from_numpy(neighbours), size=size, hops=hops, num_x=NUM_X)


@pytest.mark.parametrize("size", [6, 12, 200])
@pytest.mark.parametrize("hops", [1, 2])
def test_nodes_equal_a_choice_by_hand(neighbours, size, hops):
    found, _ = around(ROWS, neighbours, size, hops)
    assert found.shape == (len(ROWS), size)
    for row, nodes in zip(ROWS, found):
        assert nodes[nodes < NUM_ITEMS].tolist() == choose_by_hand(row, neighbours, size, hops), row
        assert nodes.tolist() == sorted(nodes.tolist())


def test_a_second_hop_reaches_further_where_the_domains_do_not_touch(neighbours):
    near, far = (around([[7]], neighbours, 200, hops)[0] for hops in (1, 2))
    assert (far < NUM_ITEMS).sum() > (near < NUM_ITEMS).sum()


def test_adjacency_equals_loops(neighbours):
    all_nodes, adjacencies = around(ROWS, neighbours, 12, 2)
    for row, nodes, adjacency in zip(ROWS, all_nodes.tolist(), adjacencies.numpy()):
        session = row[-6:]
        follow = {frozenset(pair) for pair in itertools.pairwise(session)}
        for i, one in enumerate(nodes):
            for j, other in enumerate(nodes):
                if i != j and NUM_ITEMS in (one, other):
                    assert not adjacency[:, i, j].any()
                    continue
                for relation in range(5):
                    expected = i == j or other in neighbours[one, relation] or frozenset((one, other)) in follow
                    assert adjacency[relation, i, j] == expected, (row, relation, one, other)


def test_what_is_not_seen_and_padding_change_nothing(neighbours):
    graph, wider = (around(ROWS, neighbours, 12, 2, extra) for extra in (0, 4))
    assert all(map(torch.equal, graph, wider))
    session = torch.tensor([[3, 35, 8, 50]])
    both = [
        sub_graph(rows, torch.tensor([2]), torch.from_numpy(neighbours), size=12, hops=2, num_x=NUM_X)
        for rows in (session, torch.tensor([[3, 35, 60, 1]]))
    ]
    assert all(map(torch.equal, *both))
