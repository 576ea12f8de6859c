"""Ray, started here or joined, and its logs kept off the terminal."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Self

from llmemf.errors import PASSING_FAULTS, STORAGE_FAULTS, InputError, storage_fault
from llmemf.features.ray_access import leave_ray, python_path, refused, set_environment
from llmemf.io import is_alive
from sweeps.cluster.check import check_cluster, cluster_room
from sweeps.cluster.login_node import BorrowedNode, has_node
from sweeps.cluster.resources import machine, slots
from sweeps.state.home import Stored
from sweeps.state.sweep_record import SweepRecord

OBJECT_STORE_EXTRA = 200 * 2**20
WATCH_SECONDS = 3.0
LOST_SECONDS = 20.0
"""A head that did not answer for so long is lost."""
BORROWED = "join_"
FRESH_SECONDS = 180
"""A session younger than this may be one that another container is about to start."""
LONGEST_FOLDER = 30
"""The path of a socket has 107 characters at most, of which Ray takes 62 and a node on a login machine 12."""
_borrowed: BorrowedNode | None = None


def start_ray(record: SweepRecord, shared_bytes: int) -> tuple[int, list[str]]:
    """Start Ray here, or connect to a cluster and check it.

    Args:
        shared_bytes: size of the data that the trials share.

    Returns:
        how many trials run at once, and notices for the user.

    Raises:
        InputError: no cluster answers, it is not fit for this sweep, not even one trial fits, or Ray does not start.
    """
    import ray

    remove_stale(temporary_folder())
    if record.ray_address:
        _join(record.ray_address, shared_bytes, {"PYTHONPATH": python_path()})
        return check_cluster(record)
    here = machine()
    parallel = slots(record, here)
    os.environ["PYTHONPATH"] = python_path()
    try:
        ray.init(
            address="local",
            num_cpus=int(here["CPU"]),
            num_gpus=int(here["GPU"]),
            include_dashboard=False,
            object_store_memory=shared_bytes + OBJECT_STORE_EXTRA,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(temporary_folder()),
        )
    except Exception as error:  # Ray raises this very class where its processes do not come up
        stop_ray()
        raise InputError(
            f"Ray did not start on this machine ({str(error).partition('. ')[0]}): it may be too busy now, so give the same "
            f"command again; Ray's logs are in {temporary_folder()}"
        ) from error
    return parallel, []


def room(record: SweepRecord) -> tuple[int, list[str]]:
    """How many trials would run at once here or on the cluster, and notices for the user; no trial is started.

    Raises:
        InputError: not even one fits, or no cluster answers.
    """
    if not record.ray_address:
        return slots(record, machine()), []
    set_environment(record.ray_address)
    try:
        _join(record.ray_address, 0, {})
        return cluster_room(record)
    finally:
        stop_ray()


def _join(given: str, shared_bytes: int, environment: dict[str, str]) -> None:
    """Connect to a cluster; a machine outside of it gets a node without resources first."""
    import ray

    global _borrowed
    address = cluster_address(given)
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": environment},
    }
    if address != "auto" and not has_node(address):
        folder = temporary_folder() / f"{BORROWED}{os.getpid()}"
        _borrowed = BorrowedNode(address, folder, shared_bytes + OBJECT_STORE_EXTRA)
        options["_temp_dir"] = str(folder)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise refused(address, f"{type(error).__name__}: {error} {error.__cause__ or ''}") from None


def cluster_address(given: str) -> str:
    """The address of a cluster's head, from the option or, for `auto`, from `RAY_ADDRESS`.

    Raises:
        InputError: an address of another kind, by which a sweep cannot run.
    """
    address = os.environ.get("RAY_ADDRESS") or given if given == "auto" else given
    if "://" in address:
        raise InputError(
            f"--ray-address {address}: a sweep runs beside its cluster, not through Ray Client or the job server; submit "
            "it: ray job submit --address http://127.0.0.1:8265 --working-dir . -- python sweeps/grid.py ... "
            "--ray-address auto"
        )
    return address


def stop_ray() -> None:
    """Leave the cluster, or end the local Ray."""
    global _borrowed
    leave_ray()
    if _borrowed:
        _borrowed.stop()
        _borrowed = None


def temporary_folder() -> Path:
    """Where the Ray of local sweeps keeps its sockets and logs; its path must be short."""
    name = f"llmemf-ray-{os.getuid()}"
    for base in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR")):
        if base and len(base) + len(name) < LONGEST_FOLDER:
            return Path(base).resolve() / name
    return Path("/tmp") / name


def remove_stale(folder: Path) -> None:
    """Remove what sweeps of this user that have ended left in Ray's folder, also those that were killed."""
    for session in [*folder.glob("session_*_*"), *folder.glob(f"{BORROWED}*")]:
        owner = re.search(r"[0-9]+$", session.name)
        with suppress(FileNotFoundError):
            fresh = time.time() - session.stat().st_mtime < FRESH_SECONDS
            if owner and not fresh and not is_alive(int(owner[0])) and not has_listener(session):
                shutil.rmtree(session, ignore_errors=True)


def has_listener(session: Path) -> bool:
    """Whether a Ray listens there; its owner may be in another container that shares this folder."""
    for path in session.rglob("sockets/*"):
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError:
                continue
            return True
    return False


class ClusterWatch:
    """Notices that the head of the cluster, or the local Ray, does not answer any more.

    Ray itself ends the process after a minute of that, without a word to MLflow.

    Args:
        on_lost: called once, from a thread, when nobody has answered for `LOST_SECONDS`.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost, self._done = on_lost, threading.Event()

    def __enter__(self) -> Self:
        import ray

        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        threading.Thread(target=self._watch, args=(host, int(port)), name="cluster watch", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()

    def _watch(self, host: str, port: int) -> None:
        answered = time.monotonic()
        while not self._done.wait(WATCH_SECONDS):
            try:
                socket.create_connection((host, port), timeout=WATCH_SECONDS).close()
                answered = time.monotonic()
            except OSError:
                if time.monotonic() - answered > LOST_SECONDS and not self._done.is_set():
                    self._on_lost()
                    return


class LogWatch(logging.Handler):
    """Writes the logs of Ray, MLflow and Optuna to a file, and asks to stop when they speak of a full disk."""

    NAMES = ("ray", "mlflow", "alembic", "optuna", "sweeps")

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.stop: Callable[[str], None] = lambda reason: None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def listen(self) -> None:
        """Become the only handler of these logs."""
        for name in self.NAMES:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [self], False
            logger.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if (number := storage_fault(text)) and number not in PASSING_FAULTS:
            self.stop(STORAGE_FAULTS[number])
        try:
            with self.path.open("a") as file:
                file.write(text + "\n")
        except OSError:
            self.handleError(record)


@contextmanager
def quiet(record: Stored) -> Iterator[LogWatch]:
    """Keep what Ray, MLflow and Optuna say off the terminal: it goes to the sweep's `ray.log`.

    So does all that others write to standard output and standard error meanwhile; the sweep's own console must hold its
    file.
    """
    if not record.ray_address:  # Ray writes a line about this one to the terminal when it connects to a cluster
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    set_environment(record.ray_address)
    with _output_to(record.folder / "ray.log"), _logs_to(record) as watch:
        yield watch


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Let output run into a file, also what compiled code writes: Ray's does so whatever it is told."""
    sys.stderr.flush()
    before = os.dup(2)
    with path.open("a", buffering=1) as file:
        os.dup2(file.fileno(), 2)
        try:
            with redirect_stdout(file):
                yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


@contextmanager
def _logs_to(record: Stored) -> Iterator[LogWatch]:
    # Imported here because Ray replaces the handlers of its loggers when it is imported.
    import ray.tune  # noqa: F401

    watch = LogWatch(record.folder / "ray.log")
    loggers = [logging.getLogger(name) for name in watch.NAMES]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    watch.listen()
    try:
        yield watch
    finally:
        logging.raiseExceptions = raising
        for logger, (handlers, propagate, level) in zip(loggers, before):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
