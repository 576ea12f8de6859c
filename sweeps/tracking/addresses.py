"""Addresses of MLflow's databases and servers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from llmemf.errors import InputError

SQLITE = "sqlite:///"
KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
"""Kinds of addresses that MLflow itself can write to; packages add further ones as entry points of `STORES`."""
STORES = "mlflow.tracking_store"


def absolute_uri(uri: str | None, storage: Path) -> str:
    """The tracking URI with an absolute path: trials and `mlflow ui` run in other folders.

    Raises:
        InputError: MLflow's old file store, which it no longer writes, an address of a kind that MLflow does not know, or a
            server without a host or with an impossible port.
    """
    if uri is None:
        return f"{SQLITE}{storage / 'mlflow.db'}"
    if uri.startswith(SQLITE) and not uri.startswith("sqlite:////"):
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).expanduser().resolve()}"
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"--tracking-uri {uri}: MLflow no longer writes folders; give sqlite:///FILE.db or http://HOST:PORT"
        )
    kind = uri.partition("://")[0]
    if kind.partition("+")[0] not in KINDS and not any(known.name == kind for known in entry_points(group=STORES)):
        raise InputError(f"--tracking-uri {uri}: {kind}:// is unknown; give sqlite:///FILE.db or http://HOST:PORT")
    if uri.startswith(("http://", "https://")):
        try:
            parts = urlsplit(uri)
            usable = parts.hostname is not None and parts.port != 0
        except ValueError:  # a port above 65535, or brackets without an address
            usable = False
        if not usable:
            raise InputError(f"--tracking-uri {uri}: an address like http://HOST:5000 is expected")
    return uri


def database(uri: str) -> Path | None:
    """The file of a SQLite database; None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


DATABASE_PROBLEMS = {
    "is locked": "is held by another process: wait for it or end it",
    "is full": "has no space left: free some",
    "not a database": "is no database: move it away",
    "malformed": "is damaged: bring it back from a backup, or move it away (--resume writes the runs of a sweep anew)",
    "unable to open": "cannot be opened: check that its folder exists and may be written to",
    "readonly": "may not be written to: check its rights",
}
"""What SQLite says -> what that means for the user."""


def one_line(error: Exception) -> str:
    """An error's message on one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def unusable(uri: str, error: Exception) -> InputError:
    """The error for a database or server that a client could not use."""
    said, file = one_line(error), database(uri)
    remedy = "or name another --tracking-uri"
    if file is None:
        return InputError(f"tracking at {uri} does not work ({said}): start the server, {remedy}")
    meaning = next((text for part, text in DATABASE_PROBLEMS.items() if part in str(error)), None)
    if meaning is None:
        return InputError(f"MLflow's database {file} cannot be used ({said}): mend that, {remedy}")
    return InputError(f"MLflow's database {file} {meaning}, {remedy}")


@contextmanager
def first_call(uri: str) -> Iterator[None]:
    """Held while a client opens a SQLite database: MLflow makes or migrates its tables then, in one process at a time."""
    file = database(uri)
    with ExitStack() as held:
        # Who may not write beside the database cannot make its tables either.
        if file is not None and os.access(file.parent, os.W_OK):
            lock = held.enter_context(file.with_name(f".{file.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
