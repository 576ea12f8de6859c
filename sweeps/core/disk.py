"""Disk space of sweeps: how much each uses, and what can be removed."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from llmemf.errors import InputError
from llmemf.io import writable_folder
from sweeps.core.storage import is_locked
from sweeps.state import checkpoints
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.home import is_elsewhere
from sweeps.state.sweep_record import TUNE, SweepRecord, left_out, stored_sweeps
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.addresses import database, one_line
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import RunOwner


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
    leftovers: dict[Path, str]
    changed: datetime.datetime

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def elsewhere(self) -> str:
        """The folder that owns its runs in MLflow, where it was copied or moved; "" where it owns them itself."""
        return self.record.home if is_elsewhere(self.record) else ""

    @property
    def total(self) -> int:
        return sum(self.bytes.values())

    @property
    def removable(self) -> int:
        return sum(size(path) for path in self.leftovers)


def holdings(storage: Path, keep: int | None = None) -> list[Holding]:
    """All sweeps of a storage folder, the oldest first; of what cannot be read a notice says so, and it is left alone.

    Args:
        keep: how many trials of each may keep their weights; None leaves it to each sweep's own setting.
    """
    found = []
    for record in stored_sweeps(storage):
        # A link leads to the sweep of another storage folder.
        if record.folder.is_relative_to(storage):
            try:
                found.append(_holding(record, keep))
            except InputError as error:
                left_out(str(error))
    return sorted(found, key=lambda holding: holding.changed)


def _holding(record: SweepRecord, keep: int | None) -> Holding:
    folder = record.folder
    running = is_locked(folder)
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
        if record.ended and own not in kept:
            yield own, f"{record.outcome}, not among the best {keep}"
        elif record.ended:
            for path in own.glob(f"*/{checkpoints.STATE}"):
                yield path, "state of a trial that has ended"
        else:
            for path in own.glob(".*.tmp"):
                yield path, "a checkpoint that a killed process had begun"


def remove(holding: Holding) -> None:
    """Remove the leftovers of a sweep.

    Raises:
        InputError: one cannot be removed.
    """
    for path in holding.leftovers:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        if path.exists():
            raise InputError(f"{path} cannot be removed: {error.strerror}") from None


def delete(holding: Holding) -> int:
    """Delete a whole sweep: its folder, its runs in MLflow (as deleted: `mlflow gc` purges them) and local artifacts.

    Of a sweep that was copied or moved, and of one whose runs another folder has taken over, the folder alone.

    Returns:
        how many runs were deleted.

    Raises:
        InputError: it is running, its folder cannot be written, or MLflow does not answer; nothing is deleted then.
    """
    record = holding.record
    if holding.running or is_locked(record.folder):
        raise InputError(f"sweep {record.name!r} is running: stop it first")
    writable_folder(record.folder.resolve())
    file, runs = database(record.tracking_uri), []
    if not holding.elsewhere and (file is None or file.exists()):
        try:
            runs = _delete_runs(record)
        except Exception as error:
            raise InputError(
                f"the runs of {record.name!r} could not be deleted at {record.tracking_uri} ({one_line(error)}): start the "
                "server"
            ) from error
    for run in runs:
        address = urlsplit(run.info.artifact_uri)
        folder = Path(url2pathname(address.path)).parent
        # A local folder that holds nothing else.
        if address.scheme == "file" and folder.name == run.info.run_id and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
    _remove(record.folder.resolve())
    if record.folder.is_symlink():
        record.folder.unlink()
    return len(runs)


def _delete_runs(record: SweepRecord) -> list[Any]:
    owner, client = RunOwner.of(record), mlflow_client(record.tracking_uri)
    experiment = client.get_experiment_by_name(record.scenario)
    runs = [] if experiment is None else owner.find(client, experiment.experiment_id)
    if owner.other(runs):
        return []
    for run in runs:
        client.delete_run(run.info.run_id)
    return runs


def size(path: Path) -> int:
    """Bytes of a file or of all files below a folder; 0 where there is nothing."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
