"""The driver of a sweep on a real Ray is killed at its start and at its end; `--resume` comes to the same sweep.

All other places, without a real Ray: `test_sweep_crashes.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_fakes import objective

from sweeps.state.sweep_state import SweepState

pytestmark = pytest.mark.chaos

HERE = Path(__file__).resolve().parent
SWEEPS = HERE.parent / "sweeps"
PLACES = {
    "a line of the log is flushed": ("fsync", "journal.jsonl"),
    "the best weights get their name": ("rename", "/best"),
}


def command(folder: Path, *arguments: str) -> int:
    """Run a script to its end; its exit status."""
    environment = {**os.environ, "HOME": str(folder), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(SWEEPS)}
    with (folder / "out.txt").open("a") as out:
        run = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=out, stderr=out, check=False, timeout=240
        )
    return run.returncode


@pytest.mark.parametrize("place", PLACES)
def test_a_driver_that_is_killed_where(place, tmp_path):
    assert command(tmp_path, str(HERE / "dying_sweep.py"), "s", *PLACES[place]) == -signal.SIGKILL
    # Before the sweep has a record there is nothing to resume: the same command starts it.
    again = ["s", "--resume"] if (tmp_path / "mlruns/sweeps/s/sweep.yaml").exists() else ["s"]
    assert command(tmp_path, str(SWEEPS / "fake_sweep.py"), *again) == 0, (tmp_path / "out.txt").read_text()[-2000:]
    records = SweepState(tmp_path / "mlruns" / "sweeps" / "s").records.values()
    assert len({str(record.config) for record in records}) == 6
    for record in records:
        # Successive halving may end a trial at another rung after an interruption, never with other numbers.
        assert record.values == [objective(record.config, epoch) for epoch in range(1, record.epoch + 1)]
