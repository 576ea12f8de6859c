from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from llmemf.errors import InputError
from llmemf.features.ray_access import leave_ray
from sweeps.cluster import check as cluster
from sweeps.cluster import login_node, node_probe, ray_session
from sweeps.cluster.check import NodeType, capacity, check_cluster, compare, node_problem, read_node_types
from sweeps.cluster.resources import check_request, trials_that_fit
from sweeps.state.sweep_record import SweepRecord

ROOT = Path(__file__).resolve().parents[3]


def record(**values):
    base = {"name": "s", "requested": "sample", "scenario": "sample", "data_root": "/d", "storage": "/s"}
    return SweepRecord(**{**base, "tracking_uri": "sqlite:////s/mlflow.db", **values})


def node(cpus=0.0, gpus=0.0, **facts):
    resources = {"CPU": float(cpus), "GPU": float(gpus)}
    return {
        "NodeID": "ab",
        "NodeManagerAddress": "10.0.0.1",
        "Resources": {k: v for k, v in resources.items() if v},
        **facts,
    }


def packed(cpus, gpus, cpu_each, gpu_each):
    """How many trials fit, by placing one after the other on real devices."""
    free, devices, count = Fraction(cpus), [Fraction(1)] * gpus, 0
    while True:
        if free < cpu_each:
            return count
        whole = [place for place, left in enumerate(devices) if left == 1]
        room = [place for place, left in enumerate(devices) if left >= gpu_each]
        if gpu_each >= 1:
            if len(whole) < gpu_each:
                return count
            for place in whole[: int(gpu_each)]:
                devices[place] = Fraction(0)
        elif gpu_each:
            if not room:
                return count
            devices[room[0]] -= gpu_each
        free -= cpu_each
        count += 1


def test_trials_on_one_machine_are_those_that_can_be_placed():
    shares = [Fraction(text) for text in ("0", "1/10", "3/10", "1/3", "2/5", "1/2", "3/5", "1", "2", "3")]
    for cpus, gpus, cpu_each, gpu_each in itertools.product(
        (1, 3, 8), (0, 1, 2, 4), (Fraction(1, 2), Fraction(1), Fraction(3)), shares
    ):
        wanted = record(cpus_per_trial=float(cpu_each), gpus_per_trial=float(gpu_each))
        there = {"CPU": float(cpus), "GPU": float(gpus)}
        assert trials_that_fit(wanted, there) == packed(cpus, gpus, cpu_each, gpu_each), (there, cpu_each, gpu_each)


def test_room_is_counted_node_by_node():
    nodes = [node(8, 1), node(8), node(3, 4), node(0, 0)]
    for wanted, expected in [((1, 0), 19), ((2, 0), 9), ((1, 1), 1 + 3), ((2, 0.5), 2 + 1), ((5, 0), 2), ((8, 1), 1)]:
        asked = record(cpus_per_trial=wanted[0], gpus_per_trial=wanted[1])
        assert capacity(asked, nodes, [])[0] == expected, wanted
    assert capacity(record(concurrency=5), nodes, [])[0] == 5
    assert capacity(record(concurrency=50), nodes, [])[0] == 19


def test_the_sum_over_nodes_is_no_room():
    """16 CPUs and 2 GPUs in all, and yet no trial of 10 CPUs, nor one of 2 GPUs, nor a GPU beside the other node's CPUs."""
    nodes = [node(8, 1), node(8, 1), node(0, 0)]
    for values in ({"cpus_per_trial": 10}, {"gpus_per_trial": 2}):
        with pytest.raises(InputError, match="on one node; the cluster has 2 nodes with 8 CPUs, 1 GPU: lower"):
            capacity(record(**values), nodes, [])
    with pytest.raises(InputError, match="asks for 1 CPU, 1 GPU"):
        capacity(record(gpus_per_trial=1), [node(8), node(0, 1)], [])


def test_a_cluster_that_grows():
    """The workers of `ray_cluster.yaml`: 8 spot nodes of 8 CPUs and 1 GPU, none of which runs yet."""
    spot = NodeType("gpu_spot", {"CPU": 8.0, "GPU": 1.0}, 8)
    half = record(gpus_per_trial=0.5)
    most, notices = capacity(half, [node()], [spot], 8)
    assert most == 16 and "0 of 16 trials at once fit now" in notices[0]
    assert capacity(half, [node(), node(8, 1)], [spot], 8)[0] == 16, "a node that runs is one of the eight"
    assert capacity(half, [node()], [spot], 3)[0] == 6, "the limit over all types"
    big = NodeType("big", {"CPU": 64.0, "GPU": 8.0}, 2)
    assert capacity(half, [node()], [spot, big], 4)[0] == 2 * 16 + 2 * 2, "as it is best filled"
    with pytest.raises(InputError, match="may start gpu_spot: 8 CPUs, 1 GPU: lower"):
        capacity(record(gpus_per_trial=2), [node()], [spot], 8)
    with pytest.raises(InputError, match="--concurrency"):
        capacity(half, [node()], [NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, None)])


def test_a_cluster_that_does_not_tell_how_far_it_grows():
    assert capacity(record(), [node(4)], None) == (4, [])
    with pytest.raises(InputError, match="no node for trials.*starts nodes on demand, give --concurrency"):
        capacity(record(gpus_per_trial=1), [node()], None)
    for nodes, now in (([node()], 0), ([node(8, 2)], 2)):
        most, notices = capacity(record(gpus_per_trial=1, concurrency=8), nodes, None)
        assert most == 8 and f"{now} of 8 trials at once fit now" in notices[0]


def test_unused_gpus_are_mentioned():
    assert "--gpus-per-trial 1" in capacity(record(), [node(8, 1)], [])[1][0]
    assert capacity(record(gpus_per_trial=1), [node(8, 1)], [])[1] == []


def test_node_types_are_read_where_ray_up_leaves_them():
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(yaml.safe_load((ROOT / "ray_cluster.yaml").read_text()))
    assert read_node_types(config) == (None, None), "AWS has not been asked for the machines' sizes yet"
    config["available_node_types"]["gpu_spot"]["resources"] = {"CPU": 8, "GPU": 1}
    assert read_node_types(config) == ([NodeType("gpu_spot", {"CPU": 8, "GPU": 1}, 8)], 8)
    assert read_node_types(prepare_config(yaml.safe_load((ROOT / "deploy/on_premise.yaml").read_text()))) == ([], None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cpus_per_trial": 0}, "--cpus-per-trial 0: a positive number"),
        ({"gpus_per_trial": -1}, "--gpus-per-trial -1"),
        ({"gpus_per_trial": 1.5}, "a share of one GPU, or whole GPUs"),
        ({"concurrency": 0}, "--concurrency 0"),
    ],
)
def test_requests_that_no_machine_grants(values, message):
    with pytest.raises(InputError, match=message):
        check_request(record(**values))


@pytest.fixture
def answer(tmp_path):
    """What a node like this one answers, and where it wrote."""
    (tmp_path / "driver").write_text("token")
    found = node_probe.probe(str(tmp_path), "n1", "token", 0.0)
    return tmp_path, found


def test_a_node_like_this_one_has_no_problem(answer):
    folder, found = answer
    assert found["imports"] == "" and found["versions"]["Python"] == sys.version.split()[0]
    assert {"llmemf/__init__.py", "sweeps/core/trial.py", "sweeps/cluster/check.py"} <= set(found["files"])
    assert compare(found, folder, "n1", "token") == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": {"torch": "2.0.0"}}, "has torch 2.0.0, this process torch .*one image"),
        ({"versions": {"numpy": ""}}, "has no numpy, this process numpy"),
        ({"versions": {"Python": "3.11.1"}}, "has Python 3.11.1, this process Python 3.11"),
        ({"versions": {"ray": "2.59.0"}}, "has ray 2.59.0"),
        ({"files": {"sweeps/trial.py": "0"}}, r"other code \(sweeps/trial.py and 0 further files\).*--working-dir \."),
        ({"files": {"sweeps/trial.py": "0", "llmemf/new.py": "1"}}, "llmemf/new.py and 1 further file"),
        ({"files": None}, "does not find llmemf and sweeps"),
        ({"imports": "ModuleNotFoundError: No module named 'pydantic'"}, "cannot import the trial .*pydantic"),
        ({"storage": "does not see {}"}, "does not see .*mount the storage at the same path on every node"),
        ({"storage": "cannot write to {} (Read-only file system)"}, "cannot write to .*Read-only"),
    ],
)
def test_what_keeps_a_node_from_running_trials(answer, change, message):
    folder, found = answer
    for key, value in change.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value or {} if key == "files" else value
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(compare(found, folder, "n1", "token"))


def test_a_folder_of_the_same_name_is_not_the_same_folder(answer, tmp_path_factory, monkeypatch):
    _, found = answer
    monkeypatch.setattr(cluster, "STORAGE_SECONDS", 0.0)
    other = tmp_path_factory.mktemp("other")
    assert "has another folder at" in compare(found, other, "n1", "token")
    assert node_probe.probe(str(other), "n2", "token", 0.0)["storage"] == "does not see {}"


def test_a_trial_knows_a_node_without_the_storage(tmp_path):
    assert f"does not see {tmp_path / 'sweep.yaml'}" in node_problem(tmp_path, 0.0)
    (tmp_path / "sweep.yaml").write_text("name: s")
    assert node_problem(tmp_path, 0.0) == ""
    assert "mount the storage" in node_problem(tmp_path / "none", 0.0)


@pytest.mark.parametrize("given", ["ray://head:10001", "http://127.0.0.1:8265"])
def test_addresses_by_which_no_sweep_runs(given, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="ray job submit"):
        ray_session.cluster_address(given)
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(InputError, match="ray job submit"):
        ray_session.cluster_address("auto")
    assert ray_session.cluster_address("head:6379") == "head:6379"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert ray_session.cluster_address("auto") == "head:6379"


def make_old(folder):
    os.utime(folder, (time.time() - 3600,) * 2)


def test_sessions_of_dead_sweeps_are_removed_and_no_others():
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, stamp = int(ended.stdout), "session_2026-11-21_05-00-00"
    # The path of a socket has 107 characters at most, and pytest's folders are deep.
    with tempfile.TemporaryDirectory(dir="/tmp") as name, socket.socket(socket.AF_UNIX) as server:
        base = Path(name)
        kept = [base / f"{stamp}_1_{os.getpid()}", base / "session_of_mine", base / "notes"]
        gone = [base / f"{stamp}_2_{dead}", base / f"join_{dead}"]
        listening, starting = base / f"{stamp}_3_{dead}", base / f"{stamp}_4_{dead}"
        for folder in (*kept, *gone, listening, starting):
            (folder / "sockets").mkdir(parents=True)
            (folder / "sockets" / "raylet").touch()
        server.bind(str(listening / "sockets" / "plasma"))
        server.listen()
        for folder in (*kept, *gone, listening):
            make_old(folder)
        ray_session.remove_stale(base)
        assert [folder.exists() for folder in gone] == [False, False]
        assert all(folder.exists() for folder in (*kept, listening, starting))
        server.close()
        make_old(listening)
        ray_session.remove_stale(base)
        assert not listening.exists() and starting.exists()


def test_the_folder_of_sockets_has_a_short_path(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/scratch/" + "x" * 60)
    assert str(ray_session.temporary_folder()) == f"/tmp/llmemf-ray-{os.getuid()}"
    monkeypatch.setenv("RAY_TMPDIR", "/fast")
    assert str(ray_session.temporary_folder()) == f"/fast/llmemf-ray-{os.getuid()}"


def test_two_ways_to_write_an_address():
    assert login_node.same_machine("localhost:6379", "127.0.0.1:6379")
    assert not login_node.same_machine("127.0.0.1:6379", "127.0.0.1:6380")
    assert not login_node.same_machine("127.0.0.1:6379", "10.255.255.254:6379")


class Machines:
    """A head that runs no trial, a node with two CPUs, and one with one CPU that has its own disk at `private`."""

    def __init__(self, private: Path) -> None:
        from ray.cluster_utils import Cluster

        self.private = private
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.cluster.add_node(num_cpus=2)
        self.other: subprocess.Popen | None = None
        if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0:
            start = f"mount -t tmpfs none {private} && exec {sys.executable} -c 'from ray.scripts.scripts import main; main()'"
            start += f" start --address {self.address} --num-cpus 1 --num-gpus 0 --disable-usage-stats --block"
            self.other = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        else:
            self.cluster.add_node(num_cpus=1)

    @property
    def address(self) -> str:
        return self.cluster.address

    def shutdown(self) -> None:
        if self.other:
            self.other.terminate()
            self.other.wait(30)
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    import ray

    leave_ray()
    machines = Machines(tmp_path_factory.mktemp("private"))
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    ray.init(address=machines.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        wait_until(lambda: ray.cluster_resources().get("CPU") == 3, 60)
        yield machines
    finally:
        leave_ray()
        machines.shutdown()


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.2)


def planned(storage, **values):
    return record(storage=str(storage), **values)


@pytest.mark.slow
def test_a_cluster_that_is_fit(machines, tmp_path):
    stored = planned(tmp_path)
    assert check_cluster(stored) == (3, [])
    assert list(stored.folder.iterdir()) == [], "the check leaves nothing behind"
    with pytest.raises(InputError, match="1 node with 2 CPUs, 1 node with 1 CPU: lower"):
        check_cluster(planned(tmp_path, cpus_per_trial=3))


@pytest.mark.slow
def test_a_node_with_its_own_disk_does_not_see_the_storage(machines, monkeypatch):
    """The second node has a file system of its own mounted there, as a machine that is not on the network file system."""
    if machines.other is None:
        pytest.skip("mount namespaces are not allowed here")
    monkeypatch.setattr(cluster, "STORAGE_SECONDS", 1.0)
    with pytest.raises(InputError) as caught:
        check_cluster(planned(machines.private))
    assert str(caught.value).count("node ") == 1
    assert f"does not see {machines.private}/sweeps/s; mount the storage" in str(caught.value)
    assert check_cluster(planned(machines.private, cpus_per_trial=2))[0] == 1, (
        "a node that runs no trial need not see it"
    )


@pytest.mark.slow
def test_a_node_with_other_packages_is_named(machines, tmp_path, monkeypatch):
    ask = cluster.ask_nodes

    def ask_with_one_odd(*arguments):
        answers = ask(*arguments)
        answers[0][1]["versions"]["torch"] = "1.13.1"
        return answers

    monkeypatch.setattr(cluster, "ask_nodes", ask_with_one_odd)
    with pytest.raises(InputError, match=r"node .* has torch 1\.13\.1, this process torch 2"):
        check_cluster(planned(tmp_path))


@pytest.mark.slow
def test_a_node_is_borrowed_and_goes_with_its_sweep(machines):
    """Even when the sweep is killed: nothing runs and nothing lies there afterwards."""
    import ray

    assert login_node.has_node(machines.address)
    folder = Path("/tmp") / f"llmemf-test-{os.getpid()}-{random.randrange(10**6)}"
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom sweeps.cluster.login_node import BorrowedNode\n"
        "borrowed = BorrowedNode(sys.argv[1], Path(sys.argv[2]), 10**8)\nprint(borrowed.process.pid, flush=True)\n"
        "time.sleep(600)"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, machines.address, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        borrowed = int(driver.stdout.readline())
        labelled = [n for n in ray.nodes() if n["Alive"] and login_node.LABEL in n["Labels"]]
        assert len(labelled) == 1 and not {"CPU", "GPU"} & set(labelled[0]["Resources"])
        assert any(login_node.LABEL in flags["labels"] for flags in login_node.running_nodes())
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        wait_until(lambda: not ray_session.is_alive(borrowed) and not folder.exists(), 30)
        wait_until(lambda: not any(n["Alive"] for n in ray.nodes() if login_node.LABEL in n["Labels"]), 30)
    finally:
        driver.kill()
        driver.wait()
