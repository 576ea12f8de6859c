"""Shards on the machines of a Ray cluster: Ray Data's `map_batches` with a pool of actors that keep the model loaded.

Ray is imported inside functions, and only when the user names a cluster.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from llmemf.errors import InputError, StorageError
from llmemf.features.clip import Clip, ClipSettings
from llmemf.features.encode_job import Job
from llmemf.features.encoding import Progress
from llmemf.features.ray_access import leave_ray, python_path, set_environment
from llmemf.text_format import plural

CPUS_PER_WORKER = 4
"""Cores of a worker in a cluster without GPUs."""
LARGEST_TASK = 4
"""Shards that a worker gets at once: enough to decode ahead, few enough to share the rest fairly."""
TRIES = 3
"""So many workers may die over one task."""
CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Pool:
    """How many workers encode at once, and the cores and GPUs of each."""

    workers: int
    cpus: int
    gpus: int

    def __str__(self) -> str:
        each = "1 GPU" if self.gpus else plural(self.cpus, "core")
        return f"{plural(self.workers, 'Ray worker')} with {each} each"

    @classmethod
    def of(cls, resources: dict[str, float], device: str, workers: int | None = None) -> Pool:
        """Share a cluster among workers.

        Args:
            resources: of all machines, as Ray names them.
            device: "cuda": one GPU each and an equal part of the cores; "cpu": cores only.
            workers: None takes one per GPU, or one per `CPUS_PER_WORKER` cores.

        Raises:
            InputError: the cluster does not have that much.
        """
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        most, unit = (gpus, "GPU") if device == "cuda" else (cpus, "core")
        count = workers or (gpus if device == "cuda" else max(1, cpus // CPUS_PER_WORKER))
        if not 1 <= count <= most:
            raise InputError(
                f"--ray-workers {count}: the cluster has {plural(most, unit)}, one worker needs at least one of them"
            )
        return cls(count, max(1, cpus // count), int(device == "cuda"))


@contextmanager
def connected(address: str) -> Iterator[dict[str, float]]:
    """Connect to a cluster, or start Ray on this machine for "local"; yields the resources of all machines.

    Raises:
        InputError: no cluster answers.
    """
    _check_answers(address)
    set_environment(None if address == "local" else address)
    import ray

    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": {"PYTHONPATH": python_path()}},
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if address == "local" else None,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--ray-address {address}: cannot join the cluster ({' '.join(str(error).split())[:300]}); run this on "
            "one of its machines, or leave the option out"
        ) from None
    try:
        yield ray.cluster_resources()
    finally:
        leave_ray()


def encode_on_cluster(job: Job, settings: ClipSettings, pool: Pool, numbers: Sequence[int], progress: Progress) -> None:
    """Encode shards on a cluster; a task whose worker dies goes to a new one.

    Args:
        job: its folder must lie on storage that all machines share.
        settings: which model; every machine needs its weights (a file: under the same path).
        pool: the workers.
        numbers: shards to encode.
        progress: called whenever a shard is in the folder.

    Raises:
        InputError: as a worker raised it, or a task's workers die again and again.
    """
    if not numbers:
        return
    job.store.forget_tries()
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # A shard may take hours on a CPU.
    context.execution_no_progress_timeout_s = -1
    # Every finished shard is reported at once; otherwise Ray Data collects 128 MiB of numbers first.
    context.target_max_block_size = 1
    size = max(1, min(LARGEST_TASK, len(numbers) // (2 * pool.workers)))
    tasks = [{"shards": list(numbers[at : at + size])} for at in range(0, len(numbers), size)]
    done = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        ShardEncoder,
        fn_constructor_args=(replace(job, workers=pool.cpus - 1 if job.workers else 0), settings),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(pool.workers, len(tasks))),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    try:
        with _native_messages_off():
            for row in done.iter_rows():
                progress(job.with_content([row["shard"]]))
    except ray.exceptions.RayError as error:
        raise _told(error) from None


class ShardEncoder:
    """A process of the cluster that keeps the model loaded.

    Args:
        job: whose shards it encodes.
        settings: which model.
    """

    def __init__(self, job: Job, settings: ClipSettings) -> None:
        self.job, self.settings = job, settings
        self.clip: Clip | None = None

    def __call__(self, batch: dict) -> Iterator[dict]:
        """Encode and write the shards of a task, if the model here has the weights that the job was made for."""
        from llmemf.features.clip import load_clip
        from llmemf.features.encoding import encode_shards

        numbers = [int(number) for number in batch["shards"][0]]
        # Ray Data repeats the task of a dead worker without end.
        if self.job.store.count_try(numbers[0]) > TRIES:
            raise InputError(
                f"{TRIES} workers of the cluster died over shard {numbers[0]} or the next ones: look for their memory "
                "and the images there; finished shards are kept, run the same command again"
            )
        # Loaded with the first task and not with the actor: Ray would report a mistake there as a dead actor.
        self.clip = self.clip or load_clip(self.settings)
        for number in encode_shards(self.job, self.clip, numbers):
            yield {"shard": [number]}


@contextmanager
def _native_messages_off() -> Iterator[None]:
    """Ray's C++ core warns of how Ray Data starts its actors, past Python and straight to the standard error."""
    sys.stderr.flush()
    before, terminal = sys.stderr, os.dup(2)
    with Path(os.devnull).open("w") as nowhere, os.fdopen(terminal, "w", buffering=1) as sys.stderr:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            sys.stderr = before


def _check_answers(address: str) -> None:
    """Raise InputError unless a server listens at the address: Ray itself would try for many minutes."""
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


def _told(error: BaseException) -> InputError:
    """A failure of the cluster in one line: the mistake that a worker reported, or what Ray says."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause) in (InputError, StorageError):
            return InputError(str(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    return InputError(
        f"the cluster gave up ({' '.join(str(error).split())[:300]}); finished shards are kept, run the same command again"
    )
