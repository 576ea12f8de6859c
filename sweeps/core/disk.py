"""Disk space of sweeps: how much each uses, and what can be removed."""

from __future__ import annotations

import datetime
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmemf.errors import InputError
from sweeps.state import checkpoints
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.sweep_record import RECORD, TUNE, SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_writer import mlflow_client


@dataclass
class Holding:
    """One sweep on the disk.

    Attributes:
        running: whether a driver holds it at this moment.
        bytes: what its folder holds: `weights` of ended trials, `states` of unfinished ones, `other`.
        leftovers: what nothing needs any more: path -> why.
        changed: when it was last written to.
    """

    record: SweepRecord
    running: bool
    bytes: dict[str, int]
    leftovers: dict[Path, str] = field(default_factory=dict)
    changed: datetime.datetime = datetime.datetime.min

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def total(self) -> int:
        return sum(self.bytes.values())

    @property
    def removable(self) -> int:
        return sum(size(path) for path in self.leftovers)


def holdings(storage: Path, keep: int | None = None) -> list[Holding]:
    """All sweeps of a storage folder, the oldest first.

    Args:
        keep: how many trials of each may keep their weights; None leaves it to each sweep's own setting.

    Raises:
        InputError: a record or an event log is damaged.
    """
    found = [_holding(path.parent, storage, keep) for path in sorted((storage / "sweeps").glob(f"*/{RECORD}"))]
    return sorted(found, key=lambda holding: holding.changed)


def _holding(folder: Path, storage: Path, keep: int | None) -> Holding:
    record = SweepRecord.load(folder)
    record.storage = str(storage)
    running = _is_locked(folder)
    states = sum(size(path) for path in folder.rglob(checkpoints.STATE))
    weights = sum(size(path) for path in (folder / "trials").glob("*")) - states + size(folder / "best")
    log = folder / EVENT_LOG
    changed = datetime.datetime.fromtimestamp((log if log.exists() else folder).stat().st_mtime)
    parts = {"weights": weights, "states": states, "other": size(folder) - weights - states}
    leftovers = {} if running else dict(_leftovers(folder, record.keep if keep is None else keep))
    return Holding(record, running, parts, leftovers, changed)


def _leftovers(folder: Path, keep: int) -> Iterator[tuple[Path, str]]:
    if (folder / TUNE).exists():
        yield folder / TUNE, "Ray Tune's own files, not needed to resume"
    state = SweepState(folder)
    kept = {checkpoints.trial_folder(folder, record.number) for record in CheckpointRetention.best(state, keep)}
    for record in state.records.values():
        own = checkpoints.trial_folder(folder, record.number)
        if not own.exists():
            continue
        if record.ended and not record.is_retried and own not in kept:
            yield own, f"{record.outcome}, not among the best {keep}"
        elif record.ended and not record.is_retried:
            for path in own.glob(f"*/{checkpoints.STATE}"):
                yield path, "state of a trial that has ended"
        else:
            for path in own.glob(".*.tmp"):
                yield path, "a checkpoint that a killed process had begun"


def remove(holding: Holding) -> None:
    """Remove the leftovers of a sweep."""
    for path in holding.leftovers:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def delete(holding: Holding) -> int:
    """Delete a whole sweep: its folder, its runs in MLflow (as deleted: `mlflow gc` purges them) and local artifacts.

    Returns:
        how many runs were deleted.

    Raises:
        InputError: it is running, or MLflow does not answer; nothing is deleted then.
    """
    record = holding.record
    if holding.running or _is_locked(record.folder):
        raise InputError(f"sweep {record.name!r} is running: stop it first")
    try:
        client = mlflow_client(record.tracking_uri)
        experiment = client.get_experiment_by_name(record.scenario)
        runs = []
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], f"tags.sweep = '{record.name}'", max_results=1000)
            if not page:
                break
            for run in page:
                client.delete_run(run.info.run_id)
            runs += page
    except Exception as error:
        raise InputError(
            f"the runs of {record.name!r} could not be deleted at {record.tracking_uri} ({error}): start the server"
        ) from error
    for run in runs:
        if run.info.artifact_uri.startswith("file://"):
            shutil.rmtree(Path(run.info.artifact_uri.removeprefix("file://")).parent, ignore_errors=True)
    shutil.rmtree(record.folder)
    return len(runs)


def size(path: Path) -> int:
    """Bytes of a file or of all files below a folder; 0 where there is nothing."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def _is_locked(folder: Path) -> bool:
    path = folder / ".lock"
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
