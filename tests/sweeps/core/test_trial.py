import itertools
import math
from types import SimpleNamespace

import pytest
from sweep_fakes import FakeTrainer, objective, tiny_data

from sweeps.cluster import check as cluster
from sweeps.core import trial
from sweeps.core.trial import NodeUnfit, run_epochs
from sweeps.state import checkpoints
from sweeps.state.checkpoints import stored, trial_folder

CONFIG = {"trial": 2, "lr": 1e-3, "alpha": 0.4, "lambda1": 0.0, "epochs": 6}


@pytest.fixture(autouse=True)
def a_sweep(tmp_path, monkeypatch):
    """The folder looks like a sweep's, and nobody waits for one that does not."""
    (tmp_path / "sweep.yaml").write_text("name: s1\n")
    monkeypatch.setattr(cluster.node_problem, "__defaults__", (0.0,))


def reports_of(folder, checkpoint_epochs=(), config=CONFIG):
    return run_epochs(lambda: FakeTrainer(config), config, str(folder), checkpoint_epochs)


def run(folder, checkpoint_epochs=()):
    """What a trial reports from its beginning, or from its last checkpoint, to its end."""
    return list(reports_of(folder, checkpoint_epochs))


def epochs(reports):
    return [metrics["epoch"] for metrics in reports]


def test_what_trials_share_holds_no_test_data():
    shared = tiny_data().trial_data
    assert not [name for name in vars(shared) if "test" in name]
    scenario = tiny_data().scenario
    assert shared.valid is not scenario.test and shared.train is not scenario.test


def test_epochs_are_reported_and_the_deciding_ones_have_checkpoints(tmp_path, monkeypatch):
    saved, reports = [], []
    save = checkpoints.save
    monkeypatch.setattr(
        checkpoints, "save", lambda *args: (saved.append((args[2]["epoch"], len(reports))), save(*args))
    )
    reports.extend(reports_of(tmp_path, [2, 4]))
    assert epochs(reports) == [1, 2, 3, 4, 5, 6]
    assert saved == [(2, 1), (4, 3), (6, 5)], "a checkpoint is there before its epoch is reported"
    assert [path.name for path in stored(trial_folder(tmp_path, 2))] == ["epoch-0006", "epoch-0004"]
    files = {path.name for path in checkpoints.newest(trial_folder(tmp_path, 2)).iterdir()}
    assert files == {"state.pt", "best.safetensors", "config.yaml", "report.json"}


def test_slow_epochs_are_saved_each(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trial, "CHECKPOINT_SHARE", math.inf)
    monkeypatch.setattr(checkpoints, "NUM_KEPT", 99)
    run(tmp_path)
    assert len(stored(trial_folder(tmp_path, 2))) == 6


def test_slow_checkpoints_become_rarer(tmp_path, monkeypatch):
    """Epochs of one second, checkpoints of two: they may take a twentieth of the time."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trial.time, "monotonic", lambda: clock.now)
    saved = []

    def save(trainer, folder, report):
        saved.append(report["epoch"])
        clock.now += 2.0

    class Slow(FakeTrainer):
        def epochs(self):
            for metrics in super().epochs():
                clock.now += 1.0
                yield metrics

    monkeypatch.setattr(checkpoints, "save", save)
    config = {**CONFIG, "epochs": 120}
    assert len(list(run_epochs(lambda: Slow(config), config, str(tmp_path), ()))) == 120
    # The first after 10 s, then one per 2 s / 5 % = 40 s, and the last epoch's.
    assert saved == [10, 50, 90, 120]


@pytest.mark.parametrize("dies_at", range(1, 7))
def test_a_killed_trial_first_reports_the_epoch_of_its_checkpoint(tmp_path, dies_at):
    """It dies between a checkpoint and its report; the next process tells that epoch first, with the same metrics."""
    deciding = range(1, 7)
    dying = reports_of(tmp_path, deciding)
    found = list(itertools.islice(dying, dies_at))[:-1]
    dying.close()
    assert epochs(found) == list(range(1, dies_at))
    found += run(tmp_path, checkpoint_epochs=deciding)
    assert epochs(found) == [1, 2, 3, 4, 5, 6]
    assert [metrics["objective"] for metrics in found] == [objective(CONFIG, epoch) for epoch in range(1, 7)]
    assert len({frozenset(metrics) for metrics in found}) == 1 and {metrics["epochs"] for metrics in found} == {6}


def test_what_a_killed_process_left_is_cleared(tmp_path):
    own = trial_folder(tmp_path, 2)
    (own / ".epoch-0003.1.tmp").mkdir(parents=True)
    run(tmp_path)
    assert [path.name for path in own.iterdir()] == ["epoch-0006"]


def test_a_node_that_does_not_see_the_sweeps_folder_is_unfit(tmp_path):
    with pytest.raises(NodeUnfit, match="does not see .*nowhere/sweep.yaml: "):
        run(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_no_number_ends_the_trial(tmp_path, value):
    class Diverging(FakeTrainer):
        def epochs(self):
            for metrics in super().epochs():
                yield {**metrics, "objective": value} if metrics["epoch"] == 3 else metrics

    reports = run_epochs(lambda: Diverging(CONFIG), CONFIG, str(tmp_path), ())
    assert epochs(itertools.islice(reports, 2)) == [1, 2]
    with pytest.raises(ValueError, match="epoch 3"):
        next(reports)
