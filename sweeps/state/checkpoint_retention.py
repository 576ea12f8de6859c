"""Which weights a sweep keeps: those of its best trials, and of trials that may become the best over seeds."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from llmemf.io import atomic_folder
from sweeps.state import checkpoints
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, ranked


class CheckpointRetention:
    """Keeps the weights of the best trials and removes what ended trials no longer need, as soon as they end.

    Args:
        folder: the sweep's folder.
        keep: how many trials keep their weights.
    """

    def __init__(self, folder: Path, state: SweepState, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.kept: list[TrialRecord] = []
        for record in state.records.values():
            if record.ended:
                self.end(record)

    @staticmethod
    def best(state: SweepState, keep: int) -> list[TrialRecord]:
        """The trials whose weights are worth keeping, the best first."""
        return _holding(state.records.values())[:keep]

    def end(self, record: TrialRecord) -> None:
        """A trial has ended: its weights stay if it is among the best or repeated; it may push out another.

        One that was set aside keeps all, since it may be tried again. The weights of a repeat are not kept.
        """
        if not record.ended:
            return
        checkpoints.keep_weights(checkpoints.trial_folder(self.folder, record.number))
        candidates = [*self.kept, record]
        holding = _holding(candidates)
        # Repeats rank the trials anew: who leads by its first seed may be repeated next.
        first = sorted(holding, key=lambda item: (-(item.objective or 0.0), item.number))[: self.keep]
        kept = {item.number for item in (*holding[: self.keep], *first)}
        self.kept = [item for item in holding if item.number in kept or item.repeated_by]
        for item in candidates:
            if item not in self.kept:
                shutil.rmtree(checkpoints.trial_folder(self.folder, item.number), ignore_errors=True)

    def weights(self) -> dict[str, Path]:
        """Name of a trial -> folder with its weights, the best trial first."""
        found = {}
        for record in self.kept:
            path = checkpoints.newest(checkpoints.trial_folder(self.folder, record.number))
            if path:
                found[record.name] = path
        return found


def _holding(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Ended trials with a value that counts, the best first."""
    ended = [record for record in records if record.outcome in ("completed", "pruned")]
    return [record for record in ranked(ended) if record.objective is not None]


def keep_best(source: Path, folder: Path) -> Path:
    """Copy the weights and settings of the best trial to `best/` in the sweep's folder."""
    with atomic_folder(folder / "best") as temporary:
        for name in ("best.safetensors", "config.yaml"):
            shutil.copy2(source / name, temporary / name)
    return folder / "best"
