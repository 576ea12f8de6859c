import errno
import os
import time

import pytest
from typer.testing import CliRunner

from llmemf.errors import InputError, StorageError
from sweeps.cli.main import single
from sweeps.core import disk
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.storage import locked
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import RunOwner


def result(epoch, value):
    return {"epoch": epoch, "objective": value, "best_epoch": epoch, "stopped_early": False, "val/mrr": value}


def checkpoint(folder, epoch, state=1000):
    path = folder / f"epoch-{epoch:04d}"
    path.mkdir(parents=True)
    (path / "best.safetensors").write_bytes(b"w" * 500)
    (path / "config.yaml").write_bytes(b"c" * 20)
    if state:
        (path / "state.pt").write_bytes(b"s" * state)


@pytest.fixture
def sweep(project_folder):
    """Four trials: 1 and 2 completed (2 better), 3 failed by its own fault, 4 interrupted; and what a crash leaves."""
    plan = plan_sweep(Options(scenario="sample", name="s1", keep=2))
    folder = plan.record.folder
    folder.mkdir(parents=True)
    plan.record.status = "interrupted"
    plan.record.save()
    state = SweepState(folder)
    for _ in range(4):
        state.propose({"lr": 1e-3}, ["lr"], 2, {})
    for number, value in ((1, 0.1), (2, 0.2)):
        for epoch in (1, 2):
            state.add(state.records[number], result(epoch, value), stopped=False)
        checkpoint(folder / "trials" / f"t{number:02d}", 2, state=0)
    state.fail(state.records[3], "error", "NonFiniteLoss: nan")
    checkpoint(folder / "trials" / "t03", 1)
    state.add(state.records[4], result(1, 0.9), stopped=False)
    checkpoint(folder / "trials" / "t04", 1)
    (folder / "trials" / "t04" / ".epoch-0002.77.tmp").mkdir()
    (folder / "tune").mkdir()
    (folder / "tune" / "x").write_bytes(b"x" * 300)
    return folder


def test_what_nothing_needs_is_found_and_what_a_resume_needs_is_not(sweep):
    (holding,) = disk.holdings(sweep.parents[1])
    assert set(holding.leftovers) == {sweep / "tune", sweep / "trials/t03", sweep / "trials/t04/.epoch-0002.77.tmp"}
    assert holding.bytes["states"] == 2000 and holding.bytes["weights"] == 4 * 520
    assert holding.total == disk.size(sweep) and holding.removable == 300 + 1520
    disk.remove(holding)
    (after,) = disk.holdings(sweep.parents[1])
    assert not after.leftovers and (sweep / "trials/t04/epoch-0001/state.pt").exists()
    assert sorted(path.name for path in (sweep / "trials").iterdir()) == ["t01", "t02", "t04"]


def test_keeping_fewer_lets_the_worse_ones_go(sweep):
    (holding,) = disk.holdings(sweep.parents[1], keep=1)
    assert sweep / "trials/t01" in holding.leftovers and sweep / "trials/t02" not in holding.leftovers


def test_a_running_sweep_is_not_touched(sweep):
    with locked(sweep, "s1"):
        (holding,) = disk.holdings(sweep.parents[1])
        assert holding.running and not holding.leftovers
        with pytest.raises(InputError, match="'s1' is running"):
            disk.delete(holding)
    assert (sweep / "sweep.yaml").exists()


def test_a_deleted_sweep_takes_its_runs_and_artifacts_along(sweep):
    (holding,) = disk.holdings(sweep.parents[1])
    client = mlflow_client(holding.record.tracking_uri)
    experiment = client.create_experiment("sample", artifact_location=(sweep.parents[1] / "artifacts").as_uri())
    ours = client.create_run(experiment, tags=RunOwner.of(holding.record).tags)
    other = client.create_run(experiment, tags=RunOwner("another", "s1").tags)
    for run in (ours, other):
        client.log_text(run.info.run_id, "text", "note.txt")
    assert disk.delete(holding) == 1
    assert not sweep.exists()
    assert [run.info.run_id for run in client.search_runs([experiment])] == [other.info.run_id]
    left = [path.name for path in (sweep.parents[1] / "artifacts").iterdir()]
    assert left == [other.info.run_id]


def run(*arguments):
    return CliRunner().invoke(single("clean"), list(arguments))


def test_the_command_shows_before_it_removes(sweep):
    shown = run("--dry-run")
    assert shown.exit_code == 0 and "1.8 kB can go; dry run: nothing was removed" in shown.output
    assert (sweep / "tune").exists()
    assert "1.8 kB freed" in run().output and not (sweep / "tune").exists()
    assert "0 B can go" in run().output


def test_old_sweeps_are_deleted_only_when_confirmed(sweep):
    past = time.time() - 40 * 86400
    os.utime(sweep / "journal.jsonl", (past, past))
    assert "to be deleted" in run("--delete-older-than", "30d", "--dry-run").output
    assert "to be deleted" not in run("--delete-older-than", "50d", "--dry-run").output
    assert run("--delete-older-than", "30d").exit_code == 1 and sweep.exists(), "no answer is no"
    assert run("--delete-older-than", "30d", "--yes").exit_code == 0 and not sweep.exists()


def test_an_unknown_sweep_is_told(sweep):
    error = run("--delete", "s9").exception
    assert isinstance(error, InputError) and "s9" in str(error) and "s1" in str(error)


def test_what_cannot_be_removed_is_named_and_not_counted_as_freed(sweep, monkeypatch):
    def refused(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr("sweeps.core.disk.shutil.rmtree", refused)
    done = run("--yes")
    assert isinstance(done.exception, InputError) and str(sweep / "tune") in str(done.exception)
    assert "freed" not in done.output


def test_a_sweep_whose_folder_cannot_be_written_keeps_its_runs(sweep, monkeypatch):
    def refused(folder):
        raise StorageError(f"{folder} cannot be written")

    monkeypatch.setattr(disk, "writable_folder", refused)
    monkeypatch.setattr(disk, "_delete_runs", pytest.fail)
    assert str(sweep) in str(run("--delete", "s1", "--yes").exception)
