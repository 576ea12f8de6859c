"""A sweep in a terminal, and with a reader that goes away."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SWEEP = [
    *(sys.executable, str(ROOT / "sweeps" / "grid.py"), "--scenario", "sample", "--model", "popularity"),
    *("--trials", "1", "--epochs", "1", "--name", "s1"),
]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("environment")
def test_a_sweep_in_a_terminal_ends_without_a_traceback(sweep_folder):
    process, terminal = pty.fork()
    if not process:
        os.execv(SWEEP[0], SWEEP)
    shown = b""
    while True:
        try:
            shown += (piece := os.read(terminal, 65536))
        except OSError:  # the terminal is closed
            break
        if not piece:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    text = shown.decode(errors="replace")
    assert "planning" in text and "completed" in text and "browse" in text
    assert "Traceback" not in text and "Exception ignored" not in text


@pytest.mark.usefixtures("environment")
def test_a_sweep_whose_reader_goes_away_comes_to_its_end(sweep_folder):
    with (sweep_folder / "errors").open("w") as errors:
        sweep = subprocess.Popen(SWEEP, cwd=sweep_folder, stdout=subprocess.PIPE, stderr=errors)
        sweep.stdout.readline()
        sweep.stdout.close()
        assert sweep.wait(timeout=300) == 0
    assert (sweep_folder / "errors").read_text() == ""
    assert "status: completed" in (sweep_folder / "mlruns" / "sweeps" / "s1" / "sweep.yaml").read_text()
