"""Popularity against a count by hand."""

import math
from collections import Counter

import pytest
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, whole

from llmemf.config import build_config
from llmemf.models.popularity import Popularity, PopularityConfig

ROWS = [[1, 2, 40, 41], [2, 40, 2], [2, 1], [2, 3], [40, 50]]
"""Users 0 to 4; user 0 has a second sequence."""


def make_model(**options):
    rows = {"train": ROWS, "valid": [[5, 6, 60], [7, 1]]}
    data = make_data(make_scenario(rows=rows))
    return Popularity(build_config(PopularityConfig, {"model": "popularity", "max_length": 12, **options}), data), data


@pytest.mark.parametrize("count", ["interactions", "users"])
def test_scores_are_the_logarithms_of_counts(count):
    model, data = make_model(count=count)
    counts = Counter(item for row in ROWS for item in (set(row) if count == "users" else row))
    sequences = make_sequences(data, "valid", max_length=12)
    for domain, items in enumerate((range(NUM_X), range(NUM_X, NUM_ITEMS))):
        expected = [math.log(counts[item] + 1) for item in items]
        for row in model.score_all(whole(sequences), domain):
            assert row.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_softmax_is_the_smoothed_share_of_the_domain():
    model, data = make_model()
    batch = whole(make_sequences(data, "valid", max_length=12))
    # X: item 1 twice, item 2 five times, item 3 once, and one more for each of the 30.
    share = model.score_all(batch, 0).softmax(1)[0, 2]
    assert float(share) == pytest.approx((5 + 1) / (8 + 30))
