import math
import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import ASHAScheduler
from sweep_fakes import epoch_result, propose

from sweeps.search.asha import KeepsWorkers, ResumableASHA
from sweeps.state.sweep_state import SweepState

CONTINUE, STOP = ASHAScheduler.CONTINUE, ASHAScheduler.STOP


def make(records, max_t=9, grace=1, factor=3):
    scheduler = ResumableASHA(records, max_t=max_t, grace_period=grace, reduction_factor=factor)
    scheduler.set_search_properties("objective", "max")
    return scheduler


def trial(number, tune_id=None):
    return SimpleNamespace(trial_id=tune_id or f"id{number}", config={"trial": number})


def rungs(scheduler, names=None):
    """Milestone -> trial number -> value; `names` leads from Tune's ids to numbers."""
    found = {}
    for milestone, recorded in scheduler.rungs:
        found[milestone] = {(names or {}).get(name, name): value for name, value in recorded.items()}
    return found


def report(scheduler, state, subject, epoch, value):
    """One report as Tune hands it on: the scheduler decides, then the state stores."""
    decision = scheduler.on_trial_result(None, subject, {"epoch": epoch, "objective": value})
    state.add(state.records[subject.config["trial"]], epoch_result(epoch, value), stopped=decision == STOP)
    return decision


@pytest.mark.parametrize(("max_t", "grace", "factor"), [(9, 1, 3), (20, 2, 2.5), (16, 1, 2), (6, 3, 3)])
def test_rungs_out_of_records_are_those_of_a_scheduler_that_lived_through_it(tmp_path, max_t, grace, factor):
    rng, state = random.Random(max_t), SweepState(tmp_path)
    lived = make([], max_t, grace, factor)
    for _ in range(12):
        record = propose(state, epochs=max_t)
        subject, bound = trial(record.number), rng.random()
        lived.on_trial_add(None, subject)
        for epoch in range(1, rng.choice([max_t, max_t, 1 + max_t // 2]) + 1):
            if report(lived, state, subject, epoch, bound * (1 - 0.5**epoch)) == STOP:
                break
    assert any(record.outcome == "pruned" for record in state.records.values())
    names = {f"id{number}": record.name for number, record in state.records.items()}
    made = make(SweepState(tmp_path).records.values(), max_t, grace, factor)
    # Ray ends a trial at its last epoch without writing it down: that rung decides nothing.
    deciding = [milestone for milestone, _ in made.rungs if milestone < max_t]
    assert {m: rungs(made)[m] for m in deciding} == {m: rungs(lived, names)[m] for m in deciding}
    assert sum(len(rungs(made)[milestone]) for milestone in deciding) >= 12

    late = trial(99)
    decisions = []
    for scheduler in (lived, made):
        scheduler.on_trial_add(None, late)
        decisions.append(report_only(scheduler, late, grace, 0.01))
    assert decisions[0] == decisions[1]


def report_only(scheduler, subject, epoch, value):
    return scheduler.on_trial_result(None, subject, {"epoch": math.ceil(epoch), "objective": value})


def three_at_rung_one(tmp_path):
    state = SweepState(tmp_path)
    for value in (0.5, 0.4, 0.3):
        state.add(propose(state, epochs=9), epoch_result(1, value), stopped=False)
    return state


def test_a_scheduler_that_forgot_would_let_a_bad_trial_pass(tmp_path):
    """Relies on `AsyncHyperBandScheduler._brackets` and `_Bracket._rungs`, private names of Ray."""
    state = three_at_rung_one(tmp_path)
    assert rungs(make(state.records.values())) == {9: {}, 3: {}, 1: {"t01": 0.5, "t02": 0.4, "t03": 0.3}}
    decisions = []
    for records in ([], state.records.values()):
        scheduler = make(records)
        scheduler.on_trial_add(None, trial(9))
        decisions.append(report_only(scheduler, trial(9), 1, 0.1))
    assert decisions == [CONTINUE, STOP]


def test_a_lost_trial_does_not_compete_with_itself(tmp_path):
    state = three_at_rung_one(tmp_path)
    scheduler = make(state.records.values())
    for tune_id in ("first", "second", "third"):
        scheduler.on_trial_add(None, trial(3, tune_id))
        # What a trial first says again is known: it neither counts twice nor is judged anew.
        assert report_only(scheduler, trial(3, tune_id), 1, 0.3) == CONTINUE
        assert rungs(scheduler)[1] == {"t01": 0.5, "t02": 0.4, tune_id: 0.3}
        scheduler.on_trial_error(None, trial(3, tune_id))


def test_a_trial_that_goes_on_is_judged_at_the_next_rung(tmp_path):
    state = SweepState(tmp_path)
    for value in (0.9, 0.8, 0.7):
        record = propose(state, epochs=9)
        for epoch in (1, 2, 3):
            state.add(record, epoch_result(epoch, value), stopped=False)
    record = propose(state, epochs=9)
    for epoch in (1, 2):
        state.add(record, epoch_result(epoch, 0.1), stopped=False)
    scheduler = make(SweepState(tmp_path).records.values())
    scheduler.on_trial_add(None, trial(4, "again"))
    assert report_only(scheduler, trial(4, "again"), 2, 0.1) == CONTINUE
    assert report_only(scheduler, trial(4, "again"), 3, 0.1) == STOP


def test_failed_trials_keep_their_place_as_they_do_in_ray(tmp_path):
    state = three_at_rung_one(tmp_path)
    state.fail(state.records[3], "error", "nan")
    assert len(rungs(make(state.records.values()))[1]) == 3


def test_a_repeat_of_a_trial_is_never_stopped_and_stands_on_no_rung(tmp_path):
    state = SweepState(tmp_path)
    first = propose(state, epochs=3)
    state.add(first, epoch_result(1, 0.9), stopped=False)
    repeated = state.repeat(first, 1001)
    for records in ([first], state.records.values()):
        scheduler = ResumableASHA(records, lambda number: number == repeated.number, max_t=3, grace_period=1)
        scheduler.set_search_properties("objective", "max")
        scheduler.on_trial_add(None, trial(2))
        assert report(scheduler, state, trial(2), 1, 0.1) == CONTINUE
        scheduler.on_trial_complete(None, trial(2), {"epoch": 1, "objective": 0.1})
        assert rungs(scheduler)[1] == {"t01": 0.9}
        scheduler.on_trial_remove(None, trial(2))


def test_as_many_idle_processes_are_kept_as_trials_are_awaited():
    changes, awaited = [], iter([0, 2, 2, 1, 0])
    trials = []
    tune = SimpleNamespace(
        _actor_cache=SimpleNamespace(increase_max=lambda key, by: changes.append((key, by))), get_trials=lambda: trials
    )
    controller = SimpleNamespace(_tune_controller=tune, get_trials=tune.get_trials)
    scheduler = KeepsWorkers()
    scheduler.awaited = lambda: next(awaited)
    assert scheduler.choose_trial_to_run(controller) is None and not changes, "before the first trial"
    trials.append(SimpleNamespace(placement_group_factory="one CPU", status="PENDING"))
    assert [scheduler.choose_trial_to_run(controller) for _ in range(5)] == trials * 5
    assert changes == [("one CPU", 2), ("one CPU", -1), ("one CPU", -1)]
