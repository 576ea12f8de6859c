import json
import math

import pytest
from sweep_fakes import FakeTrainer, tiny_data

from sweeps import trial
from sweeps.trial import reported, run_epochs, rungs

METRICS = {"epoch": 3, "objective": 0.25, "best_epoch": 2, "stopped_early": False, "val/movie/mrr": 0.25}
CONFIG = {"lr": 1e-3, "alpha": 0.4, "lambda1": 0.0, "epochs": 6}


class Tune:
    """`ray.tune` as a trial sees it."""

    class Checkpoint:
        @staticmethod
        def from_directory(folder):
            from pathlib import Path

            return {path.name: path.read_text() for path in Path(folder).iterdir()}

    def __init__(self, checkpoint=None):
        self.reports, self.checkpoint = [], checkpoint

    def get_checkpoint(self):
        return self.checkpoint

    def report(self, metrics, *, checkpoint=None):
        self.reports.append((metrics, checkpoint))


@pytest.fixture
def tune(monkeypatch):
    import ray.tune

    fake = Tune()
    monkeypatch.setattr(ray, "tune", fake)
    return fake


def test_no_test_metric_leaves_a_trial(tune):
    run_epochs(FakeTrainer(CONFIG), 6, ())
    assert all("test/movie/mrr" in metrics for metrics in FakeTrainer(CONFIG).epochs()), "the fake must be poisoned"
    names = {name for metrics, _ in tune.reports for name in metrics}
    assert not [name for name in names if name.startswith("test")]
    assert {"epoch", "epochs", "objective", "val/movie/mrr", "train/loss"} <= names


def test_what_trials_share_holds_no_test_data():
    shared = tiny_data().trial_data
    assert not [name for name in vars(shared) if "test" in name]
    scenario = tiny_data().scenario
    assert shared.valid is not scenario.test and shared.train is not scenario.test


def test_epochs_are_reported_and_the_deciding_ones_have_checkpoints(tune):
    run_epochs(FakeTrainer(CONFIG), 6, checkpoint_epochs=[2, 4])
    assert [metrics["epoch"] for metrics, _ in tune.reports] == [1, 2, 3, 4, 5, 6]
    saved = {metrics["epoch"]: checkpoint for metrics, checkpoint in tune.reports if checkpoint}
    assert sorted(saved) == [2, 4, 6]
    assert all({"state.pt", "best.safetensors", "config.yaml"} == set(files) for files in saved.values())


def test_slow_epochs_are_saved_each(tune, monkeypatch):
    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
    run_epochs(FakeTrainer(CONFIG), 6, ())
    assert all(checkpoint for _, checkpoint in tune.reports)


def test_a_resumed_trial_goes_on_after_its_checkpoint(tune, tmp_path):
    class Checkpoint:
        def as_directory(self):
            from contextlib import nullcontext

            return nullcontext(str(tmp_path))

    (tmp_path / "state.pt").write_text(json.dumps({"epoch": 4}))
    tune.checkpoint = Checkpoint()
    run_epochs(FakeTrainer(CONFIG), 6, ())
    assert [metrics["epoch"] for metrics, _ in tune.reports] == [5, 6]


def test_plain_types_and_finite_values_only():
    import numpy as np

    report = reported(
        {**METRICS, "objective": np.float64(0.25), "train/loss": math.inf, "gpu_mem_gb": 1.5, "odd": 1}, 8
    )
    assert report == {**METRICS, "epochs": 8, "gpu_mem_gb": 1.5}
    assert type(report["objective"]) is float and type(report["epoch"]) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_no_number_ends_the_trial(value):
    with pytest.raises(ValueError, match="epoch 3"):
        reported({**METRICS, "objective": value}, 8)


@pytest.mark.parametrize(
    ("epochs", "grace", "factor", "expected"),
    [(100, 3, 3, [3, 9, 27, 81]), (8, 2, 3, [2, 6]), (9, 3, 3, [3]), (3, 3, 3, []), (10, 1, 2.5, [1, 3, 7])],
)
def test_rungs(epochs, grace, factor, expected):
    assert rungs(epochs, grace, factor) == expected


@pytest.mark.parametrize(("epochs", "grace", "factor"), [(100, 3, 3), (8, 2, 3), (9, 3, 3), (50, 1, 4)])
def test_rungs_are_those_of_the_scheduler(epochs, grace, factor):
    from ray.tune.schedulers import ASHAScheduler

    scheduler = ASHAScheduler(time_attr="epoch", max_t=epochs, grace_period=grace, reduction_factor=factor)
    milestones = sorted(milestone for milestone, _ in scheduler._brackets[0]._rungs if milestone < epochs)
    assert milestones == rungs(epochs, grace, factor)
