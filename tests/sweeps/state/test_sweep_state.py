import copy
import json
import random

import pytest
from sweep_fakes import epoch_result, grow, propose

from llmemf.errors import InputError
from sweeps.state.sweep_state import LOSSES, MEMORY_LOSSES, SweepState

EPOCHS = 4


def snapshot(state):
    """All that follows from the event log; a driver that starts takes what runs for waiting."""
    records = {number: copy.deepcopy(vars(record)) for number, record in state.records.items()}
    for values in records.values():
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
            done = [r for r in state.records.values() if r.outcome == "completed"]
            if done:
                state.tested(done[0], {"test/movie/mrr": 0.5})
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
        if values["outcome"] == "failed" and values["kind"] != "error":
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


def test_a_trial_may_be_lost_so_often_without_a_new_epoch(tmp_path):
    state = SweepState(tmp_path)
    record = propose(state, epochs=9)
    grow(state, record, 1)
    for epoch in (2, 3):
        assert [state.lose(record, "lost", "gone") for _ in range(LOSSES - 1)] == [True] * (LOSSES - 1)
        assert (record.outcome, record.losses) == ("pending", LOSSES - 1)
        state.start(record)
        state.add(record, epoch_result(epoch, 0.1), stopped=False)
        assert record.losses == 0, "a new epoch counts as progress"
    for _ in range(LOSSES - 1):
        state.lose(record, "lost", "gone")
    state.start(record)
    state.add(record, epoch_result(3, 0.1), stopped=False)
    assert record.losses == LOSSES - 1, "a repeated epoch does not"
    assert state.lose(record, "lost", "ActorDiedError: gone") is False
    assert (record.outcome, record.kind) == ("failed", "lost")
    assert record.error == f"ActorDiedError: gone ({LOSSES} times without a new epoch)"


def test_memory_that_runs_out_counts_sooner(tmp_path):
    assert MEMORY_LOSSES < LOSSES
    state = SweepState(tmp_path)
    record = propose(state)
    state.start(record)
    again = [state.lose(record, "memory", "full") for _ in range(MEMORY_LOSSES)]
    assert again == [True] * (MEMORY_LOSSES - 1) + [False]
    assert (record.outcome, record.kind) == ("failed", "memory")


def test_losses_of_an_earlier_driver_count(tmp_path):
    state = SweepState(tmp_path)
    state.lose(propose(state), "lost", "gone")
    again = SweepState(tmp_path)
    assert again.records[1].losses == 1
    assert [again.lose(again.records[1], "lost", "gone") for _ in range(LOSSES - 1)][-1] is False


def test_only_failures_of_its_own_are_final(tmp_path):
    state = SweepState(tmp_path)
    kinds = ("error", "lost", "memory", "disk")
    for kind in kinds:
        state.fail(propose(state), kind, f"{kind}!")
    state.add(propose(state, epochs=1), epoch_result(1, 0.1), stopped=False)
    propose(state)
    assert [record.outcome for record in state.records.values()] == ["failed"] * 4 + ["completed", "pending"]
    resumed = SweepState(tmp_path)
    assert [record.number for record in resumed.unfinished()] == [2, 3, 4, 6]
    first, second, *_ = resumed.records.values()
    assert (first.outcome, first.kind, first.error) == ("failed", "error", "error!")
    assert (second.outcome, second.kind, second.error, second.losses) == ("pending", "", "", 0)


def test_a_failure_that_was_overcome_is_forgotten_for_good(tmp_path):
    """A second resumed driver must not count the losses before the first one, nor show their error."""
    first = SweepState(tmp_path)
    record = propose(first, epochs=2)
    for _ in range(LOSSES):
        first.start(record)
        first.lose(record, "lost", "ActorDiedError: gone")
    assert record.outcome == "failed"

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


def test_events_of_a_trial_that_was_never_proposed_are_the_users_to_mend(tmp_path):
    state = SweepState(tmp_path)
    grow(state, propose(state), 2)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(InputError, match="journal.jsonl.*t01"):
        SweepState(tmp_path)
