import itertools
import random

import pytest
from sweep_fakes import epoch_result, propose

from sweeps.state.checkpoint_retention import CheckpointRetention, keep_best
from sweeps.state.checkpoints import save, trial_folder
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked


class Trainer:
    def save(self, folder):
        for name in ("state.pt", "best.safetensors", "config.yaml"):
            (folder / name).write_text(name)


def trained(state, folder, value, *, epochs=2, stopped=False):
    """A trial with two checkpoints that has just ended, or goes on where `epochs` is above 2."""
    record = propose(state, epochs=epochs)
    for epoch in (1, 2):
        save(Trainer(), trial_folder(folder, record.number), {"epoch": epoch})
        state.add(record, epoch_result(epoch, value), stopped=stopped and epoch == 2)
    return record


def on_disk(folder):
    """Trial -> its checkpoints and whether the newest still has the state of its optimiser."""
    found = {}
    for path in sorted((folder / "trials").iterdir()):
        found[path.name] = (sorted(p.name for p in path.iterdir()), any(path.glob("*/state.pt")))
    return found


WEIGHTS_ONLY = (["epoch-0002"], False)
WHOLE = (["epoch-0001", "epoch-0002"], True)


def test_an_ended_trial_keeps_its_weights_and_a_running_one_everything(tmp_path):
    state = SweepState(tmp_path)
    retention = CheckpointRetention(tmp_path, state, keep=5)
    retention.end(trained(state, tmp_path, 0.5))
    trained(state, tmp_path, 0.9, epochs=9)
    assert on_disk(tmp_path) == {"t01": WEIGHTS_ONLY, "t02": WHOLE}
    assert retention.weights() == {"t01": tmp_path / "trials" / "t01" / "epoch-0002"}


@pytest.mark.parametrize("order", list(itertools.permutations([0.1, 0.2, 0.3, 0.4])))
def test_the_best_are_kept_in_whatever_order_they_end(tmp_path, order):
    state = SweepState(tmp_path)
    retention = CheckpointRetention(tmp_path, state, keep=2)
    for count, value in enumerate(order, start=1):
        retention.end(trained(state, tmp_path, value))
        assert len(on_disk(tmp_path)) == min(count, 2), "disk use is bounded all along"
    expected = [f"t{order.index(value) + 1:02d}" for value in (0.4, 0.3)]
    assert list(retention.weights()) == expected
    assert on_disk(tmp_path) == dict.fromkeys(sorted(expected), WEIGHTS_ONLY)


def test_failed_trials_are_never_kept(tmp_path):
    state = SweepState(tmp_path)
    retention = CheckpointRetention(tmp_path, state, keep=5)
    diverged = trained(state, tmp_path, 0.99, epochs=9)
    state.fail(diverged, "error", "ValueError: the objective of epoch 3 is nan")
    retention.end(diverged)
    never_trained = propose(state)
    state.fail(never_trained, "error", "InputError: x")
    retention.end(never_trained)
    assert on_disk(tmp_path) == {} and retention.weights() == {}
    retention.end(trained(state, tmp_path, 0.1))
    assert list(retention.weights()) == ["t03"]


@pytest.mark.parametrize("kind", ["lost", "memory"])
def test_one_that_may_go_on_keeps_all(tmp_path, kind):
    state = SweepState(tmp_path)
    retention = CheckpointRetention(tmp_path, state, keep=1)
    unlucky = trained(state, tmp_path, 0.99, epochs=9)
    state.fail(unlucky, kind, "gone")
    retention.end(unlucky)
    retention.end(trained(state, tmp_path, 0.5))
    assert on_disk(tmp_path) == {"t01": WHOLE, "t02": WEIGHTS_ONLY}
    assert list(retention.weights()) == ["t02"]


def test_equal_trials_go_by_their_number(tmp_path):
    state = SweepState(tmp_path)
    retention = CheckpointRetention(tmp_path, state, keep=1)
    for _ in range(3):
        retention.end(trained(state, tmp_path, 0.5))
    assert list(on_disk(tmp_path)) == ["t01"]


def test_a_driver_that_was_killed_before_it_cleaned_up_is_made_good(tmp_path):
    rng = random.Random(1)
    state = SweepState(tmp_path)
    for number in range(8):
        trained(state, tmp_path, rng.random(), stopped=number % 3 == 0, epochs=2 + (number % 3 == 0))
    running = trained(state, tmp_path, 0.01, epochs=9)
    assert all(state == WHOLE for state in on_disk(tmp_path).values())
    for _ in range(2):
        again = CheckpointRetention(tmp_path, SweepState(tmp_path), keep=3)
        best = [record.name for record in ranked(state.records.values())][:3]
        assert list(again.weights()) == best
        assert on_disk(tmp_path) == {**dict.fromkeys(best, WEIGHTS_ONLY), running.name: WHOLE}


def test_fewer_are_kept_when_asked(tmp_path):
    state = SweepState(tmp_path)
    for value in (0.1, 0.3, 0.2):
        trained(state, tmp_path, value)
    assert list(CheckpointRetention(tmp_path, state, keep=3).weights()) == ["t02", "t03", "t01"]
    assert list(CheckpointRetention(tmp_path, state, keep=1).weights()) == ["t02"]
    assert list(on_disk(tmp_path)) == ["t02"]


def test_weights_that_somebody_removed_are_not_offered(tmp_path):
    state = SweepState(tmp_path)
    state.add(propose(state, epochs=1), epoch_result(1, 0.9), stopped=False)
    trained(state, tmp_path, 0.5)
    assert list(CheckpointRetention(tmp_path, state, keep=5).weights()) == ["t02"]


def test_the_best_checkpoint_is_kept_whole(tmp_path):
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "sweep"
    checkpoint.mkdir()
    folder.mkdir()
    for text in ("old", "new"):
        for name in ("best.safetensors", "config.yaml", "state.pt", "report.json"):
            (checkpoint / name).write_text(text)
        assert keep_best(checkpoint, folder) == folder / "best"
        assert {path.name: path.read_text() for path in (folder / "best").iterdir()} == {
            "best.safetensors": text, "config.yaml": text
        }  # fmt: skip
    assert [path.name for path in folder.iterdir()] == ["best"]


def test_repeats_keep_no_weights_and_candidates_keep_theirs(tmp_path):
    state = SweepState(tmp_path)
    retention = CheckpointRetention(tmp_path, state, keep=2)
    for value in (0.5, 0.4, 0.1):
        retention.end(trained(state, tmp_path, value))
    for number, value in ((1, 0.2), (2, 0.3)):
        record = state.repeat(state.records[number], 1001)
        save(Trainer(), trial_folder(tmp_path, record.number), {"epoch": 2})
        state.add(record, epoch_result(2, value), stopped=False)
        retention.end(record)
    assert on_disk(tmp_path) == dict.fromkeys(["t01", "t02"], WEIGHTS_ONLY)
    assert list(CheckpointRetention(tmp_path, SweepState(tmp_path), keep=2).weights()) == ["t01", "t02"]
    retention.end(trained(state, tmp_path, 0.9))
    assert "t06" in on_disk(tmp_path), "a trial of an extension may be repeated next"
