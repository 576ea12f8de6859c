import pickle
from types import SimpleNamespace

import pytest
from sweep_fakes import epoch_result

from sweeps.core.callback import SweepCallback, trial_dirname
from sweeps.core.interrupt import StopRequest
from sweeps.state.sweep_state import LOSSES, SweepState

EPOCHS = 8


class Recorder:
    """A tracker, display, search or retention that only notes what it was told."""

    def __init__(self):
        self.calls = []
        self.live = {}
        self.writer = SimpleNamespace(trouble="")

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args))

    def told(self, name):
        return [args for called, args in self.calls if called == name]


def make(tmp_path, trials=3):
    state = SweepState(tmp_path)
    for number in range(len(state.records) + 1, trials + 1):
        state.propose({"lr": number / 1000}, ("lr",), EPOCHS, {})
    parts = {name: Recorder() for name in ("search", "tracking", "display", "retention")}
    return SweepCallback(SimpleNamespace(folder=tmp_path, state=state, **parts), StopRequest())


def trial(number=1, trace=None, exception=None, folder=None, **more):
    """A trial as Tune knows it, with the files of its error where it has one."""
    found = SimpleNamespace(
        trial_id=f"id{number}", config={"trial": number}, error_file=None, pickled_error_file=None, **more
    )
    if trace is not None:
        found.error_file = str(folder / f"error{number}.txt")
        (folder / f"error{number}.txt").write_text(trace)
    if exception is not None:
        found.pickled_error_file = str(folder / f"error{number}.pkl")
        (folder / f"error{number}.pkl").write_bytes(pickle.dumps(exception))
    return found


def result(epoch, value, **more):
    return {**epoch_result(epoch, value), "val/mrr": value, "config/lr": 1.0, "test/mrr": 9.0, "pid": 1, **more}


def hook(callback, name, subject, **more):
    getattr(callback, name)(iteration=1, trials=[subject], trial=subject, **more)


def lived(callback, number, last, **more):
    """A trial that starts, reports and is done."""
    subject = trial(number)
    hook(callback, "on_trial_start", subject)
    for epoch in range(1, last + 1):
        hook(callback, "on_trial_result", subject, result=result(epoch, epoch / 10, **(more if epoch == last else {})))
    hook(callback, "on_trial_complete", subject)
    return callback.state.records[number]


def test_outcomes(tmp_path):
    callback = make(tmp_path)
    lived(callback, 1, 8, done=True)
    lived(callback, 2, 3, done=True)
    lived(callback, 3, 4, stopped_early=True)
    records = callback.state.records
    assert [record.outcome for record in records.values()] == ["completed", "pruned", "completed"]
    assert records[1].metrics == {"val/mrr": 0.8, "val/movie/mrr": 0.8} and records[1].objective == 0.8
    again = SweepState(tmp_path).records
    assert [record.outcome for record in again.values()] == ["completed", "pruned", "completed"]


def test_everyone_hears_of_start_epochs_and_end_once(tmp_path):
    callback = make(tmp_path)
    record = lived(callback, 1, 8)
    for part, names in [
        (callback.search, ["tell"]),
        (callback.retention, ["end"]),
        (callback.tracking, ["start_trial", *["log_epoch"] * 8, "end_trial"]),
    ]:
        assert [name for name, _ in part.calls] == names
        assert all(args[0] is record for _, args in part.calls)
    assert (record,) in callback.display.told("update")


def test_the_journal_comes_first(tmp_path):
    """Whoever acts on an epoch finds it in the event log already."""
    callback = make(tmp_path)
    seen = []
    callback.tracking.log_epoch = lambda *args: seen.append(SweepState(tmp_path).records[1].epoch)
    callback.retention.end = lambda record: seen.append(SweepState(tmp_path).records[1].outcome)
    lived(callback, 1, 8)
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, "completed"]


def test_a_repeated_epoch_reaches_nobody(tmp_path):
    callback = make(tmp_path)
    for epoch in (1, 2, 2, 1, 3):
        hook(callback, "on_trial_result", trial(), result=result(epoch, 0.1))
    assert [args[1]["epoch"] for args in callback.tracking.told("log_epoch")] == [1, 2, 3]


def test_a_trial_that_ends_too_soon_has_failed(tmp_path):
    callback = make(tmp_path)
    record = lived(callback, 1, 3)
    assert (record.outcome, record.error) == ("failed", "the trial ended after epoch 3 of 8")
    assert callback.search.told("tell") == [(record,)]


OWN = "Failure # 1 (occurred at x)\nTraceback (most recent call last):\n  File x\nllmemf.training.NonFiniteLoss: nan\n"


def test_a_failure_leaves_one_line_and_a_trace(tmp_path):
    callback = make(tmp_path)
    hook(callback, "on_trial_error", trial(trace=OWN, folder=tmp_path))
    record = callback.state.records[1]
    assert (record.outcome, record.kind, record.error) == ("failed", "error", "NonFiniteLoss: nan")
    assert "Traceback" in (tmp_path / "errors" / "t01.txt").read_text()
    assert not callback.stop.reason and not callback.search.told("again")
    assert callback.tracking.told("end_trial") == callback.retention.told("end") == callback.search.told("tell")


def died():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def test_a_lost_trial_runs_again_and_is_set_aside_when_it_is_lost_too_often(tmp_path):
    """It never counts as a failure: neither search nor retention hear of an end."""
    callback = make(tmp_path)
    hook(callback, "on_trial_start", trial())
    hook(callback, "on_trial_result", trial(), result=result(1, 0.1))
    subject = trial(trace="Failure # 1\nActorDiedError: gone\n", exception=died(), folder=tmp_path)
    hook(callback, "on_trial_error", subject)
    record = callback.state.records[1]
    assert record.outcome == "pending" and callback.search.told("again") == [(record, "lost")]
    (said,) = callback.display.told("tell")
    assert said == ("t01 was lost after epoch 1 and runs again (ActorDiedError: gone)",)
    assert not callback.tracking.told("end_trial") and not callback.search.told("tell")
    for _ in range(LOSSES["lost"] - 1):
        hook(callback, "on_trial_error", subject)
    assert (record.outcome, record.kind, record.ended) == ("interrupted", "lost", False)
    assert not callback.search.told("tell") and not callback.retention.calls
    assert callback.tracking.told("end_trial") == [(record,)]
    assert (tmp_path / "errors" / "t01.txt").read_text().count("Failure # 1") == LOSSES["lost"], "every trace is kept"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", "the disk is full"),
        ("llmemf.errors.StorageError: x cannot be written: Disk quota exceeded", "the disk quota is used up"),
        ("llmemf.errors.StorageError: x cannot be written: Read-only file system", "the disk is read-only"),
        ("llmemf.errors.StorageError: x cannot be written: Permission denied", "the storage cannot be written"),
        ("RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos", "the storage cannot be written"),
    ],
)
def test_a_storage_that_cannot_be_written_stops_the_sweep_and_ends_no_trial(tmp_path, error, reason):
    callback = make(tmp_path)
    hook(callback, "on_trial_error", trial(trace=f"Traceback\n{error}\n", folder=tmp_path))
    assert callback.stop.reason == reason
    assert not callback.state.records[1].ended and not callback.search.told("tell")


def test_a_broken_terminal_does_not_end_the_sweep(tmp_path):
    callback = make(tmp_path)

    def broken(*args):
        raise BrokenPipeError

    callback.display = SimpleNamespace(update=broken)
    hook(callback, "on_trial_start", trial())


def test_a_trace_that_cannot_be_written_does_not_end_the_sweep(tmp_path):
    callback = make(tmp_path)
    callback.errors.write_text("a file where a folder should be")
    hook(callback, "on_trial_error", trial(trace=OWN, folder=tmp_path))
    assert callback.state.records[1].outcome == "failed"


@pytest.mark.parametrize("reason", ["the disk is full", "the time budget is spent", "interrupted"])
def test_a_request_to_stop_is_passed_on_once(tmp_path, monkeypatch, reason):
    sent = []
    monkeypatch.setattr("os.kill", lambda pid, number: sent.append(number))
    callback = make(tmp_path)
    callback.on_step_begin(1, [])
    assert not callback.display.told("say")
    callback.stop.request(reason)
    callback.stop.request("the driver was asked again")
    callback.on_step_begin(2, [])
    callback.on_step_begin(3, [])
    assert len(sent) == 1 and callback.stop.reason == reason
    ((said,),) = callback.display.told("say")
    assert said.startswith(f"{reason}: ") and ("second" in said) == (reason == "interrupted")


def test_time_counts_while_a_trial_holds_its_place(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("sweeps.core.callback.time.monotonic", lambda: clock.now)
    callback = make(tmp_path)
    record = callback.state.records[1]
    callback.search.live = {"id1": record}
    callback.on_step_end(1, [])
    clock.now = 103.0
    callback.on_step_end(2, [])
    clock.now = 105.0
    hook(callback, "on_trial_result", trial(), result=result(1, 0.1))
    assert record.seconds == 5.0 == SweepState(tmp_path).records[1].seconds
    hook(callback, "on_trial_error", trial(trace="", exception=died(), folder=tmp_path))
    callback.search.live = {}
    clock.now = 500.0
    callback.search.live = {"again": record}
    callback.on_step_end(3, [])
    clock.now = 501.0
    callback.on_step_end(4, [])
    assert record.seconds == 6.0, "it waited from 105 to 500"


def test_trouble_with_the_server_is_shown(tmp_path):
    callback = make(tmp_path)
    callback.tracking.writer.trouble = "tracking does not answer (x); 3 writes wait"
    callback.on_step_end(1, [])
    assert callback.display.trouble == "tracking does not answer (x); 3 writes wait"


def test_folder_names_are_short():
    assert trial_dirname(trial(3)) == "t03-id3"
