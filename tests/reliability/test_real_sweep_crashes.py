"""The driver of a sweep on a real Ray is killed at each kind of durable event; `--resume` comes to the same sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.state.sweep_state import SweepState

pytestmark = pytest.mark.chaos

HERE = Path(__file__).resolve().parent
SWEEPS = HERE.parent / "sweeps"
PLACES = {
    "a line of the log is flushed": ("fsync", "journal.jsonl"),
    "the record gets its name": ("rename", "/sweep.yaml"),
    "the best weights get their name": ("rename", "/best"),
    "the leaderboard gets its name": ("rename", "/leaderboard.csv"),
}


def command(folder: Path, *arguments: str) -> int:
    """Run a script to its end; its exit status."""
    environment = {**os.environ, "HOME": str(folder), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(SWEEPS)}
    with (folder / "out.txt").open("a") as out:
        run = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=out, stderr=out, check=False, timeout=240
        )
    return run.returncode


def values_of(folder: Path) -> dict[str, list[float]]:
    return {
        str(record.config): record.values for record in SweepState(folder / "mlruns" / "sweeps" / "s").records.values()
    }


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("calm")
    assert command(folder, str(SWEEPS / "fake_sweep.py"), "s") == 0, (folder / "out.txt").read_text()[-2000:]
    return values_of(folder)


@pytest.mark.parametrize("place", PLACES)
def test_a_driver_that_is_killed_where(place, calm, tmp_path):
    assert command(tmp_path, str(HERE / "dying_sweep.py"), "s", *PLACES[place]) == -signal.SIGKILL
    arguments = ["s", "--resume"] if (tmp_path / "mlruns/sweeps/s/sweep.yaml").exists() else ["s"]
    assert command(tmp_path, str(SWEEPS / "fake_sweep.py"), *arguments) == 0, (tmp_path / "out.txt").read_text()[-2000:]
    found = values_of(tmp_path)
    assert len(found) == len(calm)
    for point, values in found.items():
        # Successive halving may end a trial at another rung after an interruption, never with other numbers.
        assert all(ours == theirs for ours, theirs in zip(values, calm.get(point, values))), point
