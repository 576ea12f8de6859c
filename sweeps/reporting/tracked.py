"""The sweep's parent run in MLflow: its tags and metrics, and the report among its artifacts. No run is created here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.core.storage import server_problem
from sweeps.state.home import is_elsewhere
from sweeps.state.sweep_record import SweepRecord
from sweeps.tracking.addresses import database, one_line
from sweeps.tracking.mlflow_runs import mlflow_client, runs_page
from sweeps.tracking.owned_runs import PARENT, RunOwner


@dataclass
class Tracked:
    """The parent run of a sweep.

    Attributes:
        run: its id, "" where there is none.
        page: the run's page below a server's address.
        tags: of the parent run.
        metrics: of the parent run.
        problem: why it is not there.
        home: the folder whose run it is, where the sweep was copied or moved from there.
    """

    run: str = ""
    page: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    client: Any = None
    home: str = ""

    @property
    def encoders(self) -> dict[str, str]:
        """Kind of features -> encoder, as every run of the sweep says."""
        found = {kind: self.tags.get(f"{kind}_encoder") for kind in ("text", "image", "profile")}
        return {kind: name for kind, name in found.items() if name}


def find_runs(record: SweepRecord) -> Tracked:
    """Look the parent run up; where the database or server is missing, `problem` says so."""
    uri, file = record.tracking_uri, database(record.tracking_uri)
    if file is not None and not file.exists():
        return Tracked(problem=f"there is no database at {file}")
    if server_problem(uri):
        return Tracked(problem=f"no server answers at {uri}")
    try:
        client = mlflow_client(uri)
        experiment = client.get_experiment_by_name(record.scenario)
        if experiment is None:
            return Tracked(problem=f"there is no experiment {record.scenario!r}")
        runs = RunOwner.of(record).find(client, experiment.experiment_id, PARENT)
    except Exception as error:  # noqa: BLE001  MLflow raises what its database or server raises
        return Tracked(problem=one_line(error))
    if not runs:
        return Tracked(problem="there is no run of this sweep")
    run = runs[0]
    page = runs_page(experiment.experiment_id, run.info.run_id)
    home = record.home if is_elsewhere(record) else ""
    return Tracked(run.info.run_id, page, dict(run.data.tags), dict(run.data.metrics), client=client, home=home)


def log_report(tracked: Tracked, paths: list[Path]) -> str:
    """The report becomes artifacts of the parent run; says why it could not, "" if it could."""
    if not tracked.run:
        return tracked.problem
    if tracked.home:
        return f"the sweep was copied or moved from {tracked.home}; --resume --name takes it over"
    try:
        for path in paths:
            tracked.client.log_artifact(tracked.run, str(path))
    except Exception as error:  # noqa: BLE001  the report lies in the sweep's folder in any case
        return one_line(error)
    return ""
