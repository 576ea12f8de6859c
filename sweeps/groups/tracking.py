"""MLflow's view of a group: one run above the runs of its sweeps, with the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.core.results import artifact_location, origin_tags
from sweeps.groups.group import BEST, Group
from sweeps.tracking.addresses import unusable
from sweeps.tracking.mlflow_runs import Operation, TrackingTarget
from sweeps.tracking.owned_runs import FOLDER, PARENT, RunOwner
from sweeps.tracking.runs import Tracking, now


class GroupTracking(Tracking):
    """The run of a group.

    Args:
        client: makes the MLflow client; tests give their own.
    """

    def __init__(self, group: Group, client: Callable[[], Any] | None = None) -> None:
        names, seeds = "+".join(group.names), "+".join(map(str, group.seeds))
        self.group, owner = group, RunOwner.of(group, group.kind)
        tags = {
            group.kind: group.name,
            "scenario": group.scenario,
            "fingerprint": group.fingerprint,
            **origin_tags(group, group.seed, f"sweeps/{group.command}"),
        }
        configuration = f"searched, {group.trials} trials" if group.trials else group.origin
        params = {**group.fixed, f"{group.noun}s": names, "seeds": seeds, "configuration": configuration}
        params |= {} if group.reference == BEST else {group.reference_name.replace(" ", "_"): group.reference}
        artifacts = artifact_location(group)
        super().__init__(TrackingTarget(group.tracking_uri, group.scenario, owner, artifacts, tags, params), client)

    def open_group(self) -> None:
        """Create the run, or find that of an earlier driver; it is there when this returns, since sweeps hang below it.

        Raises:
            InputError: the tracking server or database cannot be reached, or the run is that of another folder.
        """
        self.connect()
        writer, owner = self.writer, self.target.owner
        try:
            if PARENT in writer.runs:
                writer.deliver(Operation("reopen", PARENT, {}))
                writer.deliver(Operation("tags", PARENT, {"tags": {**owner.tags, FOLDER: owner.folder}}))
            else:
                writer.deliver(Operation("create", PARENT, {"name": owner.title, "start": now()}))
                writer.deliver(Operation("params", PARENT, {"params": self.target.params}))
        except Exception as error:
            raise unusable(self.target.uri, error) from error

    def tags_of(self, step: str) -> dict[str, str]:
        """Tags that hang a sweep below this run."""
        return {self.group.kind: self.group.name, "step": step, "mlflow.parentRunId": self.writer.runs[PARENT]}

    def close_group(self, outcome: str, metrics: dict[str, float], paths: list[Path], page: str) -> str:
        """Write metrics and files, and close the run; says in one line what failed ("" if nothing).

        Args:
            page: the tables in Markdown, for the run's description.
        """
        self.log_parent(metrics=metrics, tags={"mlflow.note.content": page}, paths=paths, step=0, time=now())
        return self.close(outcome)
