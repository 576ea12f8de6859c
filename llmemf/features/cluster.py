"""Shards over the machines of a Ray cluster: one worker per GPU, each with the model loaded, shards as its tasks.

The only place below `llmemf` that imports Ray, and only when the user names a cluster.
"""

from __future__ import annotations

import collections
import gc
import logging
import os
import secrets
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from llmemf.errors import InputError
from llmemf.features.clip import ClipSettings
from llmemf.features.encode_job import Job
from llmemf.features.encoding import Progress

ROOT = Path(__file__).resolve().parent.parent.parent
CPUS_PER_WORKER = 4
"""Cores of a worker in a cluster without GPUs."""
LARGEST_TASK = 4
"""Shards that a worker gets at once: enough to decode ahead, few enough to share the rest fairly."""
RETRIES = 2
"""How often the task of a worker that died is given to another one."""
POLL_SECONDS = 0.5
CONNECT_SECONDS = 5
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Cluster:
    """A connected Ray cluster, and its workers: they keep the model from one job to the next.

    Args:
        address: for messages.
        resources: of all machines, as Ray names them.
    """

    def __init__(self, address: str, resources: dict[str, float]) -> None:
        self.address, self.resources = address, resources
        self.workers, self.each = 0, {}
        self.idle: list = []

    @classmethod
    @contextmanager
    def connected(cls, address: str) -> Iterator[Cluster]:
        """Connect to a cluster, or start Ray on this machine for "local".

        Raises:
            InputError: no cluster answers.
        """
        _check_answers(address)
        _set_environment(address)
        import ray

        # Workers must import this copy of the package and no other.
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        options = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options["include_dashboard"] = False
        try:
            ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": python_path}}, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--ray-address {address}: cannot join the cluster ({' '.join(str(error).split())[:300]}); run this on "
                "one of its machines, or leave the option out"
            ) from None
        try:
            yield cls(address, ray.cluster_resources())
        finally:
            leave_ray()

    def __str__(self) -> str:
        each = "1 GPU" if self.each["num_gpus"] else f"{self.each['num_cpus']} core(s)"
        return f"{self.workers} Ray worker(s) with {each} each"

    @property
    def has_gpus(self) -> bool:
        return self.resources.get("GPU", 0) >= 1

    def plan(self, device: str, workers: int | None = None) -> None:
        """Settle how many workers run at once, and what each of them gets.

        Args:
            device: "cuda": one GPU each and an equal part of the cores; "cpu": cores alone.
            workers: None takes one per GPU, or one per `CPUS_PER_WORKER` cores.

        Raises:
            InputError: the cluster does not have that much.
        """
        gpus, cpus = int(self.resources.get("GPU", 0)), int(self.resources.get("CPU", 0))
        most = gpus if device == "cuda" else cpus
        count = workers or (gpus if device == "cuda" else max(1, cpus // CPUS_PER_WORKER))
        if not 1 <= count <= most:
            raise InputError(
                f"--ray-workers {count}: the cluster has {most} {'GPU' if device == 'cuda' else 'core'}(s), one "
                "worker needs at least one"
            )
        self.workers = count
        self.each = {"num_cpus": max(1, cpus // count), "num_gpus": 1 if device == "cuda" else 0}

    def encode_shards(self, job: Job, settings: ClipSettings, numbers: Sequence[int], progress: Progress) -> None:
        """Encode shards on the cluster's workers; shards of a worker that dies go to a new one.

        Args:
            job: its folder must lie on storage that all machines share.
            settings: which model, the same for all jobs; every machine needs its weights (a file: the same path).
            numbers: shards to encode.
            progress: called whenever new shards lie in the folder.

        Raises:
            InputError: as a worker raised it, or workers die over and over.
        """
        import ray

        tasks = collections.deque(split_tasks(numbers, self.workers))
        deaths: collections.Counter = collections.Counter()
        shared = ray.put(replace(job, workers=self.each["num_cpus"] - 1 if job.workers else 0))
        before, seen = job.store.stamps(numbers), set()
        running: dict = {}
        while tasks or running:
            while tasks and len(running) < self.workers:
                worker = self.idle.pop() if self.idle else ray.remote(ShardWorker).options(**self.each).remote(settings)
                task = tasks.popleft()
                running[worker.encode.remote(shared, task)] = (worker, task)
            ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            written = {number for number, stamp in job.store.stamps(numbers).items() if stamp != before.get(number)}
            progress(job.with_content(sorted(written - seen)))
            seen = written
            for reference in ready:
                worker, task = running.pop(reference)
                try:
                    ray.get(reference)
                    self.idle.append(worker)
                except ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except ray.exceptions.RayError as error:
                    left = [number for number in task if number not in seen]
                    deaths.update(left)
                    if any(deaths[number] > RETRIES for number in left):
                        raise InputError(
                            f"a worker of the cluster died {RETRIES + 1} times over shard {left[0]} "
                            f"({' '.join(str(error).split())[:200]}); what is done is kept, run the same command again"
                        ) from None
                    if left:
                        tasks.append(left)


class ShardWorker:
    """A process of the cluster that keeps the model loaded.

    Args:
        settings: which model.
    """

    def __init__(self, settings: ClipSettings) -> None:
        self.settings = settings
        self.clip = None

    def encode(self, job: Job, numbers: Sequence[int]) -> None:
        """Encode and write these shards, if the model here has the weights that the job was made for."""
        from llmemf.features.clip import load_clip
        from llmemf.features.encoding import encode_shards

        # Loaded with the first task and not with the actor, so that a mistake comes back as it was told.
        self.clip = self.clip or load_clip(self.settings)
        encode_shards(job, self.clip, numbers)


def split_tasks(numbers: Sequence[int], workers: int) -> list[list[int]]:
    """Shards as tasks of at most `LARGEST_TASK`, at least two for every worker while there are enough."""
    size = max(1, min(LARGEST_TASK, len(numbers) // (2 * workers)))
    return [list(numbers[at : at + size]) for at in range(0, len(numbers), size)]


def leave_ray() -> None:
    """Leave a cluster, or end the Ray of this process.

    Ray (2.60) ends the whole process, without a word and with exit code 1, where Python's garbage collection frees an
    object reference between two steps of `ray.shutdown`. So none runs meanwhile.
    """
    import ray

    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


def _check_answers(address: str) -> None:
    """Raise InputError unless something listens at the address: Ray itself would try for many minutes."""
    if address == "local":
        return
    if "://" in address:
        raise InputError(f"--ray-address {address}: give HOST:PORT of the head, or run this there with auto")
    given = address
    if address == "auto":
        running = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
        given = os.environ.get("RAY_ADDRESS") or (running.read_text().strip() if running.exists() else "")
        if not given:
            raise InputError("--ray-address auto: no Ray runs on this machine; start it, or give HOST:PORT, or local")
    host, _, port = given.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"--ray-address {address}: no Ray cluster answers at {given} ({error}); give HOST:PORT of its head, or local"
        ) from None


def _set_environment(address: str) -> None:
    """Settings that Ray reads when it is imported."""
    if "RAY_AUTH_MODE" not in os.environ:
        token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
        if address == "local":
            os.environ["RAY_AUTH_MODE"] = "token"
            # Its own token: one that Ray leaves in the home directory would be asked for by every later cluster.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        elif "RAY_AUTH_TOKEN" in os.environ or token.exists():
            # A cluster that was started where a token lies asks for it; Ray sends it only when told to.
            os.environ["RAY_AUTH_MODE"] = "token"
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module="ray")


def _cause(error: Exception) -> Exception:
    """The mistake that a worker told, or else what Ray says of it."""
    cause = getattr(error, "cause", None)
    return InputError(str(cause)) if isinstance(cause, InputError) else error
