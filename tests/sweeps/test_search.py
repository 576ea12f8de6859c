import math

import pytest
from ray.tune.search import Searcher

from sweeps.search import SweepSearch, was_stopped
from sweeps.space import build_space

SPACE = {"lr": [1e-4, 1e-3, 1e-2], "alpha, beta": {"simplex": 0.5}}


def make(method="optuna", count=4, seed=0):
    space = build_space(SPACE, ["alpha + beta <= 1"])
    points = [point for point, _ in zip(space.shuffled(seed), range(count))]
    return SweepSearch(space, method=method, points=points, seed=seed, startup=4), points


def result(epoch, value, epochs=8, **more):
    return {"epoch": epoch, "objective": value, "epochs": epochs, **more}


def states(search):
    return [trial.state.name for trial in search.study.trials]


def test_grid_gives_each_point_once_in_order_then_ends():
    search, points = make("grid", count=18)
    assert len(points) == 18
    given = [search.suggest(f"t{i}") for i in range(18)]
    assert given == points
    assert search.suggest("more") == Searcher.FINISHED


def test_equal_points_run_once():
    space = build_space(SPACE)
    point = space.point(3)
    search = SweepSearch(space, method="grid", points=[point, dict(reversed(point.items())), space.point(4)])
    assert [search.suggest("a"), search.suggest("b")] == [point, space.point(4)]
    assert search.suggest("c") == Searcher.FINISHED


def test_optuna_refines_after_the_grid_with_exact_grid_values():
    search, points = make("optuna", count=3)
    given = [search.suggest(f"t{i}") for i in range(6)]
    assert given[:3] == points
    for settings in given[3:]:
        assert set(settings) == {"lr", "alpha", "beta"}
        assert 1e-4 <= settings["lr"] <= 1e-2 and settings["alpha"] + settings["beta"] <= 1
    assert len({tuple(settings.items()) for settings in given}) == 6


def test_random_is_seeded_and_needs_no_grid():
    def draw(seed):
        search = SweepSearch(build_space(SPACE), method="random", seed=seed)
        return [search.suggest(str(i)) for i in range(5)]

    assert draw(1) == draw(1) != draw(2)


def test_a_space_without_ranges_ends_after_its_points():
    space = build_space({"heads": [1, 2]})
    search = SweepSearch(space, method="optuna", points=list(space.shuffled(0)))
    assert [search.suggest("a"), search.suggest("b"), search.suggest("c")][2] == Searcher.FINISHED


def test_a_range_is_drawn_beside_the_grid_values():
    space = build_space({"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "l2": [0.0, 1e-3]})
    search = SweepSearch(space, method="optuna", points=list(space.shuffled(0)))
    settings = search.suggest("a")
    assert settings["l2"] in (0.0, 1e-3) and 1e-4 <= settings["lr"] <= 1e-2


def test_ends_are_told_as_what_they_were():
    search, _ = make(count=6)
    for i in range(6):
        search.suggest(f"t{i}")
    for epoch in range(1, 9):
        search.on_trial_result("t0", result(epoch, epoch / 100))
    search.on_trial_complete("t0", result(8, 0.08))
    search.on_trial_result("t1", result(1, 0.01))
    search.on_trial_complete("t1", result(2, 0.02))  # stopped by the scheduler: its last result arrives only here
    search.on_trial_complete("t2", result(5, 0.05, stopped_early=True))
    search.on_trial_complete("t3", result(3, 0.03), error=True)
    search.on_trial_complete("t4", None, error=True)
    search.on_trial_complete("t5", result(8, math.nan))
    assert states(search) == ["COMPLETE", "PRUNED", "COMPLETE", "FAIL", "FAIL", "FAIL"]
    pruned = search.study.trials[1]
    assert pruned.value == 0.02 and pruned.intermediate_values == {1: 0.01, 2: 0.02}
    assert search.study.trials[0].value == 0.08
    assert search.study.best_value == 0.08


def test_a_failed_trial_never_counts_with_an_earlier_value():
    search, _ = make()
    search.suggest("a")
    search.on_trial_result("a", result(1, 0.9))
    search.on_trial_complete("a", None, error=True)
    assert states(search) == ["FAIL"]
    assert search.study.trials[0].value is None


def test_repeated_epochs_of_a_resumed_trial_are_left_out(recwarn):
    search, _ = make()
    search.suggest("a")
    for epoch in (1, 2, 3, 2, 3, 4):
        search.on_trial_result("a", result(epoch, epoch / 10))
    assert search.study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert not [w for w in recwarn if "reported" in str(w.message)]


def test_saved_and_restored_in_the_middle_of_a_sweep(tmp_path):
    search, points = make("grid", count=6)
    for i in range(3):
        search.suggest(f"t{i}")
    search.on_trial_complete("t0", result(8, 0.5))
    search.on_trial_result("t1", result(2, 0.2))
    search.save(str(tmp_path / "state"))

    again, _ = make("grid", count=6)
    again.restore(str(tmp_path / "state"))
    assert states(again) == ["COMPLETE", "RUNNING", "RUNNING"]
    again.on_trial_result("t1", result(2, 0.2))
    again.on_trial_complete("t1", result(8, 0.8))
    assert again.study.trials[1].value == 0.8
    assert [again.suggest(f"t{i}") for i in range(3, 6)] == points[3:]
    assert again.suggest("more") == Searcher.FINISHED
    again.close()
    assert set(states(again)) == {"COMPLETE", "FAIL"}


def test_a_restored_sampler_goes_on_as_if_nothing_had_happened(tmp_path):
    def run(interrupted):
        search, _ = make("optuna", count=4)
        drawn = []
        for i in range(8):
            drawn.append(search.suggest(f"t{i}"))
            search.on_trial_complete(f"t{i}", result(8, drawn[-1]["alpha"]))
            if interrupted and i == 5:
                search.save(str(tmp_path / "state"))
                search, _ = make("optuna", count=4)
                search.restore(str(tmp_path / "state"))
        return drawn

    assert run(interrupted=True) == run(interrupted=False)


@pytest.mark.parametrize(
    ("epoch", "more", "expected"), [(8, {}, False), (3, {}, True), (3, {"stopped_early": True}, False)]
)
def test_stopped_by_the_scheduler(epoch, more, expected):
    assert was_stopped(result(epoch, 0.1, **more)) is expected
