"""Sweeps that version 0.1.0 left on the disk: they are read, reported, exported and continued, or refused by file and line."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from llmemf.checkpoint import read_checkpoint
from llmemf.errors import InputError
from sweeps.cli.main import run_script
from sweeps.core.options import Options
from sweeps.core.resume import plan_extend, plan_resume
from sweeps.search.search import SweepSearch
from sweeps.state import leaderboard
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState

ROOT = Path(__file__).resolve().parent.parent.parent
PACKED = ROOT / "tests" / "data" / "old_sweeps.tar.xz"


@pytest.fixture
def old(tmp_path):
    """The storage folder of the old sweeps, `finished`, `interrupted` and `damaged`."""
    storage = tmp_path / "mlruns"
    with tarfile.open(PACKED) as packed:
        packed.extractall(storage / "sweeps", filter="data")
    for path in storage.glob("sweeps/*/sweep.yaml"):
        text = path.read_text().replace("STORAGE", str(storage)).replace("DATA_ROOT", str(tmp_path / "data"))
        path.write_text(text)
    return storage


def folder(old: Path, name: str) -> Path:
    return old / "sweeps" / name


def test_a_finished_sweep_says_what_it_said(old):
    record = SweepRecord.load(folder(old, "finished"))
    assert (record.name, record.status, record.varied_keys) == ("finished", "completed", ["lr", "user_mode"])
    state = SweepState(record.folder)
    records = list(state.records.values())
    assert [found.outcome for found in records] == ["completed"] * 3
    assert leaderboard.as_csv(records) == (record.folder / "leaderboard.csv").read_text()
    assert records[0].varied == records[0].config == {"lr": 0.01, "user_mode": "auto"}
    assert len(state.tests) == 1 and "test/movie/mrr" in state.tests[0]["metrics"]
    assert list(CheckpointRetention(record.folder, state, record.keep).weights()) == ["t03"]


def test_a_finished_sweep_has_no_work_and_can_be_extended(old):
    plan = plan_resume(Options(name="finished", storage=old))
    assert plan.trials == 3 and not plan.points
    more = plan_extend(Options(name="finished", storage=old), 2)
    assert more.trials == 5 and more.before == {}


def test_a_checkpoint_is_read_without_settings_that_were_removed(old):
    path = folder(old, "finished") / "best"
    assert "cuda_graphs: false" in (path / "config.yaml").read_text()
    stored = read_checkpoint(path)
    assert "cuda_graphs" not in stored["config"] and stored["config"]["dim"] == 8


def test_an_interrupted_sweep_continues_with_the_trial_that_ran(old):
    plan = plan_resume(Options(name="interrupted", storage=old))
    state = SweepState(folder(old, "interrupted"))
    search = SweepSearch(
        plan.space, state, method=plan.record.search, points=plan.points, trials=plan.trials, epochs=plan.epochs
    )
    first = search.suggest("a")
    assert first == {"trial": 2, **state.records[2].config} and state.records[2].epoch == 1
    assert search.suggest("b")["trial"] == 3 and search.outside == 0


def test_a_damaged_sweep_is_refused_by_file_and_line(old):
    with pytest.raises(InputError, match=r"damaged/journal\.jsonl, line 5 is damaged"):
        plan_resume(Options(name="damaged", storage=old))


def test_a_sweep_that_used_what_was_removed_is_refused(old):
    path = folder(old, "finished") / "sweep.yaml"
    path.write_text(path.read_text().replace("stack: 1", "stack: 4"))
    with pytest.raises(InputError, match=r"finished/sweep\.yaml: stack = 4 was removed"):
        plan_resume(Options(name="finished", storage=old))


def run(old: Path, *words: str) -> None:
    """A command as a user types it, for sweeps of this storage."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-m", "sweeps", *words, "--storage", str(old)],
        check=False,
        cwd=old.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def values(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a leaderboard by trial, without what the machine's speed makes, and a ranking that is younger than these sweeps.

    The loss has the digits on which processors agree.
    """
    with path.open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    return {
        trial: {key: v for key, v in row.items() if key != "seconds" and not key.startswith("val_unseen/")}
        | {"val/loss": f"{float(row['val/loss']):.5f}"}
        for trial, row in rows.items()
    }


@pytest.fixture
def with_data(old, sample_root, empty_database):
    """The sample and MLflow's tables are there."""
    (old.parent / "data").symlink_to(sample_root)
    shutil.copyfile(empty_database, old / "mlflow.db")


@pytest.mark.slow
@pytest.mark.usefixtures("with_data")
def test_an_interrupted_sweep_ends_as_if_nothing_had_happened(old):
    """It has the settings and the seed of the finished one."""
    run(old, "sweep", "--resume", "--name", "interrupted")
    assert values(folder(old, "interrupted") / "leaderboard.csv") == values(folder(old, "finished") / "leaderboard.csv")


@pytest.mark.slow
@pytest.mark.usefixtures("with_data")
def test_a_finished_sweep_is_resumed_reported_and_exported(old, tmp_path, monkeypatch):
    def here(script: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [script, *words, "--storage", str(old)])
        with pytest.raises(SystemExit) as end:
            run_script(script)
        assert not end.value.code, words

    monkeypatch.chdir(old.parent)
    before = values(folder(old, "finished") / "leaderboard.csv")
    here("grid.py", "--resume", "--name", "finished")
    assert values(folder(old, "finished") / "leaderboard.csv") == before
    here("report.py", "finished")
    assert "t03" in (folder(old, "finished") / "report.md").read_text()
    here("export.py", "finished", "--no-register", "--out", str(tmp_path / "model"))
    assert (tmp_path / "model").is_dir() and any((tmp_path / "model").iterdir())
