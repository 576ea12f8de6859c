"""Checks of a sweep's folder and servers before it starts, and the lock on its folder while it runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit

from llmemf.errors import STORAGE_FAULTS, InputError, StorageError
from llmemf.io import remove_abandoned, writable_folder
from sweeps.cluster.ray_session import cluster_address
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.home import Stored
from sweeps.tracking.addresses import SQLITE, database, unusable

BUSY_SECONDS = 5.0
"""A database that is locked for so long is not only written to."""


def check_reachable(record: Stored) -> None:
    """Try to connect to the tracking server or database and the Ray cluster, where they are named by an address.

    Raises:
        InputError: nobody answers there, no sweep can run by such an address, or the database cannot be written.
    """
    if (file := database(record.tracking_uri)) is not None:
        check_database(file)
    if problem := server_problem(record.tracking_uri):
        raise InputError(
            f"no tracking server answers at {record.tracking_uri} ({problem}): start it, or leave --tracking-uri out"
        )
    host, _, port = cluster_address(record.ray_address or "").partition(":")
    if port.isdecimal():
        problem = _no_answer(host, int(port))
        if problem:
            raise InputError(
                f"no Ray cluster answers at {record.ray_address} ({problem}): start it, or leave --ray-address out"
            )


def server_problem(uri: str) -> str:
    """Why no tracking server answers at its address, "" if it does; that of a database is no server's."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    return _no_answer(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


def _no_answer(host: str | None, port: int, timeout: float = 3.0) -> str:
    """Why nobody answers there, "" if somebody does."""
    try:
        socket.create_connection((host or "", port), timeout=timeout).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def check_database(path: Path) -> None:
    """Lock a SQLite database for writing and let it go again, where it is there.

    Raises:
        InputError: it is no database, another process holds it, or it cannot be written.
    """
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise unusable(f"{SQLITE}{path}", error) from None


def is_storage_fault(error: BaseException) -> TypeGuard[OSError]:
    """Whether a driver ended because files could not be written."""
    return isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in STORAGE_FAULTS)


def stopped_by_storage(error: OSError, resume_command: str) -> StorageError:
    """The error for files that could not be written, with the command that continues."""
    meaning = STORAGE_FAULTS.get(error.errno or 0, "the storage cannot be written")
    return StorageError(f"{meaning} ({error}): mend that, then continue with: {resume_command}", error.errno)


@contextmanager
def held(folder: Path, name: str, record: Path) -> Iterator[None]:
    """Make a folder and hold it while it is written: two drivers of one sweep would overwrite each other.

    A new folder that is left by an `InputError` before anything was logged is removed again.

    Args:
        folder: of a sweep or a group.
        name: its name, for messages.
        record: its record's file.

    Raises:
        InputError: it cannot be written, or another process holds it.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        writable_folder(folder)
    except StorageError as error:
        raise InputError(f"{error}: free some space or rights, or give another --storage") from None
    with locked(folder, name):
        try:
            yield
        except InputError:
            if folder in new and not record.exists() and not (folder / EVENT_LOG).exists():
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    for path in new[1:]:
                        path.rmdir()
            raise


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a folder; who holds it stands in the lock's file.

    Raises:
        InputError: another process holds it.
    """
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(f"{name!r} is running in {owner}: wait for it, or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        remove_abandoned(folder)
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def is_locked(folder: Path) -> bool:
    """Whether a driver holds a folder at this moment."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
