import pickle
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import ASHAScheduler

from sweeps.callback import SweepCallback, is_disk_full, last_error, restore_rungs, rung_state, trial_dirname
from sweeps.interrupt import StopRequest


class Recorder:
    """A tracker or display that only notes what it was told."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args)) or {}

    def elapsed(self):
        return 12.5


def make(tmp_path, scheduler=None):
    return SweepCallback(
        varied=("lr",), errors=tmp_path / "errors", tracking=Recorder(), display=Recorder(), stop=StopRequest(),
        scheduler=scheduler,
    )  # fmt: skip


def trial(number=1, **more):
    values = {
        "trial_id": f"id{number}",
        "experiment_tag": f"{number}_lr=0.001",
        "config": {"lr": 1e-3, "epochs": 8, "model": "llm_emf"},
        "checkpoint": None,
        "last_result": {},
        "error_file": None,
    }
    return SimpleNamespace(**{**values, **more})


def result(epoch, value, **more):
    base = {"epoch": epoch, "epochs": 8, "objective": value, "best_epoch": epoch, "val/mrr": value}
    return {**base, "val/movie/mrr": value, "config/lr": 1.0, **more}


def hook(callback, name, subject, **more):
    getattr(callback, name)(iteration=1, trials=[subject], trial=subject, **more)


def test_outcomes(tmp_path):
    callback = make(tmp_path)
    ends = {1: result(8, 0.8), 2: result(3, 0.3), 3: result(4, 0.4, stopped_early=True)}
    for number, last in ends.items():
        subject = trial(number, last_result=last)
        hook(callback, "on_trial_start", subject)
        hook(callback, "on_trial_result", subject, result=last)
        hook(callback, "on_trial_complete", subject)
    assert [record.outcome for record in callback.records.values()] == ["completed", "pruned", "completed"]
    first = callback.records["id1"]
    assert first.settings == {"lr": 1e-3} and first.name == "t01" and first.metrics["val/mrr"] == 0.8
    assert "config/lr" not in first.latest


def test_metrics_are_those_of_the_best_epoch(tmp_path):
    callback = make(tmp_path)
    subject = trial()
    hook(callback, "on_trial_result", subject, result=result(1, 0.5))
    hook(callback, "on_trial_result", subject, result=result(2, 0.5, best_epoch=1) | {"val/mrr": 0.2})
    record = callback.records["id1"]
    assert record.metrics["val/mrr"] == 0.5 and record.latest["val/mrr"] == 0.2 and record.epoch == 2


def test_a_failure_leaves_one_line_and_a_trace(tmp_path):
    callback = make(tmp_path)
    trace = tmp_path / "error.txt"
    trace.write_text(
        "Failure # 1\nTraceback (most recent call last):\n  File x\nllmemf.training.NonFiniteLoss: loss is nan\n"
    )
    hook(callback, "on_trial_error", trial(error_file=str(trace)))
    record = callback.records["id1"]
    assert (record.outcome, record.error) == ("failed", "NonFiniteLoss: loss is nan")
    assert "Traceback" in (tmp_path / "errors" / "t01.txt").read_text()
    assert not callback.stop.reason


def test_a_full_disk_ends_the_sweep(tmp_path):
    callback = make(tmp_path)
    trace = tmp_path / "error.txt"
    trace.write_text("Traceback\nOSError: [Errno 28] No space left on device: 'x'\n")
    hook(callback, "on_trial_error", trial(error_file=str(trace)))
    assert callback.stop.reason == "the disk is full"
    assert is_disk_full(trace.read_text()) and not is_disk_full("ValueError: 28")


def test_what_is_open_at_the_end_was_interrupted(tmp_path):
    callback = make(tmp_path)
    done, running, waiting = trial(1, last_result=result(8, 0.8)), trial(2), trial(3)
    hook(callback, "on_trial_result", done, result=result(8, 0.8))
    hook(callback, "on_trial_complete", done)
    hook(callback, "on_trial_start", running)
    callback.on_experiment_end(trials=[done, running, waiting])
    assert [record.outcome for record in callback.records.values()] == ["completed", "interrupted", "interrupted"]


def test_rungs_of_the_scheduler_come_back():
    """Relies on `AsyncHyperBandScheduler._brackets` and `_Bracket._rungs`, private names of Ray."""

    def scheduler():
        made = ASHAScheduler(time_attr="epoch", max_t=9, grace_period=1, reduction_factor=3)
        made.set_search_properties("objective", "max")
        return made

    before = scheduler()
    for number, value in enumerate([0.5, 0.4, 0.3]):
        subject = trial(number)
        before.on_trial_add(None, subject)
        before.on_trial_result(None, subject, {"epoch": 1, "objective": value})
    state = pickle.loads(pickle.dumps(rung_state(before)))
    assert state == [[(9, {}), (3, {}), (1, {"id0": 0.5, "id1": 0.4, "id2": 0.3})]]

    late = trial(9)
    decisions = []
    for forgetful in (True, False):
        after = scheduler()
        if not forgetful:
            restore_rungs(after, state)
        after.on_trial_add(None, late)
        decisions.append(after.on_trial_result(None, late, {"epoch": 1, "objective": 0.1}))
    assert decisions == ["CONTINUE", "STOP"], "without its rungs the scheduler lets a bad trial pass"


def test_state_brings_records_back(tmp_path):
    before = make(tmp_path)
    hook(before, "on_trial_start", trial(1))
    hook(before, "on_trial_result", trial(1), result=result(2, 0.2))
    after = make(tmp_path)
    after.set_state(pickle.loads(pickle.dumps(before.get_state())))
    record = after.records["id1"]
    assert (record.outcome, record.epoch, record.objective) == ("pending", 2, 0.2)
    assert ("already", (12.5,)) in after.display.calls


def test_a_broken_terminal_does_not_end_the_sweep(tmp_path):
    callback = make(tmp_path)

    def broken(*args):
        raise BrokenPipeError

    callback.display = SimpleNamespace(update=broken)
    hook(callback, "on_trial_start", trial())


def test_a_request_to_stop_is_passed_on_once(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr("os.kill", lambda pid, number: sent.append(number))
    callback = make(tmp_path)
    callback.on_step_begin(1, [])
    callback.stop.request("the disk is full")
    callback.stop.request("interrupted")
    callback.on_step_begin(2, [])
    callback.on_step_begin(3, [])
    assert len(sent) == 1 and callback.stop.reason == "the disk is full"


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("Traceback\n  File\nValueError: bad: value\n", "ValueError: bad: value"),
        ("a\nllmemf.errors.InputError: text is missing\nsome more\n", "InputError: text is missing"),
        ("Failure # 1\nThe actor died unexpectedly\n", "The actor died unexpectedly"),
        ("", "unknown error"),
    ],
)
def test_one_line_of_a_trace(trace, expected):
    assert last_error(trace) == expected


def test_folder_names_are_short():
    assert trial_dirname(trial(3)) == "t03-id3"
