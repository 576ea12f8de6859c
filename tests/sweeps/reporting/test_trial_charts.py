import json

import pytest
from report_fakes import make_sweep, rising, trial

from sweeps.reporting.gather import gather
from sweeps.reporting.trial_charts import (
    best_so_far,
    curves,
    envelope,
    losses,
    parallel,
    quantile_classes,
    simplex,
    slice_of,
)


def test_the_envelope_is_the_best_of_each_part():
    points = [(0.0, 0.1), (0.01, 0.5), (0.5, 0.2), (0.51, 0.1), (1.0, 0.3)]
    assert envelope(points) == [(0.01, 0.5), (0.5, 0.2), (1.0, 0.3)]
    assert envelope(points[:3]) == []


def test_fifths_of_the_order():
    assert quantile_classes([5, 1, 4, 2, 3]) == [4, 0, 3, 1, 2]
    assert quantile_classes([0.5]) == [0] and max(quantile_classes(list(range(100)))) == 4


@pytest.fixture
def history(tmp_path):
    return gather(make_sweep(tmp_path, [trial(rising(0.05)), trial([0.01, 0.02], "pruned"), trial(rising(0.04))]))


def test_curves_show_every_trial_the_rungs_and_the_cuts(history):
    plot = curves(history)
    lines = {line.key: line for line in plot.lines if line.key}
    assert [line.kind for line in plot.lines if not line.key] == ["r"] * len(history.rungs)
    assert {key: line.kind for key, line in lines.items()} == {1: "l best", 2: "l p", 3: "l c"}
    assert len(lines[1].points) == 6 and len(lines[2].points) == 2
    assert [(dot.key, dot.kind) for dot in plot.dots] == [(2, "p"), (1, "best")]
    assert [label.text for label in plot.labels] == ["1 cut", f"t01  {0.05 * (1 - 0.5**6):.4f}"]


def test_a_dot_lies_where_its_trial_is(history):
    plot = slice_of(history, history.parameters[0])
    assert sorted(dot.key for dot in plot.dots) == [1, 2, 3]
    assert max(plot.dots, key=lambda dot: dot.y).key == 1
    # The learning rate rises with the number.
    assert [dot.key for dot in sorted(plot.dots, key=lambda dot: dot.x)] == [1, 2, 3]


def test_parallel_lines_end_at_their_objective(history):
    plot = parallel(history)
    assert [axis.label for _, axis in plot.upright] == ["lr", "alpha", "objective"]
    ends = {line.key: line.points[-1] for line in plot.lines if line.key}
    assert {x for x, _ in ends.values()} == {1.0} and ends[1][1] > ends[3][1] > ends[2][1]


def test_shares_have_a_map(history):
    alpha, beta = history.parameters[1:3]
    plot = simplex(history, (alpha, beta))
    first = next(dot for dot in plot.dots if dot.key == 1)
    assert (first.x, first.y) == pytest.approx((0.1 + 0.2 / 2, 0.2)) and "best" in first.kind


def test_simple_systems_are_levels_in_the_charts(tmp_path):
    record = make_sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.04)), trial(rising(0.06))])
    levels = {"chance": -9.0, "popularity": 0.04, "neighbours": 0.0405}
    (record.folder / "references.json").write_text(json.dumps({name: {"val/mrr": at} for name, at in levels.items()}))
    history = gather(record)
    for plot in (curves(history), best_so_far(history)):
        found = [label.text for label in plot.labels if label.kind == "level"]
        assert found == ["popularity 0.0400, neighbours 0.0405"], "one that would flatten the rest is left out"
    line = best_so_far(history).lines[-1]
    heights = [y for _, y in line.points]
    assert heights == sorted(heights) and heights[0] < heights[-1] and len(history.valued) == 3
    assert losses(history) is None, "no training loss is known"
