"""All that this project changes in MLflow's own tables; `tests/sweeps/tracking/test_mlflow_private.py` says what breaks.

MLflow stores where artifacts lie as absolute addresses and has no call that changes them, so that a database that was moved
together with its artifacts would write into the old folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Table and column of every address of an artifact."""


def move_artifacts(database: Path, earlier: Iterable[Path], now: Path) -> None:
    """Let a SQLite database look for artifacts below the folder `now` that it wrote below earlier ones.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    after = f"{now.as_uri()}/"
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for before in [f"{folder.as_uri()}/" for folder in earlier]:
            for table, column in ADDRESSES:
                if table in there:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (after, len(before) + 1, len(before), before),
                    )
