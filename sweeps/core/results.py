"""What a sweep leaves: leaderboard and best configuration in its folder, and its run in MLflow."""

from __future__ import annotations

import functools
import getpass
import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.io import write_text
from sweeps.core.descriptions import caveats
from sweeps.core.plan import Plan
from sweeps.core.summary import failed_trials
from sweeps.core.sweep_data import SweepData
from sweeps.state import leaderboard
from sweeps.state.confirmation import confirmed, sentence_of
from sweeps.state.home import Stored
from sweeps.state.references import References
from sweeps.state.trial_records import TrialRecord
from sweeps.tracking.addresses import database
from sweeps.tracking.mlflow_private import move_artifacts
from sweeps.tracking.mlflow_runs import TrackingTarget
from sweeps.tracking.owned_runs import RunOwner
from sweeps.tracking.runs import Tracking


def write_results(
    plan: Plan,
    data: SweepData,
    records: list[TrialRecord],
    best: TrialRecord | None,
    test: dict[str, float],
    evaluations: int = 0,
) -> list[Path]:
    """leaderboard.csv and best.yaml in the sweep's folder."""
    record = plan.record
    files = {"leaderboard.csv": leaderboard.as_csv(records)}
    if best:
        config = build_config(plan.config_class, {**plan.fixed, **best.config}, where=best.name)
        encoders = ", ".join(f"{kind} {matrix.encoder}" for kind, matrix in data.features.items()) or "none"
        facts = {
            "best trial of sweep": f"{record.name} ({best.name}, epoch {best.best_epoch})",
            "scenario": f"{data.scenario.name}, fingerprint {data.scenario.fingerprint}",
            "features": encoders,
            "train it again": f"llmemf train {data.scenario.name} --config {record.folder / 'best.yaml'}",
        }
        if sure := sentence_of(confirmed(records)):
            facts["confirmed"] = sure
        if notes := [*filter(None, [failed_trials(records)]), *caveats(plan, data, best, evaluations)]:
            facts["note"] = " ".join(notes)
        files["best.yaml"] = leaderboard.best_yaml(config.to_dict(), facts, {**best.metrics, **test})
    for name, text in files.items():
        write_text(record.folder / name, text)
    return [record.folder / name for name in files]


def make_references(plan: Plan, data: SweepData) -> None:
    """Find out what chance and simple systems reach on the sweep's validation cases, once."""
    from llmemf.references import reference_metrics

    folder = plan.record.folder
    if not References.load(folder).metrics:
        References(reference_metrics(plan.configs[0], data.trial_data)).save(folder)


def connect_tracking(
    plan: Plan, data: SweepData, console: Console, client: Callable[[], Any] | None = None
) -> Tracking:
    """The tracker, connected; makes the database where there is none.

    Raises:
        InputError: the tracking server or database cannot be reached.
    """
    record = plan.record
    tags = {
        "scenario": data.scenario.name,
        "model": record.model,
        "search": record.search,
        "scheduler": record.scheduler,
        **data.tags(),
        **origin_tags(record, record.seed, "sweeps/grid.py"),
    }
    if plan.objectives:
        tags["objective"] = "+".join(plan.objectives)
    owner, artifacts = RunOwner.of(record), artifact_location(record)
    defaults = {key: value for key, value in plan.configs[0].to_dict().items() if key not in plan.varied_keys}
    target = TrackingTarget(
        record.tracking_uri, record.scenario, owner, artifacts, tags, {**defaults, **plan.shared}, dataset(plan, data)
    )
    with console.status("opening the tracking database"):
        tracking = Tracking(target, client)
        tracking.connect()
    return tracking


def origin_tags(record: Stored, seed: int, source: str) -> dict[str, str]:
    """Tags of every run of a sweep or group: its seed, its code, and what MLflow's own columns say of where a run comes from.

    Args:
        source: the script that makes the run.
    """
    tags = {
        "seed": str(seed),
        "code": code_version(),
        "mlflow.source.name": source,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": code_version().removesuffix("-dirty"),
        "mlflow.user": getpass.getuser(),
    }
    return tags | ({"asked_for": record.requested} if record.requested != record.scenario else {})


def dataset(plan: Plan, data: SweepData) -> dict[str, str]:
    """The scenario as MLflow's pages name the data of a run."""
    scenario = data.scenario
    profile = {"items": scenario.num_items, "domains": scenario.domains}
    profile |= {split: len(scenario.split(split)) for split in ("train", "valid", "test")}
    source = {"uri": (Path(plan.record.data_root) / scenario.name).as_uri()}
    return {
        "name": scenario.name,
        "digest": scenario.fingerprint[:8],
        "source_type": "local",
        "source": json.dumps(source),
        "profile": json.dumps(profile),
    }


def describe_run(plan: Plan, records: list[TrialRecord], best: TrialRecord | None, test: dict[str, float]) -> str:
    """The description of the sweep's run: its best trial in a few lines, and where all of them are."""
    searched = [record for record in records if not record.repeats]
    count = Counter(record.outcome for record in searched)
    lines = [", ".join(f"{number} {outcome}" for outcome, number in count.items()) + "."]
    if best and best.objective is not None:
        tested = f", test MRR {test['test/mrr']:.4f}" if "test/mrr" in test else ""
        first = f"**{best.name}** is the best of {text_format.plural(len(searched), 'trial')}: objective {best.objective:.4f}"
        sure = filter(None, [sentence_of(confirmed(records))])
        lines = [f"{first}{tested}.", f"`{text_format.settings(best.varied)}`", *sure, *lines]
    report = command_line("report", plan.record.name, storage=plan.record.storage)
    return "\n\n".join([*lines, f"All trials: `leaderboard.csv` among the artifacts. The report: `{report}`"])


def artifact_location(record: Stored) -> str | None:
    """Where artifacts of a new experiment go, None where the server decides; those of a moved database come along.

    Raises:
        InputError: the database cannot be read or written.
    """
    if record.tracking_uri.startswith(("http", "databricks")):
        return None
    storage, file = Path(record.storage), database(record.tracking_uri)
    if file is not None and file.exists():
        earlier = {Path(folder).parents[1] for folder in record.moved_from} - {storage}
        # Outside of the storage folder a database may be shared: what the original still has stays as it is.
        moved = [folder for folder in earlier if file.is_relative_to(storage) or not folder.exists()]
        try:
            if moved:
                move_artifacts(file, moved, storage)
        except sqlite3.Error as error:
            raise InputError(f"{file} cannot be written ({error}): free it, or name another --tracking-uri") from None
    return (storage / "artifacts" / record.scenario).as_uri()


@functools.cache
def code_version() -> str:
    """Git commit of this checkout when it is first asked for (with -dirty for changed files), or the package's version."""
    import llmemf

    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return llmemf.__version__
    return found or llmemf.__version__
