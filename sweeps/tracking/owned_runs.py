"""Which runs in MLflow are those of a sweep or group: they are known by its identity, never by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from sweeps.state.event_log import EVENT_LOG, EventLog
from sweeps.state.home import Stored, is_former
from sweeps.state.sweep_events import EVENTS

PARENT = "sweep"
IDENTITY = "sweep_id"
FOLDER = "folder"
"""Tag of the parent run: the folder that writes it."""


@dataclass(frozen=True)
class RunOwner:
    """A sweep or group as its runs name it.

    Attributes:
        identity: tag `sweep_id` of its runs.
        name: its name.
        group: the kind of a group (`comparison`, ...), "" for a sweep.
        folder: the folder that owns them.
        moved_from: folders that owned them before.
        former: whether it began with a version whose runs have no identity.
    """

    identity: str
    name: str
    group: str = ""
    folder: str = ""
    moved_from: tuple[str, ...] = ()
    former: bool = False

    @classmethod
    def of(cls, record: Stored, group: str = "") -> RunOwner:
        """The owner that a record describes."""
        places = str(record.folder), tuple(record.moved_from)
        return cls(record.identity, record.name, group, *places, is_former(record))

    @property
    def title(self) -> str:
        """Tag `sweep` of its runs, for people who read them; no sweep has a space in its name."""
        return f"{self.group} {self.name}".strip()

    @property
    def condition(self) -> str:
        """Its runs, as MLflow's search and pages understand it."""
        return f"tags.{IDENTITY} = '{self.identity}'"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of each of its runs."""
        return {"sweep": self.title, IDENTITY: self.identity}

    def find(self, client: Any, experiment: str, trial: str | None = None) -> list[Any]:
        """Its runs, those of a former version that have no identity yet included.

        Args:
            experiment: id of the experiment.
            trial: of this trial, or `PARENT`, only.
        """
        only = "" if trial is None else f" and tags.trial = '{trial}'"
        found = search(client, experiment, self.condition + only)
        former = self._former(client, experiment) if self.former else []
        return found + [run for run in former if trial in (None, run.data.tags["trial"])]

    def _former(self, client: Any, experiment: str) -> list[Any]:
        """Runs that have its name and no identity, and began with an event of its log; and the run above them."""
        named = search(client, experiment, f"tags.sweep = '{self.title}'")
        runs = [run for run in named if IDENTITY not in run.data.tags]
        if self.group:
            return runs if len(runs) == 1 else []
        times = {event["time"] for event in EventLog(Path(self.folder) / EVENT_LOG, EVENTS).read()}
        trials = [run for run in runs if run.data.tags["trial"] != PARENT and run.info.start_time in times]
        above = {run.data.tags.get("mlflow.parentRunId") for run in trials}
        return trials + [run for run in runs if run.info.run_id in above]

    def other(self, runs: Iterable[Any]) -> str:
        """The folder that has taken these runs over, "" where they are its own."""
        folders = {run.data.tags.get(FOLDER, self.folder) for run in runs}
        return min(folders - {self.folder, *self.moved_from}, default="")

    def check(self, runs: Iterable[Any]) -> None:
        """Raise InputError where another folder has taken these runs over."""
        if other := self.other(runs):
            raise InputError(
                f"the runs of {self.title!r} in MLflow are those of {other}, which took them over: continue it there, or "
                "give another --tracking-uri"
            )


def search(client: Any, experiment: str, condition: str) -> list[Any]:
    """All runs of an experiment that fulfil a condition."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment], condition, max_results=500, page_token=token)
        runs += page
        token = getattr(page, "token", None)
        if not token:
            return runs
