"""Numbers that say what a space is worth, compared with NumPy by brute force and with spaces whose answer is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from small_clip import write_llm_text, write_scenario
from tiny import NUM_ITEMS, NUM_X, make_features, make_scenario

from llmemf.features.feature_report import choose_items, measure_features
from llmemf.features.matrix import FeatureMatrix
from llmemf.features.neighbours import companions, item_labels, measure, nearest_items, own_image, spread


def matrix_of(scenario, rows, kind="text", encoder="hand", **details):
    rows = np.asarray(rows, np.float32)
    return FeatureMatrix(kind, encoder, rows, rows.any(axis=1), scenario.items_hash(), details)


@pytest.fixture
def scenario():
    return make_scenario()


def test_the_nearest_items_are_those_of_a_full_search(scenario):
    matrix = make_features(scenario, "text", missing=(3, 4, NUM_X + 2))
    rows = matrix.rows / np.maximum(np.linalg.norm(matrix.rows, axis=1, keepdims=True), 1e-9)
    queries = np.array([0, 3, 7, NUM_X, NUM_ITEMS - 1])
    for same_domain in (True, False):
        items, cosines = nearest_items(scenario, matrix, queries, 4, same_domain=same_domain)
        for row, query in enumerate(queries):
            allowed = [
                other
                for other in range(NUM_ITEMS)
                if matrix.has[other] and other != query and ((other < NUM_X) == (query < NUM_X)) == same_domain
            ]
            best = sorted(allowed, key=lambda other: -rows[query] @ rows[other])[:4]
            if query == 3:
                assert items[row].tolist() == [-1] * 4, "an item without a row has no neighbours"
            else:
                assert items[row].tolist() == best
                assert np.allclose(cosines[row], [rows[query] @ rows[other] for other in best], atol=1e-6)


def test_fewer_items_than_asked_for(scenario):
    rows = np.zeros((NUM_ITEMS, 3))
    rows[[0, 1, NUM_X]] = [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    matrix = matrix_of(scenario, rows)
    items, _ = nearest_items(scenario, matrix, np.array([0]), 3, same_domain=True)
    assert items.tolist() == [[1, -1, -1]]
    items, cosines = nearest_items(scenario, matrix, np.array([0]), 3, same_domain=False)
    assert items.tolist() == [[NUM_X, -1, -1]] and np.isclose(cosines[0, 0], 2**-0.5)


def test_spread_by_brute_force():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)) * [3, 2, 1, 1, 0.1, 0.1] + [2, 0, 0, 0, 0, 0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosine, rank = spread(rows)
    pairs = [rows[i] @ rows[j] for i in range(40) for j in range(40) if i != j]
    values = np.linalg.eigvalsh(np.cov(rows.T))
    shares = values / values.sum()
    assert np.isclose(cosine, np.mean(pairs))
    assert np.isclose(rank, np.exp(-(shares * np.log(shares)).sum()))


def test_spread_where_the_answer_is_known():
    cosine, rank = spread(np.vstack([np.eye(5), -np.eye(5)]))
    assert np.isclose(cosine, -1 / 9) and np.isclose(rank, 5)
    assert spread(np.tile([[0.6, 0.8]], (9, 1))) == (pytest.approx(1), 0)
    assert spread(np.ones((1, 2))) == (1.0, 0.0)


def themed(scenario, seed=0):
    """Titles and rows of ten themes; a row is its theme's direction and a little noise."""
    rng = np.random.default_rng(seed)
    themes = rng.integers(0, 10, NUM_ITEMS)
    names = ["wolf", "sea", "star", "rose", "iron", "salt", "moon", "oak", "wind", "gold"]
    titles = [f"The {names[theme]} {number}" for number, theme in enumerate(themes)]
    rows = rng.normal(size=(10, 32))[themes] + 0.2 * rng.normal(size=(NUM_ITEMS, 32))
    return dataclasses.replace(scenario, items=scenario.items.assign(title=titles)), themes, rows


def test_neighbours_that_share_a_title_word(scenario):
    scenario, themes, rows = themed(scenario)
    good = measure(scenario, matrix_of(scenario, rows))
    assert good.label == "title word" and good.agreement > 0.95 and 0.05 < good.chance < 0.2
    assert good.compared == NUM_ITEMS and good.warnings == []
    bad = measure(scenario, matrix_of(scenario, np.random.default_rng(5).normal(size=rows.shape)))
    assert bad.agreement < 0.3
    assert any("share a title word no more often than random items" in warning for warning in bad.warnings)
    labelled = scenario.items.assign(title="", categories=[f"Books > Theme {theme}" for theme in themes])
    by_category = measure(dataclasses.replace(scenario, items=labelled), matrix_of(scenario, rows))
    assert by_category.label == "category" and by_category.agreement == good.agreement
    alike = measure(dataclasses.replace(scenario, items=labelled.assign(categories="Books")), matrix_of(scenario, rows))
    assert (alike.chance, alike.agreement, alike.warnings) == (1, 1, []), "one category for all says nothing"


def test_labels():
    scenario = make_scenario()
    titles = ["The Book of Tea (DVD)", "", "12 A B", *[""] * (NUM_ITEMS - 3)]
    label, found = item_labels(dataclasses.replace(scenario, items=scenario.items.assign(title=titles)))
    assert label == "title word" and found[:3] == [{"tea"}, set(), set()]
    written = pd.Series(["Books > Tea", "", "Home > Kitchen > Pots | Tea pots", *[""] * (NUM_ITEMS - 3)])
    label, found = item_labels(dataclasses.replace(scenario, items=scenario.items.assign(categories=written)))
    assert label == "category" and found[:3] == [{"Tea"}, set(), {"Pots", "Tea pots"}]


def test_a_nearly_constant_space_is_told(scenario):
    rng = np.random.default_rng(0)
    rows = 1 + 0.01 * rng.normal(size=(NUM_ITEMS, 16))
    space = measure(scenario, matrix_of(scenario, rows))
    assert space.mean_cosine > 0.99
    assert "nearly constant: two random items have cosine 1.000" in space.warnings[0]
    line = np.outer(rng.normal(size=NUM_ITEMS), np.ones(16))
    assert "effective rank 1.0 of 16" in measure(scenario, matrix_of(scenario, line)).warnings[0]


def test_twins_are_told(scenario):
    rows = np.random.default_rng(0).normal(size=(NUM_ITEMS, 16))
    rows[:20] = rows[0]
    space = measure(scenario, matrix_of(scenario, rows))
    assert space.twins == 20 / NUM_ITEMS
    assert "28 % of the items have a twin" in " ".join(space.warnings)


def test_texts_find_their_own_images(scenario):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(NUM_ITEMS, 24))
    images = matrix_of(scenario, rows, "image", weights_sha256="w")
    text = matrix_of(scenario, rows + 0.3 * rng.normal(size=rows.shape), weights_sha256="w")
    assert companions([text, images, matrix_of(scenario, rows, encoder="offline")]) == {"text.hand": images}
    found = measure(scenario, text, images)
    assert (found.own_image, found.own_image_among) == (1.0, NUM_ITEMS)
    lost = measure(scenario, matrix_of(scenario, rng.normal(size=rows.shape)), images)
    assert lost.own_image < 0.3 and any("wrong weights?" in warning for warning in lost.warnings)
    constant = matrix_of(scenario, np.ones_like(rows))
    assert own_image(constant, constant, rng)[0] == 0.0, "equal scores find nothing"
    assert own_image(text, matrix_of(scenario, rows[:, :5], "image"), rng) is None


def test_cosines_that_differ_by_rounding_are_equal(scenario):
    """As a processor that sums in another order would give them: twins of one direction, some off by the last bits."""
    rng = np.random.default_rng(0)
    rows = np.ones((NUM_ITEMS, 24)) * (1 + 1e-7 * rng.normal(size=(NUM_ITEMS, 24)))
    noisy = matrix_of(scenario, rows)
    share, among = own_image(noisy, noisy, rng)
    assert (share, among) == (0.0, NUM_ITEMS), "the mean rank of all is not among the best ten"
    nearest, _ = nearest_items(scenario, noisy, np.arange(NUM_ITEMS), 2, same_domain=True)
    assert nearest[[0, 5, NUM_X, NUM_ITEMS - 1]].tolist() == [
        [1, 2],
        [0, 1],
        [NUM_X + 1, NUM_X + 2],
        [NUM_X, NUM_X + 1],
    ]


def test_items_with_the_most_features_are_shown(scenario):
    matrices = [make_features(scenario, "text", missing=tuple(range(25))), make_features(scenario, "image")]
    chosen = choose_items(scenario, matrices, 5)
    assert sorted(chosen[:5]) == [25, 26, 27, 28, 29] and (chosen[5:] >= NUM_X).all() and len(chosen) == 10
    assert not np.array_equal(choose_items(scenario, matrices, 5, seed=1), chosen)


def test_features_of_other_texts_than_there_are_now_are_told(tmp_path):
    scenario = write_scenario(tmp_path, [f"thing {number}" for number in range(6)], [None] * 6)
    rows = np.random.default_rng(0).normal(size=(6, 4))
    stale = {"family": "clip", "source": "llm", "source_sha256": "before", "weights_sha256": "w"}
    text = matrix_of(scenario, rows, **stale)
    image = matrix_of(scenario, rows, "image", family="clip", items_with_image=4, weights_sha256="w")
    gone = measure_features(scenario, [text]).warnings
    assert any("text.hand: the texts that it was made from are gone" in warning for warning in gone)
    write_llm_text(scenario, {0: "red", 5: "blue"})
    report = measure_features(scenario, [text, image])
    assert any("text.hand: made from other texts than there are now" in warning for warning in report.warnings)
    assert any("image.hand: made when 4 items had an image, now 0 have" in warning for warning in report.warnings)
    assert report.content == {"title": (3, 3), "description": (0, 0), "LLM text": (1, 1), "image": (0, 0)}
