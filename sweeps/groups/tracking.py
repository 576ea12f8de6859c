"""MLflow's view of a group: one run above the runs of its sweeps, with the tables."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from sweeps.core.results import artifact_location, code_version
from sweeps.groups.group import Group
from sweeps.tracking.addresses import unusable
from sweeps.tracking.mlflow_runs import Operation, TrackingTarget
from sweeps.tracking.mlflow_writer import MlflowWriter
from sweeps.tracking.owned_runs import FOLDER, PARENT, RunOwner
from sweeps.tracking.runs import STATUS, finite


class GroupTracking:
    """The run of a group.

    Args:
        params: of the run, beside shared settings, rows and seeds.
        client: makes the MLflow client; tests give their own.
    """

    def __init__(self, group: Group, params: dict[str, Any], client: Callable[[], Any] | None = None) -> None:
        names, seeds = "+".join(group.names), "+".join(map(str, group.seeds))
        self.group, self.params = group, {**group.fixed, f"{group.noun}s": names, "seeds": seeds, **params}
        tags = {
            group.kind: group.name,
            "scenario": group.scenario,
            "seed": str(group.seed),
            "fingerprint": group.fingerprint,
            "code": code_version(),
            "mlflow.source.name": f"sweeps/{group.command}",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": code_version().removesuffix("-dirty"),
            "mlflow.user": getpass.getuser(),
        }
        if group.is_fallback:
            tags["asked_for"] = group.requested
        self.owner = RunOwner.of(group, group.kind)
        target = TrackingTarget(group.tracking_uri, group.scenario, self.owner, artifact_location(group), tags)
        self.writer = MlflowWriter(target, client)

    def open(self) -> None:
        """Create the run, or find that of an earlier driver.

        Raises:
            InputError: the tracking server or database cannot be reached, or the run is that of another folder.
        """
        group, writer, owner = self.group, self.writer, self.owner
        try:
            found = owner.find(writer.client, writer.experiment())
            owner.check(found)
            if found:
                writer.runs[PARENT] = found[0].info.run_id
                writer.deliver(Operation("reopen", PARENT, {}))
                writer.deliver(Operation("tags", PARENT, {"tags": {**owner.tags, FOLDER: owner.folder}}))
            else:
                writer.deliver(Operation("create", PARENT, {"name": owner.title, "start": _now()}))
                writer.deliver(Operation("params", PARENT, {"params": self.params}))
        except InputError:
            raise
        except Exception as error:
            raise unusable(group.tracking_uri, error) from error

    def tags_of(self, step: str) -> dict[str, str]:
        """Tags that hang a sweep below this run."""
        return {self.group.kind: self.group.name, "step": step, "mlflow.parentRunId": self.writer.runs[PARENT]}

    def close(self, outcome: str, metrics: dict[str, float], paths: list[Path], page: str) -> str:
        """Write metrics and files, and close the run; says in one line what failed ("" if nothing).

        Args:
            page: the tables in Markdown, for the run's description.
        """
        if metrics:
            self.writer.write("metrics", PARENT, values=finite(metrics), step=0, time=_now())
        self.writer.write("tags", PARENT, tags={"mlflow.note.content": page})
        for path in paths:
            self.writer.write("artifact", PARENT, path=str(path), folder=None)
        self.writer.write("end", PARENT, tags={"outcome": outcome}, status=STATUS[outcome], time=_now())
        return self.writer.close()

    def page(self) -> str:
        """Where MLflow's pages show the runs, see `MlflowWriter.page`."""
        return self.writer.page()


def _now() -> int:
    return int(time.time() * 1000)
