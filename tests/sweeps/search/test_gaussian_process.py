import numpy as np
import pytest

from sweeps.search.gaussian_process import Model, Seen


def curves(points, ends, noise, seed=0, epochs=(1, 2, 4, 9)):
    """Curves that rise to `ends`; trials of odd numbers are stopped after epoch 2. Chance moves a whole trial."""
    rng, rows = np.random.default_rng(seed), []
    for trial, (point, end) in enumerate(zip(points, ends)):
        luck = rng.normal(0, noise)
        for epoch in epochs[: 2 if trial % 2 else None]:
            u = np.log(epoch) / np.log(9)
            rows.append((point, trial, u, end * (0.3 + 0.7 * u) + luck))
    columns = [np.array(column) for column in zip(*rows)]
    return Seen(*columns)


def peak(points):
    return 1 - ((points[:, 0] - 0.7) ** 2) * 4


def test_the_end_of_a_point_that_nobody_trained_follows_from_stopped_and_whole_trials():
    points = np.random.default_rng(1).random((24, 3))
    model = Model(curves(points, peak(points), 0.03))
    held_out = np.random.default_rng(2).random((60, 3))
    mean, deviation = model.at_the_end(held_out)
    assert np.corrcoef(mean, peak(held_out))[0, 1] > 0.9
    assert np.abs(mean - peak(held_out)).mean() < 0.15
    assert (np.abs(mean - peak(held_out)) < 4 * deviation).mean() > 0.9
    assert model.lengths[0] < model.lengths[1:].min(), "only the first setting matters"


def test_one_lucky_trial_is_not_believed():
    points = np.repeat(np.linspace(0, 1, 8)[:, None], 2, axis=1)
    ends = np.full(8, 0.5)
    ends[3] = 0.8
    flat = np.array([[point, trial, 1.0, end] for trial, (point, end) in enumerate(zip(points[:, 0], ends))])
    seen = Seen(flat[:, :1], flat[:, 1].astype(int), flat[:, 2], flat[:, 3])
    assert Model(seen).at_the_end(points[3:4, :1])[0][0] < 0.8


def test_gain_is_largest_where_the_model_hopes_for_more():
    points = np.linspace(0, 1, 9)[:, None]
    model = Model(curves(points, peak(points), 0.01))
    places = np.linspace(0, 1, 101)[:, None]
    assert abs(places[model.gain(places).argmax(), 0] - 0.7) < 0.2
    assert (model.gain(places) >= 0).all()


@pytest.mark.parametrize("value", [0.3, -2.0])
def test_equal_values_give_no_division_by_zero(value):
    seen = Seen(np.zeros((2, 2)), np.array([0, 1]), np.array([0.0, 1.0]), np.full(2, value))
    mean, deviation = Model(seen).at_the_end(np.array([[0.5, 0.5]]))
    assert np.isfinite(mean).all() and (deviation > 0).all()
