"""Checks of a sweep's folder and servers before it starts, and the lock on its folder while it runs."""

from __future__ import annotations

import fcntl
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from llmemf.errors import InputError
from llmemf.io import make_folder
from sweeps.cluster.resources import HasAddresses


def check_writable(folder: Path) -> None:
    """Create a folder and write into it.

    Raises:
        InputError: that is not possible.
    """
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 65536)
            file.flush()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): free some space or rights, or give another --storage"
        ) from None


def check_reachable(record: HasAddresses) -> None:
    """Try to connect to the tracking server and the Ray cluster, where they are named by an address.

    Raises:
        InputError: nobody answers there.
    """
    parts = urlsplit(record.tracking_uri)
    if parts.scheme in ("http", "https"):
        problem = _no_answer(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        if problem:
            raise InputError(
                f"no tracking server answers at {record.tracking_uri} ({problem}): start it, or leave --tracking-uri out"
            )
    host, _, port = (record.ray_address or "").removeprefix("ray://").partition(":")
    if port.isdecimal():
        problem = _no_answer(host, int(port))
        if problem:
            raise InputError(
                f"no Ray cluster answers at {record.ray_address} ({problem}): start it, or leave --ray-address out"
            )


def _no_answer(host: str | None, port: int, timeout: float = 3.0) -> str:
    """Why nobody answers there, "" if somebody does."""
    try:
        socket.create_connection((host or "", port), timeout=timeout).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def disk_full(folder: Path, resume_command: str) -> InputError:
    """The error for a disk without space, with the command that continues."""
    return InputError(f"no space left for {folder}: free some, then continue with: {resume_command}")


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the sweep's folder: two drivers of one sweep would overwrite each other.

    Raises:
        InputError: another process holds it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"sweep {name!r} is running in another process") from None
        for path in folder.glob(".*.tmp"):  # what a killed holder was about to write
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
