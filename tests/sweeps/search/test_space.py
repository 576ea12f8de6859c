import itertools
import json
import random
import time

import numpy as np
import pytest

from llmemf.errors import InputError
from sweeps.search.space import random_order
from sweeps.search.space_entries import build_space

PAPER = {
    "lr": [1e-4, 5e-4, 1e-3, 5e-3, 1e-2],
    "l2": [1e-5, 5e-5, 1e-4, 5e-4, 1e-3],
    "alpha, beta": {"simplex": 0.1},
    "lambda1": [0.0, 0.1, 0.3, 0.5, 0.7, 1.0],
    "lambda2": [0.0, 0.1, 0.3, 0.5, 0.7, 1.0],
}


@pytest.fixture(scope="module")
def paper():
    return build_space(PAPER, ["alpha + beta <= 1"])


def test_the_papers_grid_has_59400_points_and_says_what_it_dropped(paper):
    assert paper.size == 5 * 5 * 66 * 6 * 6
    assert paper.full_size == 5 * 5 * 121 * 6 * 6
    assert paper.dropped == paper.full_size - paper.size
    assert paper.dropped_by == {"alpha + beta <= 1": 55}


def test_every_point_comes_once_in_seeded_random_order_and_none_violates(paper):
    points = list(paper.shuffled(seed=3))
    assert len({tuple(point.items()) for point in points}) == 59_400
    assert all(point["alpha"] + point["beta"] <= 1 + 1e-9 for point in points)
    assert points[:50] == list(itertools.islice(paper.shuffled(seed=3), 50))
    assert points[:50] != list(itertools.islice(paper.shuffled(seed=4), 50))
    brute = {
        (lr, l2, a / 10, b / 10, one, two)
        for lr, l2, a, b, one, two in itertools.product(
            PAPER["lr"], PAPER["l2"], range(11), range(11), PAPER["lambda1"], PAPER["lambda2"]
        )
        if a + b <= 10
    }
    assert {tuple(point.values()) for point in points} == brute


def test_a_huge_grid_costs_nothing():
    space = build_space({f"k{i}": [float(j) for j in range(100)] for i in range(12)})
    start = time.perf_counter()
    first = list(itertools.islice(space.shuffled(0), 200))
    assert time.perf_counter() - start < 0.5
    assert space.size == 10**24
    assert len({tuple(point.items()) for point in first}) == 200


def test_a_large_order_has_no_repetition_and_a_stable_start():
    drawn = list(itertools.islice(random_order(10**7, 1), 5000))
    assert len(set(drawn)) == 5000
    assert drawn[:10] == list(itertools.islice(random_order(10**7, 1), 10))


def test_grid_points_survive_the_way_through_optuna_exactly(paper):
    for point in itertools.islice(paper.shuffled(0), 2000):
        internal = paper.to_internal(point)
        for name, distribution in paper.distributions().items():
            assert distribution._contains(distribution.to_internal_repr(internal[name])), (name, internal[name])
        assert paper.from_internal(internal) == point


def test_floats_are_refined_between_their_ends_and_rates_on_a_log_scale(paper):
    distributions = paper.distributions()
    assert (distributions["lr"].low, distributions["lr"].high, distributions["lr"].log) == (1e-4, 1e-2, True)
    assert (distributions["lambda1"].low, distributions["lambda1"].high, distributions["lambda1"].log) == (
        0.0,
        1.0,
        False,
    )


def test_the_simplex_is_sampled_uniformly_and_never_left(paper):
    rng = random.Random(0)
    block = next(block for block in paper.blocks if block.kind == "simplex")
    drawn = []
    for _ in range(20_000):
        values = block.from_internal({name: rng.random() for name in block.distributions()})
        drawn.append((values["alpha"], values["beta"]))
    alpha, beta = np.array(drawn).T
    assert (alpha >= 0).all() and (beta >= 0).all() and (alpha + beta <= 1 + 1e-12).all()
    # Of the triangle's area 1/4 lies below alpha + beta = 1/2, and each of the three shares has the mean 1/3.
    assert abs((alpha + beta < 0.5).mean() - 0.25) < 0.015
    for share in (alpha, beta, 1 - alpha - beta):
        assert abs(share.mean() - 1 / 3) < 0.01
        assert abs((share < 0.5).mean() - 0.75) < 0.015


@pytest.mark.parametrize(("u", "v"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.123456789, 1.0), (1e-9, 1.0)])
def test_corners_of_the_simplex(paper, u, v):
    block = next(block for block in paper.blocks if block.kind == "simplex")
    values = block.from_internal(dict(zip(block.distributions(), (u, v))))
    assert min(values.values()) >= 0 and sum(values.values()) <= 1


def test_one_value_is_fixed_and_other_kinds_are_choices():
    space = build_space({"lr": [1e-3], "heads": [1, 2, 4], "encoder": ["block", "bare"], "tied_ids": [True, False]})
    assert [block.kind for block in space.blocks] == ["fixed", "choice", "choice", "choice"]
    assert space.varied_keys == ("heads", "encoder", "tied_ids")
    assert not space.continuous
    point = space.point(5)
    assert space.from_internal(space.to_internal(point)) == point


def test_lists_as_values():
    space = build_space({"modalities": [["id"], ["id", "text"]]})
    assert space.point(1) == {"modalities": ("id", "text")}
    assert space.from_internal(space.to_internal(space.point(1))) == space.point(1)


def test_duplicates_count_once():
    assert build_space({"lr": [1e-3, 0.001, 1e-2]}).size == 2


def test_a_range_has_no_grid_points():
    space = build_space({"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "l2": [0.0, 1e-3]})
    assert space.ranges == ("lr",)
    assert [space.point(i) for i in range(space.size)] == [{"l2": 0.0}, {"l2": 1e-3}]
    assert space.to_internal({"l2": 1e-3}) == {"l2": 1e-3}


def test_settings_tied_by_a_constraint_are_refined_over_their_feasible_points_only():
    space = build_space({"a": [0.0, 0.5, 1.0], "b": [0.0, 0.5, 1.0], "c": [0.0, 1.0]}, ["a <= b"])
    assert space.size == 6 * 2
    assert space.dropped_by == {"a <= b": 3}
    (name,) = [name for name in space.distributions() if name != "c"]
    labels = space.distributions()[name].choices
    assert {tuple(space.from_internal({name: label, "c": 0.0}).values()) for label in labels} == {
        (0.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 1.0, 0.0), (0.5, 0.5, 0.0), (0.5, 1.0, 0.0), (1.0, 1.0, 0.0)
    }  # fmt: skip


def test_a_constraint_on_one_setting_narrows_its_range():
    space = build_space({"lr": [1e-4, 1e-3, 1e-2]}, ["lr <= 0.001"])
    assert (space.blocks[0].kind, space.blocks[0].low, space.blocks[0].high) == ("float", 1e-4, 1e-3)
    assert space.dropped == 1


def test_a_settled_share_leaves_the_rest_to_the_other():
    space = build_space({"alpha, beta": {"simplex": 0.1, "given": {"alpha": 0.3}}}, ["alpha + beta <= 1"])
    assert space.varied_keys == ("beta",)
    assert [space.point(i)["beta"] for i in range(space.size)] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert (space.distributions()["beta"].low, space.distributions()["beta"].high) == (0.0, 0.7)


def test_shares_above_one_are_refused():
    with pytest.raises(InputError, match="above 1"):
        build_space({"alpha, beta": {"simplex": 0.1, "given": {"alpha": 0.7, "beta": 0.4}}})


@pytest.mark.parametrize(
    ("entries", "constraints", "message"),
    [
        ({"lr": []}, [], "lr has no values"),
        ({"lr": {"low": 1}}, [], "write a list of values"),
        ({"lr": {"low": 1, "high": 1}}, [], "low must be below high"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, [], "above 0 with log"),
        ({"a, b": [1]}, [], "simplex"),
        ({"a, b, c": {"simplex": 0.1}}, [], "two settings"),
        ({"a, b": {"simplex": 0.3}}, [], "must divide 1"),
        ({"a, b": {"simplex": 0}}, [], "above 0"),
        ({"a": [1.0], "a ": [2.0]}, [], "twice"),
        ({"a": [1.0]}, ["b <= 1"], "names 'b'"),
        ({"a": [2.0, 3.0]}, ["a <= 1"], "leaves no grid point"),
        ({"a": {"low": 0, "high": 1}}, ["a <= 1"], "is a range"),
    ],
)
def test_mistakes(entries, constraints, message):
    with pytest.raises(InputError, match=message):
        build_space(entries, constraints)


def test_equal_points_have_one_identity_however_they_are_written():
    space = build_space({"modalities": [["id"], ["id", "text"]], "lr": [1e-3, 1e-2], "heads": 2})
    point = space.point(3)
    stored = json.loads(json.dumps(point))
    assert space.identity(point) == space.identity(stored) == space.identity(dict(reversed(stored.items())))
    assert len({space.identity(space.point(i)) for i in range(space.size)}) == space.size == 4


def test_ranges_and_settled_values_do_not_count_for_identity():
    space = build_space({"lr": {"low": 1e-4, "high": 1e-2}, "l2": [0.0, 1e-3], "heads": 2})
    first = space.identity({"lr": 1e-3, "l2": 0.0, "heads": 2})
    assert first == space.identity({"lr": 5e-3, "l2": 0.0}) != space.identity({"lr": 1e-3, "l2": 1e-3})


@pytest.mark.parametrize("run", [0, 1, 7, 29])
def test_fresh_points_go_on_where_the_order_was_left(paper, run):
    order = list(itertools.islice(paper.shuffled(5), 60))
    known = json.loads(json.dumps(order[:run]))
    assert paper.fresh(5, known, 30) == order[run : run + 30]
    assert paper.fresh(5, [], 0) == paper.fresh(5, [], -3) == []


def test_fresh_points_leave_out_what_was_run_elsewhere():
    space = build_space({"lr": [1e-4, 1e-3, 1e-2], "l2": [0.0, 1e-3]})
    refined = {"lr": 2e-3, "l2": 0.0}
    known = [space.point(4), refined, space.point(1)]
    found = space.fresh(0, known, 99)
    assert len(found) == 4 and not [point for point in found if point in known]
    assert found == [point for point in space.shuffled(0) if point not in known]
    assert space.fresh(0, list(space.shuffled(0)), 99) == []


def test_a_wider_grid_leaves_out_the_points_of_the_narrow_one():
    narrow = build_space({"lr": [1e-4, 1e-3], "l2": [0.0, 1e-3]})
    wide = build_space({"lr": [1e-4, 1e-3, 1e-2], "l2": [0.0, 1e-3]})
    found = wide.fresh(0, list(narrow.shuffled(0)), 99)
    assert sorted((point["lr"], point["l2"]) for point in found) == [(1e-2, 0.0), (1e-2, 1e-3)]


def test_log_is_true_or_false():
    with pytest.raises(InputError, match="lr .*log must be true or false"):
        build_space({"lr": {"low": 0.1, "high": 1.0, "log": "no"}})


def test_places_and_coordinates_lead_to_settings_and_back():
    space = build_space(
        {"lr": [1e-4, 1e-2], "alpha, beta": {"simplex": 0.1}, "heads": [1, 2, 4], "mode": ["a", "b"], "l2": 0.0}
    )
    assert space.places == 5
    settings = space.at([0.5, 0.25, 0.5, 0.9, 0.1])
    assert settings == {"lr": 1e-3, "alpha": 0.5, "beta": 0.25, "heads": 4, "mode": "a", "l2": 0.0}
    assert space.coordinates(settings) == pytest.approx([0.5, 0.25, 0.5, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "snapped"),
    [
        (
            {"lr": 0.00012345, "alpha": 0.33333, "beta": 0.1, "heads": 2},
            {"lr": 0.0001234, "alpha": 0.3333, "beta": 0.1, "heads": 2},
        ),
        ({"lr": 0.0001, "alpha": 0.7, "beta": 0.3, "heads": 1}, {"lr": 0.0001, "alpha": 0.7, "beta": 0.3, "heads": 1}),
        ({"lr": 0.1, "alpha": 0.3, "beta": 0.1, "heads": 2}, "lr = 0.1"),
        ({"lr": 0.001, "alpha": 0.8, "beta": 0.3, "heads": 2}, "alpha, beta = 0.8, 0.3"),
        ({"lr": 0.001, "alpha": 0.3, "beta": 0.1, "heads": 3}, "heads = 3"),
    ],
)
def test_settings_from_outside_are_snapped_or_refused(given, snapped):
    space = build_space({"lr": [1e-4, 1e-2], "alpha, beta": {"simplex": 0.1}, "heads": [1, 2]})
    if isinstance(snapped, str):
        with pytest.raises(InputError, match=snapped):
            space.snapped(given)
    else:
        assert space.snapped(given) == snapped
        assert space.trained_as(given | snapped) == space.trained_as(snapped)
