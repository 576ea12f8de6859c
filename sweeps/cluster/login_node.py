"""A machine outside the cluster that drives a sweep: Ray wants a node of the cluster on it, so one is lent to it.

`python -m sweeps.cluster.login_node HOST:PORT FOLDER BYTES PARENT` is that node: it has no CPUs and no GPUs, keeps everything in
FOLDER, and ends with the process PARENT that started it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from llmemf.features.ray_access import python_path, refused
from sweeps.cluster.ray_private import own_address, run_node

START_SECONDS = 90.0
LABEL = "llmemf"
READY = "Ray runtime started"
PR_SET_PDEATHSIG = 1


def has_node(address: str) -> bool:
    """Whether this machine belongs to the cluster; a node that another sweep borrowed does not count."""
    return any(
        same_machine(flags.get("gcs-address", ""), address)
        and LABEL not in flags.get("labels", "")
        # Processes of containers are seen from outside, their sockets are not.
        and Path(flags.get("raylet_socket_name", "")).is_socket()
        for flags in running_nodes()
    )


def running_nodes() -> list[dict[str, str]]:
    """The options of every node process of Ray on this machine."""
    import ray  # noqa: F401 - brings psutil along
    from psutil import process_iter

    commands = [process.info["cmdline"] or [""] for process in process_iter(["cmdline"])]
    return [
        dict(word.removeprefix("--").split("=", 1) for word in command[1:] if word.startswith("--") and "=" in word)
        for command in commands
        if Path(command[0]).name == "raylet"
    ]


def same_machine(one: str, other: str) -> bool:
    """Whether two HOST:PORT mean the same."""

    def resolved(address: str) -> tuple[str, str]:
        host, _, port = address.rpartition(":")
        try:
            return own_address(socket.gethostbyname(host)), port
        except OSError:
            return host, port

    return resolved(one) == resolved(other)


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
        with log.open("w") as file:
            # A group of its own: Ctrl-C must reach the sweep alone, which still needs this node to stop in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.cluster.login_node", *facts],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONPATH": python_path()},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while READY not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text().strip().splitlines()
                self.stop()
                raise refused(address, lines[-1] if lines else "it does not answer")
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
    options = ["--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", object_store_bytes]
    options += ["--temp-dir", folder, "--labels", f"{LABEL}=driver", "--disable-usage-stats", "--block"]
    try:
        run_node(["--address", address, *options])
    finally:
        if os.getppid() != int(parent):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
