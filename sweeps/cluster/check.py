"""What is checked of a Ray cluster before a sweep starts on it: room for trials, shared storage, the same code everywhere."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmemf.errors import InputError
from llmemf.text_format import plural
from sweeps.cluster import node_probe, ray_private
from sweeps.cluster.resources import check_request, described, trials_that_fit
from sweeps.state.sweep_record import RECORD, SweepRecord

ANSWER_SECONDS = 120.0
"""A node that has not answered after this is not used: its first worker imports torch, perhaps over a network."""
STORAGE_SECONDS = 45.0
"""Network file systems show a new file after some seconds, by default after 30 at most."""
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's description on the head."""
KUBERAY = "KUBERAY_GEN_RAY_START_CMD"
"""KubeRay sets this in its pods; it keeps its scaling to itself."""
SHOWN = 3


@dataclass(frozen=True)
class NodeType:
    """Machines of one kind that the cluster has or may still start.

    Attributes:
        most: how many of them there may be; None without a limit.
    """

    name: str
    resources: dict[str, float]
    most: int | None

    def __str__(self) -> str:
        return f"{self.name}: {described(self.resources.get('CPU', 0), self.resources.get('GPU', 0))}"


def check_cluster(record: SweepRecord) -> tuple[int, list[str]]:
    """Check the cluster that this process is connected to; returns how many trials run at once, and notices for the user.

    Raises:
        InputError: not even one trial fits, or a node that would run trials does not see the sweep's folder, has other
            versions or other code.
    """
    parallel, notices = cluster_room(record)
    check_nodes(record.folder, [node for node in alive() if trials_that_fit(record, node["Resources"])])
    return parallel, notices


def cluster_room(record: SweepRecord) -> tuple[int, list[str]]:
    """How many trials the cluster runs at once, and notices for the user.

    Raises:
        InputError: not even one trial fits.
    """
    check_request(record)
    planned, most_workers = planned_nodes()
    return capacity(record, alive(), planned, most_workers)


def alive() -> list[dict[str, Any]]:
    """The nodes of the cluster that this process is connected to."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def capacity(
    record: SweepRecord, nodes: list[dict[str, Any]], planned: list[NodeType] | None, most_workers: int | None = None
) -> tuple[int, list[str]]:
    """How many trials run at once, counted node by node, and what the user should know about it.

    Args:
        nodes: alive nodes, as `ray.nodes()` gives them.
        planned: node types of a cluster that grows by itself; None where the cluster does not tell.
        most_workers: how many nodes of all types together it may start.

    Raises:
        InputError: not even one trial fits.
    """
    now = sum(trials_that_fit(record, node["Resources"]) for node in nodes)
    asked, notices = record.concurrency, []
    # Where the cluster does not tell, only the user can know that it starts machines when somebody asks for them.
    later = asked or 0 if planned is None else most_at_once(record, planned, most_workers)
    if later is None:
        if asked is None:
            raise InputError("the cluster grows without a limit: say how many trials run at once with --concurrency")
        later = asked
    most = max(now, later)
    if not most:
        has = Counter((node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes)
        there = sorted(((one, count) for one, count in has.items() if any(one)), reverse=True)
        kinds = [f"{plural(count, 'node')} with {described(*one)}" for one, count in there] or ["no node for trials"]
        kinds += [f"and may start {kind}" for kind in planned or []]
        asks = described(record.cpus_per_trial, record.gpus_per_trial)
        grows = "; if it starts nodes on demand, give --concurrency" if planned is None else ""
        raise InputError(
            f"one trial asks for {asks} on one node; the cluster has {', '.join(kinds)}: lower "
            f"--cpus-per-trial or --gpus-per-trial{grows}"
        )
    most = most if asked is None else min(asked, most)
    if most > now:
        notices.append(f"{now} of {plural(most, 'trial')} at once fit now, the others wait until the cluster has grown")
    if not record.gpus_per_trial and any(node["Resources"].get("GPU") for node in nodes):
        notices.append("the cluster has GPUs and no trial asks for one: --gpus-per-trial 1")
    return most, notices


def most_at_once(record: SweepRecord, planned: list[NodeType], most_workers: int | None) -> int | None:
    """Trials on a cluster that has grown as far as it may; None without a limit."""
    total, left = 0, most_workers
    for kind in sorted(planned, key=lambda kind: -trials_that_fit(record, kind.resources)):
        each = trials_that_fit(record, kind.resources)
        if not each:
            continue
        count = kind.most if left is None else left if kind.most is None else min(kind.most, left)
        if count is None:
            return None
        total += each * count
        left = None if left is None else left - count
    return total


def planned_nodes() -> tuple[list[NodeType] | None, int | None]:
    """Node types that the cluster may start and the limit over all of them; (None, None) where it does not tell."""
    if groups := ray_private.node_groups():
        kinds = [
            NodeType(group.name, dict(group.resources), None if group.max_count < 0 else group.max_count)
            for group in groups
        ]
        return kinds, None
    if not _on_head() or KUBERAY in os.environ:
        return None, None
    path = BOOTSTRAP.expanduser()
    return read_node_types(yaml.safe_load(path.read_text())) if path.exists() else ([], None)


def read_node_types(config: dict[str, Any]) -> tuple[list[NodeType] | None, int | None]:
    """Worker types of a cluster that `ray up` started; a fixed set of machines has none."""
    if config.get("provider", {}).get("type") == "local":
        return [], None
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    if any("CPU" not in kind.get("resources", {}) for kind in workers.values()):
        return None, None
    kinds = [NodeType(name, kind["resources"], kind.get("max_workers", 0)) for name, kind in workers.items()]
    return kinds, config["max_workers"]


def _on_head() -> bool:
    import ray

    own = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == own and "node:__internal_head__" in node["Resources"] for node in ray.nodes())


def check_nodes(folder: Path, nodes: list[dict[str, Any]]) -> None:
    """Ask every node what it has, and compare with this process.

    Raises:
        InputError: nodes that cannot run trials of this sweep, and why.
    """
    shared, token = folder / ".nodes", secrets.token_hex(16)
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    try:
        (shared / "driver").write_text(token)
        problems = []
        for node, answer in ask_nodes(shared, token, nodes):
            problem = answer if isinstance(answer, str) else compare(answer, shared, node["NodeID"], token)
            if problem:
                problems.append(f"node {name_of(node)} {problem}")
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    if problems:
        more = f" (and {len(problems) - SHOWN} further nodes)" if len(problems) > SHOWN else ""
        raise InputError("; ".join(problems[:SHOWN]) + more)


def ask_nodes(shared: Path, token: str, nodes: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Any]]:
    """Every node with its answer, or with the reason why there is none."""
    import ray
    from ray.cloudpickle import register_pickle_by_value
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    register_pickle_by_value(node_probe)
    task = ray.remote(num_cpus=0, max_retries=0)(node_probe.probe)
    asked, answers, deadline = [], [], time.monotonic() + ANSWER_SECONDS
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = task.options(scheduling_strategy=there)
        asked.append((node, options.remote(str(shared), node["NodeID"], token, STORAGE_SECONDS)))
    for node, reference in asked:
        try:
            answer: Any = ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.RayError as error:
            late = isinstance(error, ray.exceptions.GetTimeoutError)
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            why = f"does not answer within {ANSWER_SECONDS:g} s" if late else f"cannot run a task ({said})"
            answer = f"{why}: look at its Ray, or take it out of the cluster"
            ray.cancel(reference, force=True)
        answers.append((node, answer))
    # A spot node may have gone in the meantime; the trials will not miss it.
    present = {node["NodeID"] for node in alive()}
    return [(node, answer) for node, answer in answers if node["NodeID"] in present]


def compare(answer: dict[str, Any], shared: Path, node: str, token: str) -> str:
    """What keeps this node from running trials, "" if nothing does."""
    if answer["storage"]:
        return f"{answer['storage'].format(shared.parent)}; {REMEDY}"
    if not node_probe.wait_for(shared / node, token, STORAGE_SECONDS):
        return f"has another folder at {shared.parent}; {REMEDY}"
    for package, here in node_probe.versions().items():
        there = answer["versions"].get(package, "")
        if there != here:
            found = f"{package} {there}" if there else f"no {package}"
            return f"has {found}, this process {package} {here}: give all nodes one image or one lock file"
    ours, theirs = node_probe.source_files(), answer["files"]
    if not theirs:
        return (
            "does not find llmemf and sweeps: put this checkout there at the same path, or submit with --working-dir ."
        )
    changed = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    if changed:
        return (
            f"has other code ({changed[0]} and {plural(len(changed) - 1, 'further file')}): update the checkout there, "
            "or submit with --working-dir ."
        )
    if answer["imports"]:
        return f"cannot import the trial ({answer['imports']}): install this project's packages there"
    return ""


REMEDY = "mount the storage at the same path on every node, or give --storage a folder that all of them see"


def node_problem(folder: Path | str, seconds: float = 5.0) -> str:
    """Why trials cannot run on the node of this process, "" if they can; for nodes that join after the check.

    Args:
        folder: the sweep's folder; its `sweep.yaml` must be there, since a folder alone may be a local one.
        seconds: how long to wait for it.
    """
    deadline = time.monotonic() + seconds
    while not (Path(folder) / RECORD).is_file():
        if time.monotonic() >= deadline:
            return f"node {socket.gethostname()} does not see {Path(folder) / RECORD}: {REMEDY}"
        time.sleep(0.2)
    if not os.access(folder, os.W_OK):
        return f"node {socket.gethostname()} cannot write to {folder}: give its user the right to"
    return ""


def name_of(node: dict[str, Any]) -> str:
    """A node's host name and address."""
    host, address = node.get("NodeManagerHostname", ""), node["NodeManagerAddress"]
    return f"{host} ({address})" if host and host != address else address
