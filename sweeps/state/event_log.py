"""The sweep's own log: what happened, one JSON object per line, on the disk before anything else acts on it.

The journal is the one truth of a sweep. Records, Optuna's study, ASHA's rungs and MLflow's runs all follow from it, so a
driver that was killed at any moment leaves nothing that its successor would have to guess.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from llmemf.errors import InputError

JOURNAL = "journal.jsonl"


class EventLog:
    """An append-only file of events.

    Args:
        path: the file; it appears with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def read(self) -> list[dict[str, Any]]:
        """All events in their order; a last line that was cut off by a crash never happened.

        Raises:
            InputError: a line in the middle is damaged.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        events = []
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
                events.append({"event": event["event"], "time": event["time"], **event})
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    f"{self.path}, line {number} is damaged ({line[:40]!r}): bring the file back from a backup, or keep "
                    f"the {number - 1} lines before it only (what happened later is then forgotten)"
                ) from None
        return events

    def append(self, event: str, **content: Any) -> dict[str, Any]:
        """Write one event and wait until it is on the disk; returns it as it will be read, with its time in milliseconds.

        Raises:
            OSError: it could not be written; the file is as it was before.
        """
        entry = {"event": event, "time": int(time.time() * 1000), **content}
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        file = self._open()
        end = os.lseek(file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += os.write(file, line[written:])
            os.fsync(file)
        except OSError:
            os.ftruncate(file, end)
            raise
        return json.loads(line)

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            content = self.path.read_bytes()
            # The rest of a line that a crash cut off would run into the next one.
            os.ftruncate(self._file, content.rfind(b"\n") + 1)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
