"""A machine outside the cluster that drives a sweep: Ray wants a node of the cluster on it, so one is lent to it.

`python -m sweeps.login_node HOST:PORT FOLDER BYTES PARENT` is that node: it has no CPUs and no GPUs, keeps everything in
FOLDER, and ends with the process PARENT that started it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from llmemf.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 90.0
LABEL = "llmemf"
READY = "Ray runtime started"
PR_SET_PDEATHSIG = 1


def has_node(address: str) -> bool:
    """Whether this machine belongs to the cluster; a node that another sweep borrowed does not count.

    Raises:
        InputError: the cluster does not answer.
    """
    from ray._private.services import find_node_ids
    from ray._raylet import GcsClient
    from ray.exceptions import RayError

    here = set(find_node_ids())
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=30)
    except (RayError, RuntimeError, TimeoutError, OSError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from None
    return any(
        identity.hex() in here and LABEL not in info.labels and Path(info.raylet_socket_name).exists()
        for identity, info in nodes.items()
    )


class BorrowedNode:
    """A node without resources on this machine, for the time of one sweep."""

    def __init__(self, address: str, folder: Path, object_store_bytes: int) -> None:
        """Start it.

        Raises:
            InputError: it cannot join the cluster.
        """
        self.folder = folder
        folder.mkdir(parents=True)
        log = folder / "start.log"
        facts = [address, str(folder), str(object_store_bytes), str(os.getpid())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with log.open("w") as file:
            # A group of its own: Ctrl-C must reach the sweep alone, which still needs this node to stop in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.login_node", *facts],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while READY not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                reason = " ".join(log.read_text().split())[-600:] or "it does not answer"
                self.stop()
                raise InputError(f"this machine cannot join the Ray cluster at {address}: {reason}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it and remove what it wrote."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def main(address: str, folder: str, object_store_bytes: str, parent: str) -> None:
    """Be the node until the parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        return
    from ray.scripts.scripts import cli

    options = ["--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", object_store_bytes]
    options += ["--temp-dir", folder, "--labels", f"{LABEL}=driver", "--disable-usage-stats", "--block"]
    try:
        cli(["start", "--address", address, *options], standalone_mode=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
