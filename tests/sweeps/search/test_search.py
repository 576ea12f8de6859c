import math
import statistics
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.search import Searcher
from sweep_fakes import epoch_result, propose

from llmemf.errors import InputError
from sweeps.search import modelled
from sweeps.search.gaussian_process import Model
from sweeps.search.search import SweepSearch
from sweeps.search.space_entries import build_space
from sweeps.state.confirmation import next_repeats
from sweeps.state.sweep_record import Observation
from sweeps.state.sweep_state import SweepState

SPACE = {"lr": [1e-4, 1e-3, 1e-2], "alpha, beta": {"simplex": 0.5}}
EPOCHS = 3


@pytest.fixture
def state(tmp_path):
    return SweepState(tmp_path)


def make(state, method="optuna", trials=12, count=4, seed=0, space=None, **more):
    """A search over the grid's first `count` points, without those that have been run."""
    space = space or build_space(SPACE, ["alpha + beta <= 1"])
    known = [record.config for record in state.records.values()]
    points = space.fresh(seed, known, count - len(known))
    options = {"method": method, "points": points, "trials": trials, "epochs": EPOCHS, "seed": seed, "startup": 4}
    return SweepSearch(space, state, **{**options, **more})


def choice(given):
    return {key: value for key, value in given.items() if key != "trial"}


def value_of(record, epoch):
    """A made-up objective with its best value at lr = 1e-3, alpha = 0.5."""
    return 1 / (1 + 1000 * abs(record.config["lr"] - 1e-3) + abs(record.config["alpha"] - 0.5)) * epoch / EPOCHS


def run(search, tune_id, epochs=EPOCHS, end="completed", value=value_of):
    """One trial as Tune and the callback drive it, to its end."""
    given = search.suggest(tune_id)
    record = search.state.records[given["trial"]]
    search.state.start(record)
    for epoch in range(record.epoch + 1, epochs + 1):
        result = epoch_result(epoch, value(record, epoch))
        search.state.add(record, result, stopped=end == "pruned" and epoch == epochs)
    if end == "failed":
        search.state.fail(record, "error", "NonFiniteLoss: nan")
    search.on_trial_complete(tune_id)
    search.tell(record)
    return choice(given)


def states(search):
    return [trial.state.name for trial in search.study.trials]


def contents(search):
    """All of a study that a sampler sees."""
    return [
        (trial.number, trial.params, trial.values, trial.intermediate_values, trial.state.name, trial.user_attrs)
        for trial in search.study.trials
    ]


def test_grid_gives_each_point_once_in_order_then_ends(state):
    space = build_space(SPACE)
    search = make(state, "grid", trials=18, count=18)
    given = [search.suggest(f"t{i}") for i in range(18)]
    assert [choice(item) for item in given] == list(space.shuffled(0)) and len(given) == 18
    assert [item["trial"] for item in given] == list(range(1, 19))
    assert search.suggest("more") is None, "17 are running"
    for i in range(18):
        search.on_trial_complete(f"t{i}")
    assert search.suggest("more") == Searcher.FINISHED


def test_a_trial_is_in_the_journal_before_tune_hears_of_it(state, tmp_path):
    given = make(state).suggest("a")
    stored = SweepState(tmp_path).records[1]
    assert stored.config == choice(given) and stored.epochs == EPOCHS and stored.varied == stored.config


def test_optuna_refines_after_the_grid_with_exact_grid_values(state):
    search = make(state, trials=6, count=3)
    points = list(search.points)
    given = [choice(search.suggest(f"t{i}")) for i in range(6)]
    assert given[:3] == points
    for settings in given[3:]:
        assert set(settings) == {"lr", "alpha", "beta"}
        assert 1e-4 <= settings["lr"] <= 1e-2 and settings["alpha"] + settings["beta"] <= 1
    assert len({tuple(settings.items()) for settings in given}) == 6
    assert search.suggest("t6") is None and len(state.records) == 6


def test_random_is_seeded_and_needs_no_grid(tmp_path):
    def draw(seed, name):
        (tmp_path / name).mkdir()
        search = make(SweepState(tmp_path / name), "random", count=0, seed=seed)
        return [search.suggest(str(i)) for i in range(5)]

    assert draw(1, "a") == draw(1, "b") != draw(2, "c")


def test_a_space_without_ranges_ends_after_its_points(state):
    search = make(state, count=2, trials=9, space=build_space({"heads": [1, 2]}))
    assert search.has_work()
    assert {search.suggest("a")["heads"], search.suggest("b")["heads"]} == {1, 2}
    assert not search.has_work() and search.suggest("c") is None
    search.on_trial_complete("a")
    search.on_trial_complete("b")
    assert search.suggest("c") == Searcher.FINISHED


def test_a_range_is_drawn_beside_the_grid_values(state):
    space = build_space({"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "l2": [0.0, 1e-3]})
    settings = make(state, space=space, count=2).suggest("a")
    assert settings["l2"] in (0.0, 1e-3) and 1e-4 <= settings["lr"] <= 1e-2


def test_nothing_new_while_all_that_is_left_runs_and_the_end_after_it(state):
    search = make(state, trials=2, count=2)
    search.suggest("a")
    search.suggest("b")
    assert not search.has_work()
    assert search.suggest("c") is None
    search.on_trial_complete("a")
    assert search.suggest("c") is None
    search.on_trial_complete("b", error=True)
    assert search.suggest("c") == Searcher.FINISHED


def test_ends_are_told_as_what_they_were(state):
    search = make(state, count=6, trials=6)
    run(search, "a")
    run(search, "b", epochs=2, end="pruned")
    run(search, "c", epochs=2, end="failed")
    run(search, "d", epochs=0, end="failed")
    assert states(search) == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    done, pruned, failed, _ = search.study.trials
    one, two, *_ = state.records.values()
    assert done.value == one.objective and done.intermediate_values == {e: value_of(one, e) for e in (1, 2, 3)}
    assert pruned.value == two.objective and pruned.intermediate_values == {e: value_of(two, e) for e in (1, 2)}
    assert failed.value is None, "a failed trial never counts with an earlier value"
    assert done.user_attrs == {"trial": "t01", "varied": one.varied}
    assert search.study.best_trial.number == done.number


def test_a_trial_is_told_once(state):
    search = make(state)
    run(search, "a")
    before = contents(search)
    search.tell(state.records[1])
    assert contents(search) == before


def test_stopped_early_is_complete(state):
    search = make(state)
    record = state.records[search.suggest("a")["trial"]]
    state.add(record, epoch_result(2, 0.5, stopped_early=True), stopped=False)
    search.tell(record)
    assert states(search) == ["COMPLETE"]


def ends(i):
    return {2: (2, "pruned"), 4: (1, "failed"), 7: (2, "pruned")}.get(i, (EPOCHS, "completed"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    search = make(SweepState(folder))
    return [run(search, f"t{i}", *ends(i)) for i in range(12)], contents(search)


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("running", [False, True])
def test_an_interrupted_search_suggests_what_an_undisturbed_one_does(tmp_path, undisturbed, after, running):
    """TPE with one trial at a time; the driver dies after each trial, or in the middle of the next one."""
    search = make(SweepState(tmp_path))
    drawn = [run(search, f"t{i}", *ends(i)) for i in range(after)]
    if running:
        record = search.state.records[search.suggest("dies")["trial"]]
        search.state.start(record)
        search.state.add(record, epoch_result(1, value_of(record, 1)), stopped=False)
    before = contents(search)

    search = make(SweepState(tmp_path))
    assert contents(search) == before
    drawn += [run(search, f"again{i}", *ends(i)) for i in range(after, 12)]
    assert drawn == undisturbed[0]
    assert contents(search) == undisturbed[1]
    assert "RUNNING" not in states(search)
    assert search.suggest("more") == Searcher.FINISHED and not search.has_work()


def test_what_was_left_goes_first_in_its_order(tmp_path):
    search = make(SweepState(tmp_path))
    first = [search.suggest(f"t{i}") for i in range(3)]
    search.tell(end(search.state, 2))
    again = make(SweepState(tmp_path))
    assert [again.suggest(f"a{i}") for i in range(2)] == [first[0], first[2]]
    assert again.suggest("a2")["trial"] == 4
    assert states(again) == ["RUNNING", "COMPLETE", "RUNNING", "RUNNING"]


def end(state, number):
    record = state.records[number]
    state.start(record)
    for epoch in range(1, EPOCHS + 1):
        state.add(record, epoch_result(epoch, value_of(record, epoch)), stopped=False)
    return record


def test_a_lost_trial_comes_again_with_its_number_and_is_told_once(state):
    search = make(state, trials=2, count=2)
    given = search.suggest("a")
    search.suggest("b")
    record = state.records[given["trial"]]
    state.start(record)
    state.add(record, epoch_result(1, 0.1), stopped=False)
    search.on_trial_complete("a", error=True)
    assert state.lose(record, "lost", "gone")
    search.again(record)
    assert search.has_work()
    assert search.suggest("c") == given and search.live["c"] is record
    assert search.suggest("d") is None
    search.tell(end(state, 1))
    search.tell(end(state, 2))
    assert states(search) == ["COMPLETE", "COMPLETE"] and len(state.records) == 2


def test_a_trial_that_was_lost_too_often_is_tried_by_the_next_driver(tmp_path):
    search = make(SweepState(tmp_path), trials=1, count=1)
    given = search.suggest("a")
    record = search.state.records[1]
    while search.state.lose(record, "lost", "gone"):
        pass
    search.tell(record)
    assert states(search) == ["RUNNING"], "it is no failure of the point"
    again = make(SweepState(tmp_path), trials=1, count=1)
    assert again.has_work() and states(again) == ["RUNNING"]
    assert again.suggest("b") == given
    again.tell(end(again.state, 1))
    assert states(again) == ["COMPLETE"]


def test_one_that_failed_by_itself_is_not_tried_again(tmp_path):
    run(make(SweepState(tmp_path), trials=1, count=1), "a", epochs=1, end="failed")
    again = make(SweepState(tmp_path), trials=1, count=1)
    assert not again.has_work() and again.suggest("b") == Searcher.FINISHED and states(again) == ["FAIL"]


def test_one_that_failed_runs_again_under_its_number_where_that_is_asked_for(tmp_path):
    search = make(SweepState(tmp_path), trials=1, count=1)
    given = search.suggest("a")
    search.state.fail(search.state.records[1], "error", "no")
    state = SweepState(tmp_path)
    state.take_back_failed()
    again = make(state, trials=1, count=1)
    assert again.has_work() and again.suggest("b") == given
    again.tell(end(state, 1))
    assert states(again) == ["COMPLETE"] and again.suggest("c") is None


def test_what_took_the_gpu_away_gets_time_to_go(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("sweeps.search.search.time.monotonic", lambda: clock.now)
    search = make(SweepState(tmp_path), trials=1, count=1)
    given, record = search.suggest("a"), search.state.records[1]
    for pause in (5.0, 15.0, 45.0, 135.0):
        search.on_trial_complete("a")
        assert search.state.lose(record, "device", f"busy at {clock.now}")
        search.again(record, "device")
        clock.now += pause - 0.1
        assert search.suggest("a") is None and search.has_work(), "Tune asks again"
        clock.now += 0.2
        assert search.suggest("a") == given
    search.on_trial_complete("a")
    search.again(record, "device")
    search.is_stopping = lambda: True
    assert search.suggest("a") == Searcher.FINISHED, "a sweep that stops waits for nobody"


def test_a_trial_whose_node_is_gone_starts_at_once_on_another(tmp_path):
    search = make(SweepState(tmp_path), trials=1, count=1)
    given, record = search.suggest("a"), search.state.records[1]
    search.on_trial_complete("a")
    search.state.lose(record, "lost", "gone")
    search.again(record)
    assert search.suggest("b") == given


def test_a_wider_space_keeps_what_was_learned(tmp_path):
    narrow = make(SweepState(tmp_path), trials=6)
    for i in range(6):
        run(narrow, f"t{i}")
    wide = build_space({**SPACE, "lr": [1e-5, 1e-1]}, ["alpha + beta <= 1"])
    search = make(SweepState(tmp_path), trials=8, count=0, space=wide)
    assert search.outside == 0 and states(search) == ["COMPLETE"] * 6
    assert [t.value for t in search.study.trials] == [t.value for t in narrow.study.trials]
    assert [t.params for t in search.study.trials] == [t.params for t in narrow.study.trials]
    lr = search.study.trials[0].distributions["lr"]
    assert (lr.low, lr.high) == (1e-5, 1e-1), "every trial is one of the wider space"
    run(search, "more")
    assert states(search) == ["COMPLETE"] * 7


def test_trials_outside_of_a_moved_space_are_counted_and_left_out(tmp_path):
    search = make(SweepState(tmp_path), trials=18, count=18)
    rates = [run(search, f"t{i}")["lr"] for i in range(18)]
    moved = build_space({**SPACE, "lr": [1e-3, 1e-1]})
    search = make(SweepState(tmp_path), trials=20, count=0, space=moved)
    assert Counter(rates) == {1e-4: 6, 1e-3: 6, 1e-2: 6}
    assert search.outside == 6 and len(search.study.trials) == 12
    assert min(trial.params["lr"] for trial in search.study.trials) == 1e-3
    run(search, "more")
    assert states(search) == ["COMPLETE"] * 13 and 19 in search.state.records


def test_an_unfinished_trial_outside_of_the_space_is_finished_all_the_same(tmp_path):
    state = SweepState(tmp_path)
    propose(state, epochs=EPOCHS, lr=0.5, alpha=0.5, beta=0.0)
    search = make(SweepState(tmp_path), trials=1, count=0)
    assert search.outside == 1 and choice(search.suggest("a")) == {"lr": 0.5, "alpha": 0.5, "beta": 0.0}
    search.tell(end(search.state, 1))
    assert states(search) == []


def test_a_setting_that_varies_now_is_known_of_earlier_trials(tmp_path):
    search = make(SweepState(tmp_path), trials=3, count=3)
    for i in range(3):
        run(search, f"t{i}")
    state = SweepState(tmp_path)
    state.extend(5, {"dropout": 0.3})
    wide = build_space({**SPACE, "dropout": [0.1, 0.3, 0.5]})
    search = make(state, trials=5, count=0, space=wide)
    assert search.outside == 0 and {trial.params["dropout"] for trial in search.study.trials} == {0.3}
    assert "dropout" in search.suggest("a")


def test_settings_that_do_not_vary_any_more_are_still_named(state):
    search = make(state, varied_keys=("lr", "alpha"))
    search.suggest("a")
    assert set(state.records[1].varied) == {"lr", "alpha"}


def test_many_trials_at_once_leave_a_consistent_study(tmp_path):
    """Killed again and again while three trials run; they end in another order than they began."""
    state = SweepState(tmp_path)
    for killed in range(5):
        search = make(SweepState(tmp_path), trials=12)
        state = search.state
        numbers = [search.suggest(f"k{killed}-{i}")["trial"] for i in range(3)]
        for number in numbers[:0:-1]:
            search.tell(end(state, number))
    search = make(SweepState(tmp_path), trials=12)
    i = 0
    while search.has_work():
        run(search, f"last{i}")
        i += 1
    assert sorted(search.state.records) == list(range(1, 13))
    assert states(search) == ["COMPLETE"] * 12
    assert [trial.user_attrs["trial"] for trial in search.study.trials] == [f"t{n:02d}" for n in range(1, 13)]
    assert len({tuple(sorted(record.config.items())) for record in search.state.records.values()}) == 12


def test_the_search_has_no_state_of_its_own(state, tmp_path):
    search = make(state)
    search.save(str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
    with pytest.raises(NotImplementedError):
        search.restore(str(tmp_path / "state"))


def test_suggestions_that_the_model_refuses_are_asked_for_again(state):
    def problem(config):
        return "too small" if config["lr"] < 1e-3 else ""

    search = make(state, "random", count=0, problem=problem)
    for number in range(8):
        run(search, f"tune{number}")
    assert len(state.records) == 8 and min(record.config["lr"] for record in state.records.values()) >= 1e-3
    again = make(SweepState(state.event_log.path.parent), "random", count=0, problem=problem)
    assert again.suggest("next") == search.suggest("next"), "refused suggestions leave no trace"


def test_a_space_in_which_nothing_is_valid_is_refused(state):
    search = make(state, "random", count=0, problem=lambda config: "heads = 3 does not fit")
    with pytest.raises(InputError, match="heads = 3"):
        search.suggest("tune1")


def racing(state, **more):
    """A search of three points, of which the best two are repeated once each."""

    def repeats():
        return next_repeats(state.records.values(), candidates=2, epochs=2 * EPOCHS, seed=0)

    return make(state, trials=3, count=3, method="grid", next_repeats=repeats, **more)


def test_processes_are_kept_for_trials_that_wait_for_others(state):
    search = racing(state, repeats_to_come=lambda: 2)
    assert search.awaited() == 0, "the next one can be had at once"
    given = [search.suggest(f"a{place}")["trial"] for place in range(3)]
    assert search.awaited() == 2, "the best two run again when these have ended"
    search.again(state.records[given[0]])
    assert search.awaited() == 3, "and one that was lost"
    search.is_stopping = lambda: True
    assert search.awaited() == 0


def test_the_best_run_again_when_all_others_have_ended(state, tmp_path):
    search = racing(state)
    for place in range(2):
        run(search, f"a{place}")
    last = state.records[search.suggest("a2")["trial"]]
    assert search.suggest("b") is None, "the last trial may be the best"
    end(state, last.number)
    search.on_trial_complete("a2")
    search.tell(last)
    best = sorted(state.searched, key=lambda record: -record.objective)[:2]
    assert search.has_work()
    found = [search.suggest(f"b{place}") for place in range(2)]
    assert found == [{"trial": 4 + place, **record.config, "seed": 1001} for place, record in enumerate(best)]
    assert search.suggest("c") is None and len(search.study.trials) == 3, "the study learns of the search alone"

    again = racing(SweepState(tmp_path))
    assert again.has_work() and [again.suggest(f"d{place}")["trial"] for place in range(2)] == [4, 5]
    for number in (4, 5):
        again.on_trial_complete(f"d{number - 4}")
        again.tell(end(again.state, number))
    assert again.suggest("e") == Searcher.FINISHED and not again.has_work()


def test_an_extension_counts_trials_of_the_search_alone(state):
    search = racing(state)
    for place in range(5):
        run(search, f"a{place}")
    assert [record.repeats > 0 for record in state.records.values()] == [False] * 3 + [True] * 2
    longer = make(state, trials=4)
    assert choice(longer.suggest("b")).keys() == {"lr", "alpha", "beta"} and longer.suggest("c") is None


CATEGORIES = {
    "lr": [1e-4, 1e-3, 1e-2],
    "alpha, beta": {"simplex": 0.5},
    "mixture": ["prob", "logit"],
    "heads": [1, 2, 4],
}


def auto(state, trials=10, space=None, **more):
    return make(state, "auto", trials=trials, count=0, space=space or build_space(CATEGORIES), **more)


def test_auto_spreads_its_first_points_and_then_goes_to_the_best_region(state):
    search = auto(state, trials=16)
    given = [run(search, f"t{index}", epochs=2 if index % 3 else EPOCHS, end="pruned") for index in range(16)]
    assert len({tuple(point.items()) for point in given}) == 16
    first, last = [[abs(math.log10(point["lr"]) + 3) for point in part] for part in (given[:4], given[-8:])]
    assert max(first) > 0.5 and statistics.median(last) < statistics.median(first)
    assert all(1e-4 <= point["lr"] <= 1e-2 and point["alpha"] + point["beta"] <= 1 for point in given)
    assert {point["mixture"] for point in given} == {"prob", "logit"}


@pytest.mark.parametrize("done", [2, 7])
def test_auto_proposes_after_a_crash_what_it_would_have_proposed(state, tmp_path, done):
    search = auto(state)
    for index in range(done):
        run(search, f"t{index}")
    lost = auto(SweepState(tmp_path))
    assert choice(search.suggest("next")) == choice(lost.suggest("next"))


def test_auto_leaves_out_what_the_model_refuses_and_what_runs(state):
    search = auto(state, problem=lambda config: "" if config["lr"] < 1e-3 else "too fast")
    given = [choice(search.suggest(f"t{index}")) for index in range(6)]
    assert all(point["lr"] < 1e-3 for point in given) and len({tuple(point.items()) for point in given}) == 6


def test_auto_begins_where_earlier_results_point(state):
    space = build_space({"lr": [1e-4, 1e-3, 1e-2]})
    seen = [
        Observation(settings={"lr": lr}, values={EPOCHS: -abs(math.log10(lr) + 2.2)})
        for lr in (1e-4, 3e-4, 1e-3, 3e-3, 7e-3, 1e-2)
    ]
    assert 3e-3 < choice(auto(state, space=space, observations=seen).suggest("a"))["lr"] <= 1e-2


def test_auto_looks_where_little_is_known_although_all_it_knows_points_elsewhere(state):
    """Whether a setting matters is judged by few trials; every third one asks again."""
    space = build_space({"a": [0.0, 0.5, 1.0], "b": [0.0, 0.5, 1.0]})
    seen = [Observation(settings={"a": a / 20, "b": 0.02}, values={EPOCHS: a / 20}) for a in range(1, 21)]
    search = auto(state, space=space, observations=seen)
    given = [run(search, f"t{index}", value=lambda record, epoch: record.config["a"]) for index in range(6)]
    assert max(point["b"] for point in given[2::3]) > 0.5


def test_auto_is_fitted_to_a_bounded_number_of_observations_with_the_best_among_them(state, monkeypatch):
    space, sizes = build_space({"lr": [1e-4, 1e-3, 1e-2]}), []
    monkeypatch.setattr(modelled, "MOST_SEEN", 60)
    monkeypatch.setattr(modelled, "Model", lambda seen: sizes.append(seen) or Model(seen))
    seen = [
        Observation(settings={"lr": lr}, values={e: e / EPOCHS - abs(math.log10(lr) + 2.2) for e in (1, 2, EPOCHS)})
        for lr in np.logspace(-4, -2, 90).tolist()
    ]
    assert 4e-3 < choice(auto(state, space=space, observations=seen).suggest("a"))["lr"] <= 1e-2
    assert len(sizes[0].values) == 60 and sizes[0].values.max() > 0.99
    assert sizes[0].values[sizes[0].u == 1].min() < -0.7, "bad regions stay known as bad"
