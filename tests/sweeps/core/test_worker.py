"""A process that runs several trials: what a later one does is what it would do in a process of its own."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from odd_trials import EPOCHS, odd_trial, uneven_trial
from rich.console import Console
from sweep_fakes import fake_evaluate, tiny_data

from llmemf import memory
from sweeps.core import process_state
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.process_state import ProcessState
from sweeps.core.resume import plan_resume
from sweeps.core.run import run_sweep
from sweeps.core.sweep import TrialBackend
from sweeps.core.worker import StaleWorker, TrialWorker
from sweeps.state.sweep_state import SweepState

HERE = Path(__file__).resolve().parent.parent
MEASURED = ("seconds_train", "seconds_valid", "sequences_per_second", "cpu_percent", "memory_gb")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the same trial did in a fresh process, and as the fifth in another."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "llmemf"), str(HERE.parent.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    started = {}
    for kind in ("fresh", "warm"):
        command = [sys.executable, str(HERE / "warm_trials.py"), str(tmp_path_factory.mktemp(kind)), kind]
        started[kind] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    found = {}
    for kind, process in started.items():
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err[-3000:]
        found[kind] = json.loads(out)
    return found


@pytest.mark.slow
def test_a_warm_trial_gives_the_numbers_of_a_fresh_one_bit_for_bit(ran):
    """After a trial that changed what it could, one of another model, one of other widths, and one that was cut."""
    careless, other_model, other_widths, cut = ran["warm"]["before"]
    assert [len(reports) for reports in (careless, other_model, other_widths, cut)] == [3, 3, 3, 3]
    assert not cut[-1]["done"] and careless[-1]["done"]
    assert careless[-1]["objective"] != other_widths[-1]["objective"]
    numbers = {
        kind: [{key: value for key, value in report.items() if key not in MEASURED} for report in found["reports"]]
        for kind, found in ran.items()
    }
    assert len(numbers["fresh"]) == 3 and len(numbers["fresh"][0]) > 20
    assert numbers["warm"] == numbers["fresh"]
    # Its twin was the first in that process, and changed things only after its last epoch.
    assert [report["objective"] for report in careless] == [report["objective"] for report in ran["fresh"]["reports"]]
    assert ran["warm"]["weights"] == ran["fresh"]["weights"] and len(ran["fresh"]["weights"]) > 20


@pytest.mark.slow
def test_every_trial_finds_the_process_as_the_first_one_did(ran):
    states = ran["warm"]["states"]
    assert len(states) == 5
    for number, found in enumerate(states[1:], start=2):
        assert found == states[0], f"trial {number}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak of a process")
@pytest.mark.slow
def test_memory_is_that_of_the_trial_alone(ran):
    def peak(reports):
        return max(report["memory_gb"] for report in reports)

    if "memory_gb" not in ran["warm"]["reports"][0]:
        pytest.skip("this system does not reset the peak of a process")
    fresh, warm, careless = (
        peak(part) for part in (ran["fresh"]["reports"], ran["warm"]["reports"], ran["warm"]["before"][0])
    )
    assert careless > fresh + 0.1 or careless > warm + 0.1, "the block of the careless trial is seen"
    assert warm == pytest.approx(fresh, rel=0.2)


@pytest.fixture
def process():
    """The state of this process; what a test leaves is removed after it."""
    undo = []
    yield ProcessState(), undo
    for action in undo:
        action()
    gc.unfreeze()


def test_a_process_in_which_nothing_was_left_is_used_again(process):
    assert process[0].restore() == process[0].restore() == ""


def test_a_thread_that_is_left_makes_a_process_unfit(process, monkeypatch):
    monkeypatch.setattr(process_state, "JOIN_SECONDS", 0.01)
    end = threading.Event()
    process[1].append(end.set)
    threading.Thread(target=end.wait, name="loader", daemon=True).start()
    assert process[0].restore() == "thread loader is left"
    end.set()
    monkeypatch.setattr(process_state, "JOIN_SECONDS", 10)
    assert process[0].restore() == "", "one that is about to end is waited for"


def test_memory_that_is_left_makes_a_process_unfit(process, monkeypatch):
    state, _ = process
    # 4 GiB, a quarter more at most, too much, and less again.
    sizes = iter([4 << 30, (5 << 30) - 1, 5 << 30, (5 << 30) + 2**20, 1 << 30])
    monkeypatch.setattr(process_state, "own_bytes", lambda: next(sizes))
    assert [state.restore() for _ in range(5)] == ["", "", "", "1025 MiB of memory are left", ""]


def test_a_peak_that_cannot_be_reset_is_not_reported(monkeypatch, tmp_path):
    """The peak of an earlier trial is not this one's."""
    monkeypatch.setattr(memory, "_has_older_peak", False)
    assert set(memory.memory_gb()) == {"memory_gb"}
    monkeypatch.setattr(memory, "process_bytes", {"VmRSS": 100, "VmHWM": 300}.get)
    memory.reset_memory_peak()
    assert memory.memory_gb() == {}


class Fake(TrialWorker):
    """A worker outside of Ray."""

    def __init__(self, run_trial):
        self.setup({}, run_trial)
        self.config, self._trial_info = {}, None
        self._make_ready = lambda: None


def report(epoch, **more):
    return {"epoch": epoch, "epochs": 3, "objective": 0.5, "stopped_early": False, **more}


def test_the_last_report_says_that_the_trial_is_done_and_nothing_runs_after_it():
    left = []

    def run_trial(config, **shared):
        try:
            yield report(1)
            yield report(2, stopped_early=config["early"])
            yield report(3)
        finally:
            left.append(config["early"])

    worker = Fake(run_trial)
    worker.config = {"early": False}
    assert [worker.step()["done"] for _ in range(3)] == [False, False, True]
    assert left == [False]
    worker.reset_config({})
    worker.config = {"early": True}
    assert [worker.step()["done"] for _ in range(2)] == [False, True]
    worker.reset_config({})
    worker.step()
    worker.reset_config({})
    assert left == [False, True, True], "one that the scheduler stops is left where it stands"


def test_a_trial_that_ends_without_saying_so_is_told_to_tune():
    from ray.tune.result import RESULT_DUPLICATE

    worker = Fake(lambda config, **shared: iter([report(1)]))
    assert worker.step() == {**report(1), "done": False}
    assert worker.step() == {RESULT_DUPLICATE: True, "done": True}


def test_what_goes_wrong_when_a_trial_is_left_is_no_fault_of_the_next(monkeypatch):
    def run_trial(config, **shared):
        try:
            yield report(1)
        finally:
            raise OSError("no way out")

    worker = Fake(run_trial)
    del worker._make_ready
    worker._state = object()
    worker._reports = run_trial({})
    next(worker._reports)
    worker.reset_config({})
    with pytest.raises(StaleWorker, match="no way out"):
        worker.step()


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_the_confirmation_runs_in_the_processes_of_the_search(
    project_folder, empty_database, workers_find_fakes, scheduler
):
    """Also in the one that had nothing to do while the last trial of the search ran."""
    (project_folder / "mlruns").mkdir()
    shutil.copyfile(empty_database, project_folder / "mlruns" / "mlflow.db")
    lr = "lr=" + ",".join(f"{place}e-3" for place in range(1, 11))
    rest = ["l2=1e-5", "alpha=0.4", "beta=0.2", "lambda1=0.1", "lambda2=0.1"]
    options = {"scenario": "sample", "search": "grid", "trials": 10, "epochs": 1, "concurrency": 2}
    plan = plan_sweep(Options(**options, scheduler=scheduler, assignments=[lr, *rest]))
    backend = TrialBackend(data=tiny_data(), trainable=uneven_trial, evaluate=fake_evaluate)
    assert run_sweep(plan, Console(file=io.StringIO()), backend=backend).exit_code == 0
    state = SweepState(plan.record.folder)
    assert [record.repeats for record in state.records.values()][10:] == [10, 9]
    process = {event["trial"]: event["result"]["train/pid"] for event in state.epochs()}
    assert len(process) == 12 and process[11] != process[12] and len(set(process.values())) == 2


@pytest.mark.slow
def test_processes_go_from_trial_to_trial_unless_one_is_in_doubt(project_folder, empty_database, workers_find_fakes):
    """One slot: a process is kept after a trial that ended or was stopped, and not after anything else."""
    (project_folder / "mlruns").mkdir()
    shutil.copyfile(empty_database, project_folder / "mlruns" / "mlflow.db")
    lr = "lr=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3,7e-3"
    rest = ["l2=1e-5", "alpha=0.4", "beta=0.2", "lambda1=0.1", "lambda2=0.1"]
    options = {"scenario": "sample", "name": "s1", "search": "grid", "epochs": EPOCHS, "concurrency": 1}
    plan = plan_sweep(Options(**options, grace_period=1, reduction_factor=2, assignments=[lr, *rest]))
    backend = TrialBackend(data=tiny_data(), trainable=odd_trial, evaluate=fake_evaluate)
    result = run_sweep(plan, Console(file=io.StringIO()), backend=backend)
    state = SweepState(plan.record.folder)
    outcomes = [record.outcome for record in state.records.values()]
    assert outcomes == ["completed", "pruned", "failed", "completed", "pruned", "completed", "completed"]
    assert result.exit_code == 4, "one point has no value"

    epochs = list(state.epochs())
    numbers = {number: [e["result"]["epoch"] for e in epochs if e["trial"] == number] for number in state.records}
    assert numbers == {1: [1, 2, 3], 2: [1], 3: [1], 4: [1, 2, 3], 5: [1], 6: [1, 2, 3], 7: [1, 2, 3]}
    process = {event["trial"]: event["result"]["train/pid"] for event in epochs}
    assert process[1] == process[2] == process[3], "reused, also after a trial that was stopped"
    assert process[6] == process[7]
    assert len({process[number] for number in (1, 4, 5, 6)}) == 4, "not after a failure, a left thread, or its end"
    assert {event["result"]["train/changed"] for event in epochs} == {0.0}

    events = state.event_log.read()
    # The fifth was refused by the process with the thread, which is no loss; the sixth began in one that was dying.
    assert [event["trial"] for event in events if event["event"] == "lost"] == [6]
    assert "thread forgotten is left" in (plan.record.folder / "ray.log").read_text()
    assert plan_resume(Options(name="s1")).record.fresh_workers is False
    assert plan_resume(Options(name="s1", fresh_workers=True)).record.fresh_workers is True
