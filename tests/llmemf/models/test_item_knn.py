"""ItemKNN against plain loops over sets: pairs of items, sequences, neighbours, histories."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, whole

from llmemf.batches import Batch, SequenceView
from llmemf.config import build_config
from llmemf.models import item_knn, item_to_item
from llmemf.models.item_knn import ItemKNN, ItemKNNConfig

OPTIONS = [
    {},
    {"neighbours": 3},
    {"neighbours": 4, "shrink": 10.0},
    {"neighbours": 4, "shrink": 1e60},
    {"similarity": "regularised"},
    {"similarity": "regularised", "exponent": 0.2, "regularisation": 3.0, "neighbours": 5},
    {"similarity": "regularised", "exponent": 0.9, "neighbours": 2},
    {"unit": "user", "neighbours": 6},
    {"history": "target_domain"},
    {"history": "target_domain", "decay": 0.5},
    {"profile": "last", "neighbours": 4},
    {"decay": 0.7},
    {"max_length": 3, "decay": 0.7},
    {"neighbours": 3, "popularity": 2.0},
]


@pytest.fixture(scope="module")
def data():
    return make_data()


def make_model(data, **options):
    return ItemKNN(build_config(ItemKNNConfig, {"model": "item_knn", "max_length": 12, **options}), data)


def similarities_by_hand(data, config):
    """{history item: {candidate: s}}, nearest neighbours alone."""
    groups = defaultdict(set)
    for index in range(len(data.train)):
        key = index if config.unit == "sequence" else int(data.train.users[index])
        groups[key] |= set(map(int, data.train.row(index)))
    count = {item: sum(item in group for group in groups.values()) for item in range(NUM_ITEMS)}
    found = defaultdict(dict)
    for i in range(NUM_ITEMS):
        for c in range(NUM_ITEMS):
            together = sum(i in group and c in group for group in groups.values())
            if i != c and together:
                if config.similarity == "cosine":
                    below = math.sqrt(count[i]) * math.sqrt(count[c]) + config.shrink + 1e-6
                else:
                    a, lambda_ = config.exponent, config.regularisation
                    below = (count[i] + lambda_) ** a * (count[c] + lambda_) ** (1 - a)
                found[i][c] = together / below
    kept = defaultdict(dict)
    for one in range(NUM_ITEMS):
        row = found[one]
        for other in sorted(row, key=lambda item: (-row[item], item))[: config.neighbours]:
            kept[one][other] = row[other]
    return kept


def share_by_hand(data):
    """Of every item its share of its domain's training interactions."""
    items = data.train.items.tolist()
    of_domain = [sum(item < NUM_X for item in items), sum(item >= NUM_X for item in items)]
    return np.array([items.count(item) / of_domain[item >= NUM_X] for item in range(NUM_ITEMS)])


def scores_by_hand(history, domain, kept, config, data):
    if config.history == "target_domain":
        history = [item for item in history if (item >= NUM_X) == bool(domain)]
    history = history[-config.max_length :][-1 if config.profile == "last" else 0 :]
    scores = config.popularity * share_by_hand(data)
    for age, item in enumerate(reversed(history)):
        for candidate, value in kept[item].items():
            scores[candidate] += config.decay**age * value
    return scores[NUM_X:] if domain else scores[:NUM_X]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_scores_equal_loops(options, data):
    model = make_model(data, **options)
    kept = similarities_by_hand(data, model.config)
    batch = whole(make_sequences(data, "valid", max_length=model.config.max_length))
    for domain in (0, 1):
        scores = model.score_all(batch, domain)
        for case in range(len(batch)):
            expected = scores_by_hand(list(map(int, data.valid.row(case)[:-1])), domain, kept, model.config, data)
            np.testing.assert_allclose(scores[case].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_blocks_of_items_and_of_histories_change_nothing(data, monkeypatch):
    batch = whole(make_sequences(data, "valid", max_length=12))
    whole_scores = [make_model(data, neighbours=5).score_all(batch, domain) for domain in (0, 1)]
    monkeypatch.setattr(item_knn, "BLOCK_ITEMS", 7)
    monkeypatch.setattr(item_to_item, "GATHERED_ELEMENTS", 100)
    model = make_model(data, neighbours=5)
    for domain in (0, 1):
        assert torch.equal(model.score_all(batch, domain), whole_scores[domain])


def test_a_repeated_item_counts_once_in_a_sequence():
    """Three X items: 0 twice beside 1; 1 beside 2. So n = (1, 2, 1) and co(0, 1) = co(1, 2) = 1."""
    data = make_data(make_scenario(rows={"train": [[0, 1, 0], [1, 2]]}))
    model = make_model(data)
    view = SequenceView(torch.tensor([[NUM_ITEMS, 1]]), *(torch.full((1, 2), NUM_ITEMS),) * 2)
    scores = model.score_all(Batch(torch.tensor([0]), {"x": view, "y": view, "xy": view}, None), 0)[0]
    assert scores[:3].tolist() == pytest.approx([1 / math.sqrt(2), 0, 1 / math.sqrt(2)], abs=1e-5)
    assert not scores[3:].any()


def test_only_training_sequences_are_counted(data):
    """Other validation sequences leave every similarity as it is."""
    other = make_data(make_scenario(rows={"train": [list(map(int, data.train.row(i))) for i in range(len(data.train))], "valid": [[0, 29, 70]] * 9}))  # fmt: skip
    ours, theirs = make_model(data), make_model(other)
    assert torch.equal(ours.neighbours, theirs.neighbours) and torch.equal(ours.similarities, theirs.similarities)


def test_the_history_of_one_domain_speaks_for_the_other():
    data = make_data(make_scenario(rows={"train": [[3, 40], [4, 41]]}))
    only_x = SequenceView(torch.tensor([[3]]), *(torch.tensor([[NUM_ITEMS]]),) * 2)
    empty = SequenceView(torch.tensor([[NUM_ITEMS]]), *(torch.tensor([[NUM_ITEMS]]),) * 2)
    batch = Batch(torch.tensor([0]), {"x": only_x, "y": empty, "xy": only_x}, None)
    both = make_model(data).score_all(batch, 1)[0]
    assert both.nonzero().flatten().tolist() == [40 - NUM_X]
    assert not make_model(data, history="target_domain").score_all(batch, 1).any()


def test_no_pair_of_items_at_all():
    data = make_data(make_scenario(rows={"train": [[3, 3], [40, 40]]}))
    batch = whole(make_sequences(data, "valid", max_length=12))
    assert not make_model(data).score_all(batch, 0).any()
