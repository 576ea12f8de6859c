"""A command line of the report does what it says: read back by the options of the command, it plans that sweep."""

import shlex
import sys

import pytest
import typer.main
from report_fakes import make_sweep, rising, trial

from sweeps.cli.main import single
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.resume import plan_extend
from sweeps.reporting import commands
from sweeps.state.sweep_record import SweepRecord


@pytest.fixture
def options(monkeypatch):
    """What the command `sweep` makes of a command line."""
    # A command puts the project first on the path when it is imported.
    monkeypatch.setattr(sys, "path", sys.path[:])

    def read(line):
        words = shlex.split(line)
        given = typer.main.get_command(single("sweep")).make_context("sweep", words[words.index("sweep") + 1 :]).params
        values = {
            key: value for key, value in given.items() if key in Options.__dataclass_fields__ and value is not None
        }
        return Options(**{**values, "assignments": given["assignments"] or []}), given

    return read


@pytest.fixture
def record(project_folder):
    """A sweep of the sample, other than its scenario file in every way that the command line knows."""
    plan = plan_sweep(
        Options(scenario="sample", name="s1", trials=9, grid_points=3, epochs=8, scheduler="asha", grace_period=2,
                reduction_factor=4, seed=3, search="optuna", cpus_per_trial=2, confirm=0.5,
                assignments=["lr=1e-4,1e-3,1e-2", "modalities=[id, text]", "alpha=0.3,0.5", "dropout=0.1"])
    )  # fmt: skip
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    return plan.record


def same(first: SweepRecord, second: SweepRecord, *without):
    left = {"name", "created", "status", "fingerprint", "varied_keys", "keep", "identity", *without}
    a, b = (record.model_dump(exclude=left) for record in (first, second))
    return a == b


def test_the_same_sweep_again_is_the_same(record, options):
    found, _ = options(commands.again(record))
    assert same(record, plan_sweep(found).record)


def test_changes_are_the_only_changes(record, options):
    found, _ = options(commands.again(record, epochs=16, assignments={"lambda1": 0.25, "lr": [0.01, 0.1]}))
    plan = plan_sweep(found)
    assert plan.fixed["epochs"] == 16 and plan.fixed.get("lambda1", 0.25) == 0.25
    assert plan.record.space["lr"] == [0.01, 0.1] and plan.record.space["lambda1"] == 0.25
    assert same(record, plan.record, "fixed", "space") and plan.record.fixed == {**record.fixed, "epochs": 16}
    found, _ = options(commands.again(record, grace_period=5))
    assert plan_sweep(found).record.grace_period == 5


def test_an_extension_is_accepted_by_the_command(project_folder, options):
    trials = [trial(rising(0.05), settings={"lr": 1e-3, "alpha": 0.3, "beta": 0.2, "lambda1": 0.3})] * 2
    stored = make_sweep(project_folder / "mlruns", trials, search="optuna")
    found, given = options(commands.extend(stored, 5, {"lr": [1e-4, 1e-3, 1e-2, 0.1]}))
    plan = plan_extend(found, given["extend"])
    assert plan.trials == 7 and plan.record.space["lr"] == [1e-4, 1e-3, 1e-2, 0.1]
    found, given = options(commands.resume(stored))
    assert given["resume"] and found.name == "s1"


def test_a_storage_elsewhere_is_named(record, tmp_path):
    record.storage = str(tmp_path / "else where")
    words = shlex.split(commands.rerun(record, top=3, seeds=5))
    given = ["rerun", "s1", "--top", "3", "--seeds", "5", "--storage", str(tmp_path / "else where")]
    assert words[-len(given) :] == given
