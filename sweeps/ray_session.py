"""Ray, started here or joined, and its logs kept off the terminal."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmemf.errors import InputError
from sweeps.plan import Plan
from sweeps.resources import machine, slots
from sweeps.settings import SweepRecord
from sweeps.sweep_data import SweepData

ROOT = Path(__file__).resolve().parent.parent
OBJECT_STORE_EXTRA = 200 * 2**20


RAY_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_BACKEND_LOG_LEVEL": "error",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def start_ray(plan: Plan, data: SweepData) -> int:
    """Start Ray here, or connect to a cluster; returns how many trials run at once.

    Raises:
        InputError: no cluster answers, or not even one trial fits.
    """
    import ray

    # Workers must import this checkout and no other copy.
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    if plan.record.ray_address:
        environment = {"env_vars": {"PYTHONPATH": python_path}}
        options = {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": environment}
        try:
            ray.init(address=plan.record.ray_address, **options)
        except ConnectionError as error:
            raise InputError(
                f"no Ray cluster answers at {plan.record.ray_address}: {' '.join(str(error).split())}"
            ) from None
        return slots(plan.record, ray.cluster_resources(), where="the cluster")
    here = machine()
    parallel = slots(plan.record, here)
    os.environ["PYTHONPATH"] = python_path
    ray.init(
        address="local",
        num_cpus=int(here["CPU"]),
        num_gpus=int(here["GPU"]),
        include_dashboard=False,
        object_store_memory=data_bytes(data) + OBJECT_STORE_EXTRA,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return parallel


def set_environment(ray_address: str | None) -> None:
    """Settings that Ray reads when it is imported."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if ray_address and token.exists():
        # A cluster that was started where a token lies asks for it; Ray sends it only when told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.update({key: os.environ.get(key, value) for key, value in RAY_SETTINGS.items()})
    warnings.filterwarnings("ignore", module="ray")
    if not os.access(Path.home(), os.W_OK):
        # Ray keeps the token of a local cluster in the home directory.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")


def stop_ray() -> None:
    import ray

    ray.shutdown()


def data_bytes(data: SweepData) -> int:
    """Upper bound of what trials share through the object store."""
    matrices = sum(4 * matrix.rows.size for matrix in data.features.values())
    scenario = data.scenario
    parts = sum(
        getattr(scenario.split(name), part).nbytes for name in ("train", "valid") for part in ("items", "times")
    )
    return matrices + parts + scenario.candidates["valid"].nbytes


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
        if f"[Errno {errno.ENOSPC}]" in text:
            self.stop("the disk is full")
        try:
            with self.path.open("a") as file:
                file.write(text + "\n")
        except OSError:
            self.handleError(record)


@contextmanager
def quiet(record: SweepRecord) -> Iterator[LogWatch]:
    """Keep the logs of Ray, MLflow and Optuna off the terminal: they go to the sweep's `ray.log`."""
    set_environment(record.ray_address)
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
