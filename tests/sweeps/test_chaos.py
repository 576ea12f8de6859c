"""Sweeps that are broken on purpose, again and again, and lose nothing.

A real cluster of several Ray nodes on this machine, a real MLflow server over HTTP, the real command with a real model on
a small generated scenario. A seed draws when each is killed: the driver, a node, the process of a trial, the head with all
that runs on it, the tracking server. Every driver that died is started again with `--resume`. In the end the sweep must
look like one that was never disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from llmemf.checkpoint import evaluate_checkpoint
from llmemf.scenarios.scenario import Scenario
from sweeps.core.options import Options
from sweeps.core.resume import plan_resume
from sweeps.search.asha import ResumableASHA
from sweeps.search.search import SweepSearch
from sweeps.state.checkpoints import stored
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import PARENT

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]
TRIALS, EPOCHS = 6, 5
GRID = ["lr=1e-3,3e-3,1e-2", "dropout=0.1,0.3", "modalities=id", "alpha=1", "beta=0", "lambda1=0.3", "lambda2=0.3"]
SMALL = ["id_dim=16", "encoder_layers=1", "batch_size=64", "l2=1e-5", "max_length=12", "item_projection=linear",
         "projection_dim=16"]  # fmt: skip
SESSIONS: list[int] = []
"""Sessions of all drivers that were started."""
LONGEST = 150.0
"""Seconds after which a driver counts as hanging."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scenario `tiny`: one epoch on it takes a few tenths of a second."""
    from tiny import make_scenario, random_rows

    root = tmp_path_factory.mktemp("chaos")
    rows = random_rows(np.random.default_rng(7), 4000, 9)
    make_scenario(rows={"train": rows}).save(root / "data")
    return root


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray's token and MLflow's files must not mix with those of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


class Server:
    """An MLflow server process over SQLite that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination", str(self.folder / "server-artifacts"),
        ]  # fmt: skip
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        until(lambda: reachable(self.port), 90, "the MLflow server does not start")

    def kill(self) -> None:
        if self.process is not None:
            kill_group(self.process)
            self.process = None


class Machines:
    """A cluster of a head that runs no trial and two nodes with one CPU each, on this machine."""

    def __init__(self) -> None:
        self.cluster = None
        self.start()

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def replace_node(self, draw: random.Random) -> None:
        """A node dies without a word, and another one joins."""
        lost = self.nodes.pop(draw.randrange(len(self.nodes)))
        self.cluster.remove_node(lost, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def shutdown(self) -> None:
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    machines = Machines()
    yield machines
    machines.shutdown()


class Driver:
    """The sweep command as its own process group."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.event_log = folder / "mlruns" / "sweeps" / name / "journal.jsonl"
        self.log = (folder / f"{name}.log").open("a+")
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "sweeps" / "grid.py"), "--name", name, *arguments],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        SESSIONS.append(self.process.pid)
        self.events = count_events(self.event_log)

    def happened(self) -> int:
        """Events since this driver started."""
        return count_events(self.event_log) - self.events

    def wait_for(self, events: int, pause: float) -> bool:
        """Wait until so many events happened, and a moment more; False where the driver ended before."""
        while self.process.poll() is None:
            assert time.monotonic() - self.start < LONGEST, f"the driver hangs:\n{self.tail()}"
            if self.happened() >= events:
                time.sleep(pause)
                return self.process.poll() is None
            time.sleep(0.002)
        return False

    def end(self) -> int:
        self.process.wait(timeout=LONGEST)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL to the driver alone: what it started is left to itself."""
        self.process.kill()
        self.process.wait()

    def tail(self) -> str:
        self.log.seek(0)
        return self.log.read()[-3000:]


def start_options(server: Server | None, machines: Machines | None, method: str = "grid") -> list[str]:
    settings = [part for text in (*GRID, *SMALL) for part in ("--set", text)]
    options = ["--scenario", "tiny", "--search", method, "--epochs", str(EPOCHS), "--grace-period", "2",
               "--reduction-factor", "2", "--keep", "3", *settings]  # fmt: skip
    options += ["--tracking-uri", server.uri] if server else []
    return options + (["--ray-address", machines.cluster.address] if machines else [])


def test_storms(folder: Path, server: Server, machines: Machines) -> None:
    """Two storms and a calm sweep: all end with the same trials, values, runs and points."""
    calm = Driver(folder, "calm", *start_options(server, machines))
    assert calm.end() == 0, calm.tail()
    expected = {choice(record): record for record in SweepState(folder / "mlruns/sweeps/calm").records.values()}
    assert len(expected) == TRIALS
    assert_whole(folder, "calm", server, expected)
    for seed, blows in enumerate((["driver", "trial", "head"], ["driver", "node", "server"]), start=1):
        storm(folder, f"storm{seed}", server, machines, blows, random.Random(seed))
        assert_whole(folder, f"storm{seed}", server, expected)


def storm(folder: Path, name: str, server: Server, machines: Machines, blows: list[str], draw: random.Random) -> None:
    """Run a sweep to its end through these blows, each at a random moment."""
    record = folder / "mlruns" / "sweeps" / name / "sweep.yaml"
    for _ in range(10):
        # Before the sweep has a record there is nothing to resume: the same command starts it.
        resumed = ["--resume", "--ray-address", machines.cluster.address]
        driver = Driver(folder, name, *(resumed if record.exists() else start_options(server, machines)))
        while blows and driver.wait_for(driver.happened() + draw.randint(1, 5), draw.choice([0, 0.01, 0.3])):
            blow = blows.pop(0)
            if blow in ("driver", "head"):
                driver.kill()
            if blow == "head":
                machines.shutdown()
                machines.start()
            if blow == "server":
                server.kill()
                time.sleep(draw.uniform(1, 4))
                server.start()
                server.wait()
            if blow == "node":
                machines.replace_node(draw)
            if blow == "trial":
                kill_a_trial(draw)
        code = driver.end()
        if code == 0:
            assert len(blows) < 2, f"{name} was over before {blows}"
            return
        assert code == -signal.SIGKILL, f"exit code {code}\n{driver.tail()}"
    raise AssertionError(f"{name} does not end")


def assert_whole(folder: Path, name: str, server: Server, expected: dict) -> None:
    """Everything that a disturbed sweep shares with an undisturbed one."""
    sweep = folder / "mlruns" / "sweeps" / name
    events = SweepState(sweep).event_log.read()
    records = SweepState(sweep).records

    # Every trial exactly once, every epoch of it exactly once and in order, one end.
    assert Counter(event["trial"] for event in events if event["event"] == "proposed") == Counter(range(1, TRIALS + 1))
    for record in records.values():
        own = [event for event in events if event.get("trial") == record.number]
        assert [event["result"]["epoch"] for event in own if event["event"] == "epoch"] == list(
            range(1, record.epoch + 1)
        )
        assert record.outcome in ("completed", "pruned"), (record.name, record.error)
        assert sum(bool(event.get("end")) for event in own) == 1

    # The same trials, and in each the same numbers, bit by bit, as far as both went.
    assert {choice(record) for record in records.values()} == set(expected)
    for record in records.values():
        calm = expected[choice(record)]
        for ours, theirs in zip(record.values, calm.values):
            assert ours == theirs, (name, record.name, record.values, calm.values)

    # MLflow: one parent, one run per trial, none running, each point once and equal to the event log's.
    client = mlflow_client(server.uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], f"tags.sweep = '{name}'", max_results=1000)
    assert Counter(run.data.tags["trial"] for run in runs) == Counter([PARENT, *(r.name for r in records.values())])
    by_name = {run.data.tags["trial"]: run for run in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = by_name.pop(PARENT)
    metrics_of = {record.name: {} for record in records.values()}
    for event in events:
        if event["event"] == "epoch":
            metrics_of[f"t{event['trial']:02d}"][event["result"]["epoch"]] = event["result"]
    for record in records.values():
        run = by_name[record.name]
        assert run.data.tags["outcome"] == record.outcome and run.data.tags["epochs_run"] == str(record.epoch)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for key in ("objective", "train/loss", "val/film/mrr", "val_full/book/ndcg_10"):
            points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            assert points == [(epoch, result[key]) for epoch, result in metrics_of[record.name].items()], (name, key)

    # The best checkpoint loads and scores what was logged; the best three kept their weights, nothing else lies about.
    best = max(records.values(), key=lambda record: (record.objective, -record.number))
    scenario = Scenario.load(folder / "data" / "tiny")
    again = evaluate_checkpoint(sweep / "best", scenario, {}, split="valid", device="cpu")
    for key, value in best.metrics.items():
        if key.startswith(("val/film", "val/book", "val_full/film")):
            assert again[key.replace("val", "valid", 1)] == pytest.approx(value, abs=1e-9), key
    assert parent.data.metrics["objective"] == best.objective
    leading = sorted(records.values(), key=lambda record: (-record.objective, record.number))[:3]
    assert {path.name for path in (sweep / "trials").iterdir()} == {record.name for record in leading}
    assert all(len(stored(path)) == 1 and not list(path.glob(".*")) for path in (sweep / "trials").iterdir())
    assert not (sweep / "tune").exists() and not list(sweep.rglob("state.pt"))

    # Optuna's study and ASHA's rungs follow from the records.
    plan = plan_resume(Options(name=name, storage=folder / "mlruns", data_root=folder / "data"))
    state = SweepState(sweep)
    search = SweepSearch(plan.space, state, method="grid", trials=plan.trials, epochs=plan.epochs, points=plan.points)
    states = Counter(trial.state.name for trial in search.study.trials)
    outcomes = Counter(record.outcome for record in records.values())
    assert states == Counter(COMPLETE=outcomes["completed"], PRUNED=outcomes["pruned"]) and search.outside == 0
    assert search.study.best_value == max(r.objective for r in records.values() if r.outcome == "completed")
    rungs = ResumableASHA(state.records.values(), max_t=EPOCHS, grace_period=2, reduction_factor=2).rungs
    for milestone, recorded in rungs:
        reached = {r.name: r.values[int(milestone) - 1] for r in records.values() if r.epoch >= milestone}
        assert recorded == reached
    assert all(record.epoch in (2, 4) for record in records.values() if record.outcome == "pruned")


def test_a_driver_notices_that_its_cluster_is_lost(folder: Path, server: Server, machines: Machines) -> None:
    """It closes its runs and says how to go on, instead of ending without a word after a minute, as Ray would.

    The head is lost, not the Ray on the driver's own machine: where that dies, Ray ends the driver at once.
    """
    driver = Driver(folder, "lost", *start_options(server, machines))
    assert driver.wait_for(8, 0.1), driver.tail()
    machines.cluster.head_node.kill_gcs_server(check_alive=False)
    assert driver.end() == 2, driver.tail()
    machines.shutdown()
    assert "the cluster was lost" in driver.tail() and "--resume --name lost" in driver.tail()
    assert "Raylet" not in driver.tail() and "state-dump" not in driver.tail()
    client = mlflow_client(server.uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], "tags.sweep = 'lost'")
    assert runs and {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    machines.start()
    again = Driver(folder, "lost", "--resume", "--ray-address", machines.cluster.address)
    assert again.end() == 0, again.tail()
    assert len(SweepState(folder / "mlruns/sweeps/lost").records) == TRIALS


def test_killed_at_any_event_a_search_by_optuna_goes_on_as_if_nothing_had_happened(folder: Path) -> None:
    """One trial at a time and a local Ray: not only the set, the whole sequence of proposals is the same."""

    def settings(name):
        found = SweepState(folder / "mlruns" / "sweeps" / name).records.values()
        return [(record.config, record.values, record.outcome) for record in found]

    options = [*start_options(None, None, "optuna"), "--trials", "6", "--grid-points", "2", "--concurrency", "1"]
    options += ["--warm-start", "none"]  # the second sweep would learn from the first
    options += ["--set", "lr=1e-3,1e-2", "--set", "dropout=0.1,0.3", "--set", "l2=1e-6,1e-4"]
    alone = Driver(folder, "alone", *options)
    assert alone.end() == 0, alone.tail()
    draw, name, kills = random.Random(11), "killed", 0
    driver = Driver(folder, name, *options)
    while kills < 2 and driver.wait_for(draw.randint(2, 12), draw.choice([0, 0.005])):
        driver.kill()
        kills += 1
        own = [driver.process.pid]
        until(lambda own=own: not left_of(own, only_trials=True), 15, "trials outlive their driver")
        driver = Driver(folder, name, "--resume")
    assert driver.end() == 0, driver.tail()
    assert kills == 2
    assert settings(name) == settings("alone")
    rows = sqlite3.connect(folder / "mlruns" / "mlflow.db").execute(
        "select t.value, r.status from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'trial'"
        " join tags s on s.run_uuid = r.run_uuid and s.key = 'sweep' where s.value = ?", [name]
    ).fetchall()  # fmt: skip
    assert sorted(rows) == sorted((trial, "FINISHED") for trial in [PARENT, *(f"t{i:02d}" for i in range(1, 7))])


def test_a_scheduler_that_ends_the_whole_process_group(folder: Path) -> None:
    """SIGTERM to driver and Ray at once, as `timeout` or a batch system sends it: no run stays open, resume goes on."""
    driver = Driver(folder, "term", *start_options(None, None))
    assert driver.wait_for(12, 0.1), driver.tail()
    os.killpg(driver.process.pid, signal.SIGTERM)
    began = time.monotonic()
    assert driver.end() == 130, driver.tail()
    assert time.monotonic() - began < 30
    assert "Traceback" not in driver.tail() and "--resume --name term" in driver.tail()
    rows = sqlite3.connect(folder / "mlruns" / "mlflow.db").execute(
        "select r.status from runs r join tags s on s.run_uuid = r.run_uuid and s.key = 'sweep' where s.value = 'term'"
    )
    assert "RUNNING" not in {status for (status,) in rows}
    again = Driver(folder, "term", "--resume")
    assert again.end() == 0, again.tail()
    assert len(SweepState(folder / "mlruns/sweeps/term").records) == TRIALS


def test_no_process_outlives_the_drivers_above() -> None:
    """All that they started has ended; Ray's agents take about a minute to see that their raylet was killed."""
    assert len(SESSIONS) > 5
    until(lambda: not left_of(SESSIONS), 120, "processes are left behind", lambda: left_of(SESSIONS))


def left_of(sessions: list[int], *, only_trials: bool = False) -> list[list[str]]:
    """Command lines of the processes that drivers of these sessions left."""
    found = [process for process in psutil.process_iter(["cmdline"]) if session_of(process) in sessions]
    return [process.info["cmdline"] for process in found if not only_trials or is_trial(process)]


def session_of(process: psutil.Process) -> int:
    try:
        return -1 if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.Error, ProcessLookupError):
        return -1


def choice(record) -> str:
    return json.dumps(record.config, sort_keys=True)


def kill_a_trial(draw: random.Random) -> None:
    """SIGKILL to the process of some running trial."""
    found = [process for process in psutil.process_iter(["cmdline"]) if is_trial(process)]
    if found:
        draw.choice(sorted(found, key=lambda process: process.pid)).kill()


def is_trial(process: psutil.Process) -> bool:
    # What Ray Tune calls an actor that gets its parameters from `tune.with_parameters`.
    return any(part.startswith("ray::_Inner") for part in process.info["cmdline"] or ())


def count_events(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def until(condition, seconds: float, message: str, more=lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{message} {more()}"
        time.sleep(0.1)


def reachable(port: int) -> bool:
    import urllib.request

    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
