"""The lines of chance and of systems without training."""

import numpy as np
import pytest
from tiny import NUM_X, NUM_Y, make_config, make_data

from llmemf.config import build_config
from llmemf.models.popularity import PopularityConfig
from llmemf.references import CHANCE, REFERENCES, reference_metrics
from llmemf.training import Trainer


@pytest.fixture(scope="module")
def data():
    return make_data()


def test_chance_is_the_mean_of_many_random_rankings(data):
    found = reference_metrics(make_config(), data)[CHANCE]
    rng = np.random.default_rng(0)
    by_domain = {"film": [], "book": []}
    for target, candidates in zip(data.valid.targets, data.valid_candidates):
        size = (candidates >= 0).sum() + 1
        by_domain["film" if target < NUM_X else "book"].append(np.mean(1 / rng.integers(1, size + 1, 4000)))
    for domain, values in by_domain.items():
        assert found[f"val/{domain}/mrr"] == pytest.approx(np.mean(values), rel=0.02)
    assert found["val/mrr"] == pytest.approx((found["val/film/mrr"] + found["val/book/mrr"]) / 2)
    assert found["val_full/film/mrr"] == pytest.approx(sum(1 / n for n in range(1, NUM_X + 1)) / NUM_X)
    assert found["val_full/book/mrr"] == pytest.approx(sum(1 / n for n in range(1, NUM_Y + 1)) / NUM_Y)


def test_references_are_what_a_trial_of_the_system_reports_on_the_same_cases(data):
    config = make_config(valid_cases=11, ties="pessimistic", max_length=3)
    found = reference_metrics(config, data)
    assert set(found) == {CHANCE, *REFERENCES}
    values = {"model": "popularity", "device": "cpu", "valid_cases": 11, "ties": "pessimistic", "max_length": 3}
    (metrics,) = Trainer(build_config(PopularityConfig, values), data).epochs()
    assert found["popularity"] == {key: value for key, value in metrics.items() if key.startswith("val")}
    assert found["transitions"] != reference_metrics(make_config(max_length=3), data)["transitions"]
