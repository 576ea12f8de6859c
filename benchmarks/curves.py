"""Learning curves of a whole grid over seeds: recorded by the project's own sweeps, kept in one table for replays.

The table has one row per setting, seed and epoch: the settings, `seed`, `epoch`, `objective` (best so far, what a search
sees) and `val_mrr` (of that epoch alone). It holds validation only.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from llmemf.errors import InputError
from sweeps.search.block import Block
from sweeps.search.space import Space
from sweeps.search.space_entries import build_space
from sweeps.state.sweep_record import RECORD, SweepRecord
from sweeps.state.sweep_state import SweepState

GRID = Path(__file__).resolve().parent.parent / "sweeps" / "grid.py"
OTHER_COLUMNS = ("seed", "epoch", "objective", "val_mrr")
Between = Literal["cells", "linear"]


def record(name: str, seeds: Iterable[int], storage: Path, options: Sequence[str]) -> list[Path]:
    """Run the whole grid once per seed, or continue it; every seed is a sweep, so that each one finished can be used.

    Args:
        options: of `sweeps/grid.py`: scenario, epochs, settings, resources.

    Returns:
        the folders of the sweeps.

    Raises:
        InputError: a sweep stopped.
    """
    folders = []
    for seed in seeds:
        sweep = f"{name}-seed{seed}"
        command = [sys.executable, str(GRID), "--continue", "--name", sweep, "--seed", str(seed)]
        command += ["--storage", str(storage), "--search", "grid", "--scheduler", "none", "--set", "patience=0"]
        command += options
        code = subprocess.run(command, check=False).returncode
        if code:
            raise InputError(f"sweep {sweep} ended with code {code}: run the same command again to continue")
        folders.append(storage / "sweeps" / sweep)
    return folders


def gather(folders: Iterable[Path]) -> pd.DataFrame:
    """The curves of all completed trials of sweeps that differ in nothing but their seed.

    Raises:
        InputError: they differ in more than that.
    """
    rows: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for folder in folders:
        sweep = SweepRecord.load(folder)
        facts = {
            key: getattr(sweep, key) for key in ("model", "scenario", "fingerprint", "fixed", "space", "scheduler")
        }
        for key, value in facts.items():
            if shared.setdefault(key, value) != value:
                raise InputError(f"{folder / RECORD}: {key} differs from the other sweeps': record them alike")
        state = SweepState(folder)
        for event in state.epochs():
            trial, result = state.records[event["trial"]], event["result"]
            if trial.outcome == "completed":
                settings = {key: _plain(value) for key, value in trial.config.items() if key != "seed"}
                seed = trial.config.get("seed", sweep.seed)
                values = {"epoch": result["epoch"], "objective": result["objective"], "val_mrr": result["val/mrr"]}
                rows.append({**settings, "seed": seed, **values})
    if not rows:
        raise InputError("no trial has been completed yet")
    return pd.DataFrame(rows).sort_values([*settings, "seed", "epoch"], ignore_index=True)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else str(value)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `gather` made.

    Raises:
        InputError: there is none.
    """
    try:
        return pd.read_csv(path, float_precision="round_trip")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): make it with `search_efficiency.py record`") from None


@dataclass(frozen=True)
class Curves:
    """The recorded curves of a whole grid.

    Attributes:
        space: of the grid.
        seeds: those of which every grid point was recorded to its end.
        objective: best so far, (points, seeds, epochs); points in the order of `Space.point`.
        left_out: seeds that lack something.
    """

    space: Space
    seeds: tuple[int, ...]
    objective: np.ndarray
    left_out: tuple[int, ...] = ()

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Curves:
        """Raises:
        InputError: the settings are not a whole grid, or no seed is complete.
        """
        lacking = [name for name in OTHER_COLUMNS if name not in table]
        if lacking:
            raise InputError(f"the table lacks the column {lacking[0]}")
        keys = [key for key in table if key not in OTHER_COLUMNS and table[key].nunique() > 1]
        if not keys:
            raise InputError("no setting differs between the rows of the table")
        space = build_space({key: sorted(table[key].unique().tolist()) for key in keys})
        epochs = int(table["epoch"].max())
        points = [tuple(space.point(index)[key] for key in keys) for index in range(space.size)]
        if set(points) != set(table[keys].itertuples(index=False, name=None)):
            raise InputError(f"the table is not a whole grid: {space.size} points of {', '.join(keys)} are expected")
        if table.duplicated([*keys, "seed", "epoch"]).any():
            raise InputError("an epoch stands twice in the table")
        whole = table.set_index([*keys, "seed", "epoch"])["objective"]
        all_seeds = sorted(int(seed) for seed in table["seed"].unique())
        needed = space.size * epochs
        seeds = tuple(seed for seed in all_seeds if int((table["seed"] == seed).sum()) == needed)
        if not seeds:
            raise InputError(f"no seed has all {space.size} points to epoch {epochs}: continue with `record`")
        values = [[[whole[(*p, s, e)] for e in range(1, epochs + 1)] for s in seeds] for p in points]
        return cls(space, seeds, np.array(values), tuple(seed for seed in all_seeds if seed not in seeds))

    @property
    def epochs(self) -> int:
        return self.objective.shape[2]

    @cached_property
    def final(self) -> np.ndarray:
        """Mean over seeds of the objective after the last epoch, (points,)."""
        return self.objective[:, :, -1].mean(axis=1)

    def averaged(self) -> Curves:
        """Curves as they would be without the noise of one seed: the mean over seeds, as if it were one seed."""
        return Curves(self.space, (0,), self.objective.mean(axis=1, keepdims=True), self.left_out)

    def mixture(self, choice: Mapping[str, Any], between: Between = "cells") -> list[tuple[int, float]]:
        """The grid points that stand for settings, with their weights.

        Args:
            choice: settings inside the space, not only grid values.
            between: `cells`: each of n grid values stands for an n-th of the range, in the space's own scale (log where it
                searches so), so that a random draw meets every point of an even grid with the same probability; `linear`:
                interpolated between all corners around the settings.
        """
        mixed = [((), 1.0)]
        for block in self.space.grid_blocks:
            parts = _places(block, choice[block.keys[0]], between)
            mixed = [((*place, index), weight * part) for place, weight in mixed for index, part in parts]
        shape = [len(block.points) for block in self.space.grid_blocks]
        return [(int(np.ravel_multi_index(place, shape)), weight) for place, weight in mixed]

    def curve(self, mixture: Iterable[tuple[int, float]], seed_of: np.ndarray) -> np.ndarray:
        """Objective after each epoch, (epochs,).

        Args:
            seed_of: which recorded seed each point has, (points,).
        """
        return sum(weight * self.objective[point, seed_of[point]] for point, weight in mixture)

    def truth(self, mixture: Iterable[tuple[int, float]]) -> float:
        """Mean over seeds of the final objective."""
        return float(sum(weight * self.final[point] for point, weight in mixture))


def _places(block: Block, value: Any, between: Between) -> list[tuple[int, float]]:
    """Places among a block's grid values, which ascend, with their weights."""
    grid = [point[0] for point in block.points]
    if block.kind != "float":
        return [(grid.index(value), 1.0)]
    scale = np.log if block.log else np.asarray
    at = float(np.interp(scale(value), scale(grid), np.arange(len(grid))))
    if between == "cells":
        # A grid value's place k of 0 .. n-1 becomes k n / (n-1), which lies between k and k + 1.
        return [(min(int(at * len(grid) / (len(grid) - 1)), len(grid) - 1), 1.0)]
    low = min(int(at), len(grid) - 2)
    return [(low, 1 - (at - low)), (low + 1, at - low)]
