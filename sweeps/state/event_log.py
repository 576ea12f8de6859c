"""The sweep's own log: what happened, one JSON object per line, on the disk before anything else happens.

The event log is the one truth of a sweep. Records, Optuna's study, ASHA's rungs and MLflow's runs all follow from it, so a
driver that was killed at any moment leaves nothing that its successor would have to guess.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from llmemf.io import AppendOnlyLog, damaged_line

EVENT_LOG = "journal.jsonl"


class EventLog:
    """An append-only file of events.

    Args:
        path: the file; it appears with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = AppendOnlyLog(path)

    def read(self) -> list[dict[str, Any]]:
        """All events in their order; a last line that was cut off by a crash never happened.

        Raises:
            InputError: a line in the middle is damaged.
        """
        events = self._log.read()
        for number, event in enumerate(events, start=1):
            if not {"event", "time"} <= event.keys():
                raise damaged_line(self.path, number, str(event).encode())
        return events

    def append(self, event: str, **content: Any) -> dict[str, Any]:
        """Write one event and wait until it is on the disk; returns it as it will be read, with its time in milliseconds.

        Raises:
            StorageError: it could not be written; the file is as it was before.
        """
        entry = {"event": event, "time": int(time.time() * 1000), **content}
        return self._log.append([entry])[0]

    def close(self) -> None:
        self._log.close()
