"""Transitions against plain loops over sequences."""

from collections import defaultdict

import numpy as np
import pytest
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, whole

from llmemf.config import build_config
from llmemf.models.transitions import Transitions, TransitionsConfig

OPTIONS = [
    {},
    {"reach": 1, "last_items": 1, "popularity": 0.0},
    {"reach": 4, "last_items": 5, "decay": 0.8},
    {"sequences": "own", "reach": 2},
    {"sequences": "own", "last_items": 2, "popularity": 1.5},
]


@pytest.fixture(scope="module")
def data():
    return make_data()


def make_model(data, **options):
    return Transitions(build_config(TransitionsConfig, {"model": "transitions", "max_length": 12, **options}), data)


def in_y(item):
    return item >= NUM_X


def shares_by_hand(data, config):
    counts, totals = defaultdict(float), defaultdict(float)
    for index in range(len(data.train)):
        row = data.train.row(index).tolist()
        parts = [row] if config.sequences == "merged" else [[i for i in row if in_y(i) == y] for y in (False, True)]
        for part in parts:
            for place, item in enumerate(part):
                for distance, after in enumerate(part[place + 1 : place + 1 + config.reach], start=1):
                    counts[item, after] += 1 / distance
                    totals[item, in_y(after)] += 1 / distance
    return {(item, after): count / totals[item, in_y(after)] for (item, after), count in counts.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_scores_equal_loops(options, data):
    model = make_model(data, **options)
    config, shares = model.config, shares_by_hand(data, model.config)
    items = data.train.items.tolist()
    batch = whole(make_sequences(data, "valid", max_length=12))
    for domain, candidates in enumerate((range(NUM_X), range(NUM_X, NUM_ITEMS))):
        scores = model.score_all(batch, domain)
        of_domain = sum(in_y(item) == bool(domain) for item in items)
        for case in range(len(batch)):
            history = data.valid.row(case)[:-1].tolist()
            if config.sequences == "own":
                history = [item for item in history if in_y(item) == bool(domain)]
            read = list(enumerate(reversed(history)))[: config.last_items]
            expected = [
                sum(config.decay**age * shares.get((item, candidate), 0) for age, item in read)
                + config.popularity * items.count(candidate) / of_domain
                for candidate in candidates
            ]
            np.testing.assert_allclose(scores[case].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_order_counts():
    """1 follows 0 always and is followed by it never."""
    data = make_data(make_scenario(rows={"train": [[0, 1, 40], [0, 1, 41]]}))
    model = make_model(data, reach=1)
    assert model.matrix(data).toarray()[0, 1] == 1
    assert model.matrix(data).toarray()[1, 0] == 0


def test_training_sequences_of_one_item_have_no_successor():
    data = make_data(make_scenario(rows={"train": [[3, 3], [40, 40]]}))
    assert make_model(data, sequences="own").matrix(data).nnz == 2
