import copy
import json
import random

import pytest
from sweep_fakes import epoch_result, grow, propose

from llmemf.errors import InputError
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import LOSSES, SweepState

EPOCHS = 4


def snapshot(state):
    """All that follows from the event log; a driver that starts takes what runs for waiting."""
    records = {number: copy.deepcopy(vars(record)) for number, record in state.records.items()}
    for values in records.values():
        values["repeated_by"] = [again.number for again in values["repeated_by"]]
        values["outcome"] = "pending" if values["outcome"] == "running" else values["outcome"]
    return records, list(state.tests), round(state.seconds, 6)


def random_sweep(folder, seed, steps=60):
    """A made-up sweep with everything that can happen; yields its state after each written event."""
    rng = random.Random(seed)
    state = SweepState(folder)
    states = []
    state.saved = lambda event: states.append(snapshot(state))
    state.open(host="here", trials=9)
    for _ in range(steps):
        waiting = [r for r in state.records.values() if r.outcome == "pending"]
        running = [r for r in state.records.values() if r.outcome == "running"]
        action = rng.choice(["propose", "start", "start", "epoch", "epoch", "epoch", "lose", "fail", "again", "other"])
        if action == "propose" and len(state.records) < 9:
            propose(state, epochs=EPOCHS)
        elif action == "start" and waiting:
            state.start(rng.choice(waiting))
        elif action == "epoch" and running:
            record = rng.choice(running)
            epoch = rng.choice([record.epoch + 1, record.epoch + 1, max(1, record.epoch)])
            if epoch > record.epoch:
                record.seconds = round(record.seconds + rng.random(), 3)
            result = epoch_result(epoch, rng.random(), best_epoch=rng.choice([epoch, max(1, epoch - 1)]))
            state.add(record, {**result, "stopped_early": rng.random() < 0.1}, stopped=rng.random() < 0.1)
        elif action == "lose" and running:
            state.lose(rng.choice(running), rng.choice(["lost", "memory"]), "ActorDiedError: gone")
        elif action == "fail" and running:
            state.fail(rng.choice(running), "error", "NonFiniteLoss: nan")
        elif action == "again":
            state.unfinished()
        elif action == "other":
            done = [r for r in state.searched if r.outcome == "completed"]
            if done:
                state.tested(done[0], {"test/movie/mrr": 0.5})
                state.repeat(done[0], 1001 + len(done[0].repeated_by))
            state.stop("interrupted")
            state.open(host="there", trials=9)
    return state, states


@pytest.mark.parametrize("seed", range(8))
def test_any_beginning_of_a_journal_gives_the_state_that_the_driver_had_then(tmp_path, seed):
    live = tmp_path / "live"
    live.mkdir()
    _, states = random_sweep(live, seed)
    lines = (live / "journal.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == len(states) > 20
    for count, expected in enumerate(states, start=1):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "journal.jsonl").write_text("".join(lines[:count]) + lines[count - 1][:9])
        again = SweepState(folder)
        assert snapshot(again)[1:] == expected[1:]
        assert forgiven(snapshot(again)[0]) == forgiven(expected[0]), lines[count - 1]


def forgiven(records):
    """What counts: `unfinished` forgives failures in memory, and the event log says so when the trial starts again."""
    for values in records.values():
        if values["outcome"] == "interrupted":
            values.update(outcome="pending", error="", kind="", losses=0)
    return records


def test_the_random_sweeps_cover_every_event(tmp_path):
    seen = set()
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        state, _ = random_sweep(folder, seed)
        seen |= {event["event"] for event in state.event_log.read()}
    assert seen == {"opened", "proposed", "started", "epoch", "lost", "failed", "tested", "stopped"}


def test_a_trial_from_its_proposal_to_its_end(tmp_path):
    state = SweepState(tmp_path)
    assert state.is_new
    state.open(host="here")
    record = state.propose({"lr": 1e-3, "heads": 2, "modalities": ("id",)}, ("lr",), 3, {"lr": 1e-3})
    assert (record.number, record.name, record.outcome, record.epochs) == (1, "t01", "pending", 3)
    assert record.varied == {"lr": 1e-3} and record.config == {"lr": 1e-3, "heads": 2, "modalities": ["id"]}
    state.start(record)
    assert record.outcome == "running"
    record.seconds = 1.23456
    event = state.add(record, epoch_result(1, 0.5), stopped=False)
    assert event["end"] == "" and event["seconds"] == 1.235 == record.seconds
    state.add(record, epoch_result(2, 0.4, best_epoch=1), stopped=False)
    assert record.metrics == {"val/movie/mrr": 0.5} and record.latest == {"val/movie/mrr": 0.4}
    assert record.values == [0.5, 0.4] and not record.ended
    assert state.add(record, epoch_result(3, 0.6), stopped=False)["end"] == "completed"
    assert record.ended and record.outcome == "completed" and record.created <= record.updated
    assert [event["result"]["epoch"] for event in state.epochs()] == [1, 2, 3]
    assert not SweepState(tmp_path).is_new


@pytest.mark.parametrize(
    ("epoch", "early", "stopped", "outcome"),
    [(2, False, False, "running"), (2, False, True, "pruned"), (2, True, True, "completed"), (4, False, True, "completed")],
)  # fmt: skip
def test_how_a_trial_ends(tmp_path, epoch, early, stopped, outcome):
    state = SweepState(tmp_path)
    record = propose(state, epochs=4)
    grow(state, record, epoch - 1)
    state.add(record, epoch_result(epoch, 0.5, stopped_early=early), stopped=stopped)
    assert record.outcome == outcome
    again = SweepState(tmp_path).records[1]
    assert again.outcome == ("pending" if outcome == "running" else outcome)


def test_repeated_epochs_are_not_stored_again(tmp_path):
    state = SweepState(tmp_path)
    record = propose(state, epochs=9)
    given = [state.add(record, epoch_result(epoch, epoch / 10), stopped=False) for epoch in (1, 2, 3, 2, 3, 4)]
    assert [event["result"]["epoch"] if event else None for event in given] == [1, 2, 3, None, None, 4]
    assert record.values == [0.1, 0.2, 0.3, 0.4]
    assert [event["result"]["epoch"] for event in SweepState(tmp_path).epochs()] == [1, 2, 3, 4]


@pytest.mark.parametrize(("kind", "most"), LOSSES.items())
def test_a_trial_may_be_lost_so_often_without_a_new_epoch(tmp_path, kind, most):
    state = SweepState(tmp_path)
    record = propose(state, epochs=9)
    grow(state, record, 1)
    for epoch in (2, 3):
        assert [state.lose(record, kind, f"gone {n}") for n in range(most - 1)] == [True] * (most - 1)
        assert (record.outcome, record.losses) == ("pending", most - 1)
        state.start(record)
        state.add(record, epoch_result(epoch, 0.1), stopped=False)
        assert record.losses == 0, "a new epoch counts as progress"
    for n in range(most - 1):
        state.lose(record, kind, f"gone {n}")
    state.start(record)
    state.add(record, epoch_result(3, 0.1), stopped=False)
    assert record.losses == most - 1, "a repeated epoch does not"
    assert state.lose(record, kind, "ActorDiedError: gone") is False
    for known in (record, SweepState(tmp_path).records[1]):
        assert (known.outcome, known.kind, known.ended) == ("interrupted", kind, False)
        assert known.error == f"ActorDiedError: gone ({most} times without a new epoch)"


def test_losses_of_an_earlier_driver_count(tmp_path):
    state = SweepState(tmp_path)
    state.lose(propose(state), "lost", "gone")
    again = SweepState(tmp_path)
    assert again.records[1].losses == 1
    assert [again.lose(again.records[1], "lost", f"gone {n}") for n in range(LOSSES["lost"] - 1)][-1] is False


def of_every_kind(folder):
    """One failed trial, one set aside for each kind of the machine's faults, one completed, one not started."""
    state = SweepState(folder)
    for kind in ("error", "lost", "memory", "disk", "device", "storage"):
        state.fail(propose(state), kind, f"{kind}!")
    state.add(propose(state, epochs=1), epoch_result(1, 0.1), stopped=False)
    propose(state)
    return state


def test_only_failures_of_its_own_end_a_trial(tmp_path):
    state = of_every_kind(tmp_path)
    outcomes = [record.outcome for record in state.records.values()]
    assert outcomes == ["failed", *["interrupted"] * 5, "completed", "pending"]
    resumed = SweepState(tmp_path)
    assert [record.number for record in resumed.unfinished()] == [2, 3, 4, 5, 6, 8]
    first, second, *_ = resumed.records.values()
    assert (first.outcome, first.kind, first.error) == ("failed", "error", "error!")
    assert (second.outcome, second.kind, second.error, second.losses) == ("pending", "", "", 0)


def test_failed_trials_are_taken_back_and_the_event_log_says_so(tmp_path):
    of_every_kind(tmp_path)
    state = SweepState(tmp_path)
    state.take_back_failed()
    assert state.records[1].outcome == "pending" and not state.failed()
    assert SweepState(tmp_path).records[1].outcome == "failed", "nothing is written yet"
    state.retry()
    again = SweepState(tmp_path)
    assert (again.records[1].outcome, again.records[1].error) == ("pending", "") and 1 in [
        record.number for record in again.unfinished()
    ]
    lines = (tmp_path / "journal.jsonl").read_text()
    state.retry()
    assert (tmp_path / "journal.jsonl").read_text() == lines, "once"


def test_a_failure_that_was_overcome_is_forgotten_for_good(tmp_path):
    """A second resumed driver must not count the losses before the first one, nor show their error."""
    first = SweepState(tmp_path)
    record = propose(first, epochs=2)
    for _ in range(LOSSES["lost"]):
        first.start(record)
        first.lose(record, "lost", "ActorDiedError: gone")
    assert record.outcome == "interrupted"

    second = SweepState(tmp_path)
    (record,) = second.unfinished()
    second.start(record)
    assert second.lose(record, "lost", "gone") is True

    third = SweepState(tmp_path)
    (record,) = third.unfinished()
    assert (record.losses, record.error, record.kind) == (1, "", "")
    grow(third, record, 2)
    done = SweepState(tmp_path).records[1]
    assert (done.outcome, done.error, done.kind, done.losses) == ("completed", "", "", 0)


def test_an_extension_names_what_earlier_trials_shared(tmp_path):
    state = SweepState(tmp_path)
    record = state.propose({"lr": 1e-3}, ("lr",), 4, {})
    state.extend(9, {"heads": 1, "modalities": ["id"]})
    new = state.propose({"lr": 1e-4, "heads": 2, "modalities": ["id"]}, ("lr", "heads"), 4, {})
    for known in (state, SweepState(tmp_path)):
        record = known.records[1]
        assert record.varied == record.config == {"lr": 1e-3, "heads": 1, "modalities": ["id"]}
        assert known.records[2].varied == new.varied == {"lr": 1e-4, "heads": 2}


def test_before_an_extension_is_stored_its_settings_are_known(tmp_path):
    state = SweepState(tmp_path)
    state.propose({"lr": 1e-3}, ("lr",), 4, {})
    state.fill({"heads": 1})
    assert state.records[1].config == {"heads": 1, "lr": 1e-3}
    assert SweepState(tmp_path).records[1].config == {"lr": 1e-3}, "nothing was written"
    state.extend(9, {"heads": 1})
    assert state.records[1].config == SweepState(tmp_path).records[1].config == {"heads": 1, "lr": 1e-3}


def clocked(folder, events):
    """An event log whose events happened at given seconds."""
    lines = [json.dumps({"event": name, "time": int(1000 * at), **more}) for name, at, more in events]
    (folder / "journal.jsonl").write_text("".join(line + "\n" for line in lines))
    return SweepState(folder)


def test_running_time_leaves_interruptions_out(tmp_path):
    proposed = {"trial": 1, "settings": {}, "choice": {}, "epochs": 9, "params": {}}
    epoch = {"trial": 1, "result": epoch_result(1, 0.1), "end": "", "seconds": 1.0}
    events = [
        ("opened", 100, {}),
        ("proposed", 102, proposed),
        ("epoch", 112, epoch),  # killed here
        ("opened", 5000, {}),
        ("stopped", 5003, {"reason": "interrupted"}),
        ("extended", 90_000, {"trials": 3, "before": {}}),
        ("opened", 90_002, {}),
        ("started", 90_002.5, {"trial": 1}),
    ]
    assert clocked(tmp_path, events).seconds == pytest.approx(12 + 3 + 0.5)


def test_a_clock_that_was_set_back_takes_nothing_away(tmp_path):
    assert clocked(tmp_path, [("opened", 100, {}), ("stopped", 40, {"reason": "x"})]).seconds == 0


def test_looks_at_the_test_split_are_counted(tmp_path):
    state = SweepState(tmp_path)
    record = propose(state)
    state.tested(record, {"test/movie/mrr": 0.25})
    assert SweepState(tmp_path).tests == state.tests == [{"trial": 1, "metrics": {"test/movie/mrr": 0.25}}]


def test_nothing_counts_that_could_not_be_written(tmp_path, monkeypatch):
    state = SweepState(tmp_path)
    record = propose(state)
    before = snapshot(state)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("llmemf.io.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            state.add(record, epoch_result(1, 0.1), stopped=False)
        with pytest.raises(OSError, match="No space left"):
            propose(state)
    assert snapshot(state) == before == snapshot(SweepState(tmp_path))


def change(line, **values):
    return json.dumps({**json.loads(line), **values}) + "\n"


def result_with(line, **values):
    return change(line, result={**json.loads(line)["result"], **values})


DAMAGES = {
    "never proposed": (lambda lines: lines[1:], 1, "t01"),
    "epochs swapped": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 4, "epoch 1"),
    "an epoch twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "epoch 1"),
    "a test twice": (lambda lines: [*lines, lines[-1]], 8, "once more"),
    "an epoch again later": (lambda lines: [*lines[:4], lines[2], *lines[4:]], 5, "epoch 1"),
    "proposed twice": (lambda lines: [*lines[:2], lines[0], *lines[2:]], 3, "t01"),
    "proposed out of order": (lambda lines: [*lines[5:6], *lines], 1, "t02"),
    "after its end": (lambda lines: [*lines, lines[1]], 8, "completed"),
    "trial as text": (lambda lines: [lines[0], change(lines[1], trial="x"), *lines[2:]], 2, "trial = 'x'"),
    "time as text": (lambda lines: [lines[0], change(lines[1], time="now"), *lines[2:]], 2, "time = 'now'"),
    "no result": (lambda lines: [*lines[:2], change(lines[2], result=None), *lines[3:]], 3, "result = None"),
    "no number": (lambda lines: [*lines[:2], result_with(lines[2], objective="x"), *lines[3:]], 3, "objective = 'x'"),
    "text as metric": (lambda lines: [*lines[:2], result_with(lines[2], **{"val/mrr": "x"}), *lines[3:]], 3, "val/mrr"),
    "epoch 0": (lambda lines: [*lines[:2], result_with(lines[2], epoch=0), *lines[3:]], 3, "epoch = 0"),
    "another end": (lambda lines: [*lines[:2], change(lines[2], end="done"), *lines[3:]], 3, "end = 'done'"),
    "unknown event": (lambda lines: [lines[0], change(lines[1], event="startet"), *lines[2:]], 2, "'started'"),
    "event as number": (lambda lines: [lines[0], change(lines[1], event=7), *lines[2:]], 2, "event = 7"),
    "repeats nothing": (lambda lines: [*lines[:5], change(lines[5], repeats=9), *lines[6:]], 6, "t09"),
    "repeats itself": (lambda lines: [*lines[:5], change(lines[5], repeats=2), *lines[6:]], 6, "t02"),
    "settings as text": (lambda lines: [change(lines[0], choice="x"), *lines[1:]], 1, "choice = 'x'"),
    "many brackets": (lambda lines: [lines[0], "[" * 100_000 + "\n", *lines[1:]], 2, "[[["),
    "empty line": (lambda lines: [lines[0], "\n", *lines[1:]], 2, "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_have_happened_is_named_by_its_line(tmp_path, damage):
    state = SweepState(tmp_path)
    grow(state, propose(state, epochs=3), 3)
    propose(state)
    state.tested(state.records[1], {"test/movie/mrr": 0.25})
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 7
    change_lines, line, named = DAMAGES[damage]
    path.write_text("".join(change_lines(lines)))
    before = path.read_bytes()
    with pytest.raises(InputError) as refused:
        SweepState(tmp_path)
    message = str(refused.value)
    assert f"journal.jsonl, line {line} is damaged" in message and named in message and "backup" in message
    assert path.read_bytes() == before


class Stored:
    """A record of a sweep whose log a test damages."""

    def __init__(self, folder, status):
        self.record = SweepRecord(
            name="s1", requested="sample", scenario="sample", data_root="data", storage=str(folder), tracking_uri="x"
        )
        self.record.status = status
        self.record.folder.mkdir(parents=True)
        self.record.save()
        state = SweepState(self.record.folder)
        state.open(host="here")
        grow(state, propose(state, epochs=2), 2)
        state.stop("completed")
        self.log = self.record.folder / "journal.jsonl"


@pytest.mark.parametrize("status", ["running", "interrupted", "completed", "incomplete", "failed"])
@pytest.mark.parametrize(("is_there", "what"), [(True, "is empty"), (False, "is missing")])
def test_a_log_that_was_emptied_or_removed_is_no_new_sweep(tmp_path, status, is_there, what):
    stored = Stored(tmp_path, status)
    assert len(SweepState.load(stored.record).records) == 1
    stored.log.write_text("") if is_there else stored.log.unlink()
    with pytest.raises(InputError, match=rf"journal\.jsonl {what}.*{status}.*backup"):
        SweepState.load(stored.record)


@pytest.mark.parametrize(
    ("status", "keep", "refused"), [("completed", 4, True), ("completed", 1, True), ("running", 4, False)]
)
def test_a_log_without_its_end_belongs_to_no_completed_sweep(tmp_path, status, keep, refused):
    stored = Stored(tmp_path, status)
    stored.log.write_text("".join(stored.log.read_text().splitlines(keepends=True)[:keep]))
    if not refused:
        assert SweepState.load(stored.record).records[1].epoch == 1
        return
    with pytest.raises(InputError, match="lacks its end.*completed"):
        SweepState.load(stored.record)


def test_events_without_a_record_belong_to_no_new_sweep(tmp_path):
    stored = Stored(tmp_path, "completed")
    (stored.record.folder / "sweep.yaml").unlink()
    stored.record.status = "planned"
    with pytest.raises(InputError, match=r"sweep\.yaml is missing.*--name"):
        SweepState.load(stored.record)
