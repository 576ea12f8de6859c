"""What a sweep leaves: leaderboard and best configuration in its folder, and its run in MLflow."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf.config import build_config
from llmemf.io import write_text
from sweeps.cluster.ray_session import ROOT
from sweeps.core.plan import Plan
from sweeps.core.summary import caveats
from sweeps.core.sweep_data import SweepData
from sweeps.state import leaderboard
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord
from sweeps.tracking.mlflow_writer import TrackingTarget
from sweeps.tracking.runs import Tracking


def write_results(
    plan: Plan,
    data: SweepData,
    records: list[TrialRecord],
    best: TrialRecord | None,
    test: dict[str, float],
    evaluations: int = 0,
) -> list[Path]:
    """leaderboard.csv, leaderboard.md and best.yaml in the sweep's folder."""
    record = plan.record
    notes = caveats(plan, data, evaluations)
    files = {
        "leaderboard.csv": leaderboard.as_csv(records),
        "leaderboard.md": leaderboard.as_markdown(records, title=record.name, notes=notes, test=test),
    }
    if best:
        config = build_config(plan.config_class, {**plan.fixed, **best.config}, where=best.name)
        encoders = ", ".join(f"{kind} {matrix.encoder}" for kind, matrix in data.features.items()) or "none"
        facts = {
            "best trial of sweep": f"{record.name} ({best.name}, epoch {best.best_epoch})",
            "scenario": f"{data.scenario.name}, fingerprint {data.scenario.fingerprint}",
            "features": encoders,
            "train it again": f"llmemf train {data.scenario.name} --config {record.folder / 'best.yaml'}",
        }
        if notes:
            facts["note"] = " ".join(notes)
        files["best.yaml"] = leaderboard.best_yaml(config.to_dict(), facts, {**best.metrics, **test})
    for name, text in files.items():
        write_text(record.folder / name, text)
    return [record.folder / name for name in files]


def open_tracking(
    plan: Plan, data: SweepData, state: SweepState, console: Console, client: Callable[[], Any] | None = None
) -> Tracking:
    """The tracker with its parent run, level with the event log; makes the database where there is none."""
    record = plan.record
    tags = {
        "scenario": data.scenario.name,
        "model": record.model,
        "search": record.search,
        "scheduler": record.scheduler,
        "seed": str(record.seed),
        "code": code_version(),
        **data.tags(),
        # MLflow's own columns: where a run comes from.
        "mlflow.source.name": "sweeps/grid.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": code_version().removesuffix("-dirty"),
        "mlflow.user": getpass.getuser(),
    }
    if plan.objectives:
        tags["objective"] = "+".join(plan.objectives)
    if plan.is_fallback:
        tags["asked_for"] = record.requested
    local = not record.tracking_uri.startswith(("http", "databricks"))
    artifacts = (Path(record.storage) / "artifacts" / record.scenario).as_uri() if local else None
    target = TrackingTarget(record.tracking_uri, record.scenario, record.name, artifacts, tags, plan.shared)
    with console.status("opening the tracking database"):
        tracking = Tracking(target, client)
        tracking.open(state)
    return tracking


def code_version() -> str:
    """Git commit of this checkout (with -dirty for changed files), or the package's version."""
    import llmemf

    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return llmemf.__version__
    return found or llmemf.__version__
