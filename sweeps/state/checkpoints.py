"""The checkpoints of one trial, in the sweep's folder: each is there whole or not at all, and the newest two are kept.

    trials/t07/epoch-0004/   state.pt, best.safetensors, config.yaml (see `llmemf.checkpoint`), report.json

The report of a checkpoint's epoch lies beside it. A trial that continues reports it first: its driver may have died between
the checkpoint and the report.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from llmemf.io import atomic_folder
from sweeps.state.trial_records import trial_name

NUM_KEPT = 2
REPORT = "report.json"
STATE = "state.pt"
WEIGHTS = "best.safetensors"


def trial_folder(sweep: Path, number: int) -> Path:
    """The folder of a trial in its sweep's folder."""
    return sweep / "trials" / trial_name(number)


def stored(folder: Path) -> list[Path]:
    """Checkpoints of a trial, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if re.fullmatch(r"epoch-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("epoch-")), reverse=True)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a trial."""
    return next(iter(stored(folder)), None)


def weights(sweep: Path, number: int) -> Path | None:
    """Where the weights of a trial lie, if they are kept."""
    path = newest(trial_folder(sweep, number))
    return path if path is not None and (path / WEIGHTS).exists() else None


def save(trainer: Any, folder: Path, report: dict[str, Any]) -> None:
    """Write a checkpoint of this epoch and its report, on the disk before it appears under its name.

    Args:
        trainer: has `save(folder)`.
        folder: the trial's folder.
        report: what will be reported of the epoch.

    Raises:
        StorageError: it cannot be written; the older ones are still there.
    """
    with atomic_folder(folder / f"epoch-{report['epoch']:04d}") as temporary:
        trainer.save(temporary)
        (temporary / REPORT).write_text(json.dumps(report))
    for old in stored(folder)[NUM_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load(make_trainer: Callable[[], Any], folder: Path) -> tuple[Any, dict[str, Any] | None]:
    """A trainer that continues from the newest checkpoint that can be read, and that epoch's report.

    Returns:
        a fresh trainer and None where the trial has no checkpoint.

    Raises:
        InputError: there are checkpoints, and none of them can be read.
    """
    problem: Exception | None = None
    for path in stored(folder):
        trainer = make_trainer()
        try:
            trainer.load(path)
            return trainer, json.loads((path / REPORT).read_text())
        except (InputError, OSError, ValueError) as error:
            problem = error
    if problem is not None:
        raise problem
    return make_trainer(), None


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed process was about to write."""
    for path in folder.glob(".epoch-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def keep_weights(folder: Path) -> None:
    """Leave of an ended trial what scores it: the weights of its best epoch and their configuration."""
    kept = newest(folder)
    for path in stored(folder):
        if path != kept:
            shutil.rmtree(path, ignore_errors=True)
    if kept:
        # A file that cannot be removed costs disk space, and nothing else.
        with suppress(OSError):
            (kept / STATE).unlink()
