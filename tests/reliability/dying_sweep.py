"""Run `fake_sweep.py NAME` on a real Ray; the driver is killed at the first event of a kind: `dying_sweep.py NAME KIND PATH`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "sweeps")]

from durable_events import Event, Recorder
from fake_sweep import main


def run(name: str, kind: str, path: str) -> int:
    """Die before the first event of this kind whose path, or target, contains `path`."""

    def before(event: Event) -> None:
        if event.kind == kind and path in event.path + event.target:
            os.kill(os.getpid(), signal.SIGKILL)

    with Recorder(Path.cwd(), before, disk=False):
        return main(name, resume=False)


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
