"""Noise and shuffled rows in the place of frozen features."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from llmemf.features.matrix import FeatureMatrix
from llmemf.models.content import with_content
from llmemf.models.llm_emf import LLMEMF, LLMEMFConfig

N, NUM_X, WIDTH = 3000, 1200, 40


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    rows = rng.random((N, WIDTH), dtype=np.float32) * rng.uniform(0.5, 2, (N, 1)).astype(np.float32)
    has = rng.random(N) < 0.8
    rows[~has] = 0
    return FeatureMatrix("text", "given", rows, has, "")


def changed(features, content, seed=3, kind="text"):
    return with_content(dataclasses.replace(features, kind=kind), content, num_x=NUM_X, seed=seed)


def test_real_features_are_not_copied(features):
    assert with_content(features, "real", num_x=NUM_X, seed=0) is features


def test_noise_keeps_norms_and_gaps_and_nothing_else(features):
    before = features.rows.copy()
    made = changed(features, "noise")
    assert (features.rows == before).all() and (made.has == features.has).all() and made.rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made.rows, axis=1), np.linalg.norm(before, axis=1), rtol=1e-5)
    present = made.rows[made.has] / np.linalg.norm(made.rows[made.has], axis=1, keepdims=True)
    # Uniform directions in D dimensions: the mean of each coordinate is 0, its variance 1 / D.
    assert np.abs(present.mean(0)).max() < 5 / np.sqrt(WIDTH * len(present))
    np.testing.assert_allclose(present.var(0), 1 / WIDTH, rtol=0.15)
    cosines = (present * (before[made.has] / np.linalg.norm(before[made.has], axis=1, keepdims=True))).sum(1)
    assert abs(cosines.mean()) < 5 / np.sqrt(WIDTH * len(present))


def test_shuffled_rows_stay_in_their_domain(features):
    made = changed(features, "shuffled")
    assert (made.has == features.has).all() and not made.rows[~made.has].any()
    for part in (slice(0, NUM_X), slice(NUM_X, N)):
        has = features.has[part]
        old, new = features.rows[part][has], made.rows[part][has]
        assert sorted(map(bytes, old)) == sorted(map(bytes, new)), "the same rows"
        # A random permutation leaves one row in its place on average.
        assert (old == new).all(1).sum() < 8


def test_draws_follow_the_seed_and_differ_between_modalities(features):
    for content in ("noise", "shuffled"):
        same, other, image = changed(features, content), changed(features, content, 4), changed(features, content, kind="image")  # fmt: skip
        assert (changed(features, content).rows == same.rows).all()
        assert (other.rows != same.rows).any() and (image.rows != same.rows).any()


def test_the_model_reads_what_it_is_told_and_the_same_again():
    data = tiny.make_data()
    config = LLMEMFConfig(id_dim=6, encoder_layers=1, text_content="shuffled", image_content="noise", seed=5)
    tables = LLMEMF(config, data).towers[0].tables
    expected = with_content(data.text, "shuffled", num_x=data.num_x, seed=5).rows
    assert (tables["text"].rows.numpy() == expected).all() and (expected != data.text.rows).any()
    again = LLMEMF(config, data).towers[0].tables
    assert all(torch.equal(tables[kind].rows, again[kind].rows) for kind in ("text", "image"))
    real = LLMEMF(LLMEMFConfig(id_dim=6, encoder_layers=1), data).towers[0].tables
    assert (real["image"].rows.numpy() == data.image.rows).all()
