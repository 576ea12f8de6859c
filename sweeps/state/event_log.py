"""The sweep's own log: what happened, one JSON object per line, on the disk before anything else happens.

The event log is the one truth of a sweep. Records, Optuna's study, ASHA's rungs and MLflow's runs all follow from it, so a
driver that was killed at any moment leaves nothing that its successor would have to guess.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llmemf.append_only_log import AppendOnlyLog
from llmemf.errors import InputError, nearest

EVENT_LOG = "journal.jsonl"


class Event(BaseModel):
    """What every event has: its name, and when it happened (milliseconds since 1970). Classes of events add their own."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    event: str
    time: int


class EventLog:
    """An append-only file of events.

    Args:
        path: the file; it appears with the first event.
        events: name of an event -> what it must hold.
    """

    def __init__(self, path: Path, events: Mapping[str, type[Event]]) -> None:
        self.path, self.events = path, events
        self._log = AppendOnlyLog(path)

    def read(self) -> list[dict[str, Any]]:
        """All events in their order; a last line that was cut off by a crash never happened.

        Raises:
            InputError: a line is damaged, or is none of these events.
        """
        return [event for _, event in self.lines()]

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All events with the numbers of their lines; see `read`."""
        for number, event in enumerate(self._log.read(), start=1):
            self._check(number, event)
            yield number, event

    def _check(self, number: int, event: dict[str, Any]) -> None:
        name = event.get("event")
        kind = Event if name is None else self.events.get(str(name))
        if kind is None:
            raise self.damaged(number, f"event = {name!r}: {nearest(str(name), self.events)}")
        try:
            kind.model_validate(event)
        except ValidationError as error:
            first = error.errors()[0]
            where, given = ".".join(map(str, first["loc"])), first["input"]
            shown = "" if first["type"] == "missing" else f" = {given!r:.40}"
            raise self.damaged(number, f"{where}{shown}: {first['msg']}") from None

    def damaged(self, number: int, problem: str) -> InputError:
        """The error for a line, counted from 1, that cannot be right."""
        return InputError(
            f"{self.path}, line {number} is damaged ({problem}): bring the file back from a backup, or keep the "
            f"{number - 1} lines before it only (what happened later is then forgotten)"
        )

    def append(self, event: str, **content: Any) -> dict[str, Any]:
        """Write one event and wait until it is on the disk; returns it as it will be read, with its time in milliseconds.

        Raises:
            StorageError: it could not be written; the file is as it was before.
        """
        entry = {"event": event, "time": int(time.time() * 1000), **content}
        return self._log.append([entry])[0]

    def close(self) -> None:
        self._log.close()
