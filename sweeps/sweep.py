"""Run a planned sweep: Ray, MLflow, trials, leaderboard, and the best trial's one look at the test split."""

from __future__ import annotations

import errno
import fcntl
import getpass
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from llmemf.config import build_config
from llmemf.errors import InputError
from sweeps import leaderboard
from sweeps.display import Display
from sweeps.interrupt import Interrupted, StopRequest
from sweeps.plan import Plan, check_writable
from sweeps.ray_session import ROOT, quiet, start_ray, stop_ray
from sweeps.records import TrialRecord, best_of
from sweeps.report_text import print_end, print_start
from sweeps.settings import SweepRecord, write_whole
from sweeps.sweep_data import SweepData, is_prepared, load_data
from sweeps.tracking import Target, Tracking

INTERRUPTED = 130
NUM_CHECKPOINTS = 2
STARTUP = 10
"""Trials before TPE models what it has seen; fewer where the sweep begins with fewer grid points."""


@dataclass
class Result:
    """How a sweep ended.

    Attributes:
        exit_code: 0 completed, 1 every trial failed, 2 it had to stop, 130 interrupted by the user.
        test: test metrics of the best trial; empty unless the sweep was completed.
    """

    exit_code: int
    records: list[TrialRecord]
    test: dict[str, float]


def run_sweep(
    plan: Plan,
    console: Console,
    *,
    data: SweepData | None = None,
    trainable: Callable[..., None] | None = None,
    evaluate: Callable[..., dict[str, float]] | None = None,
    client: Callable[[], Any] | None = None,
) -> Result:
    """Run or continue a sweep to its end.

    Args:
        plan: what to run.
        console: where to show it.
        data, trainable, evaluate, client: stand-ins for the prepared data, `train_trial`, `evaluate_checkpoint` and the
            MLflow client (tests).

    Raises:
        InputError: something the user can mend: data, storage, tracking, resources, a full disk.
    """
    record = plan.record
    check_reachable(record)
    check_writable(plan)
    with StopRequest() as stop, locked(record.folder, record.name), quiet(record) as watch:
        watch.stop = stop.request
        try:
            if data is None:
                with console.status(f"loading {record.scenario}" + ("" if is_prepared(plan) else " (made once)")):
                    data = load_data(plan)
            stop.check()
            with console.status("starting Ray"):
                parallel = start_ray(plan, data)
            # Ray sets its own handlers for signals and logs when it starts.
            stop.listen()
            watch.listen()
            stop.check()
            print_start(plan, data, parallel, console)
            record.fingerprint, record.status = data.scenario.fingerprint, "running"
            record.save()
            tracking = open_tracking(plan, data, console, client)
            # So does MLflow with its logs.
            watch.listen()
            return _run_trials(plan, data, parallel, tracking, stop, console, trainable, evaluate)
        except (Interrupted, KeyboardInterrupt):
            console.print("stopped; what was saved continues with:")
            console.print(f"  {plan.resume_command()}", style="cyan", soft_wrap=True)
            return Result(INTERRUPTED, [], {})
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise disk_full(plan) from error
            raise
        finally:
            stop_ray()


def _run_trials(
    plan: Plan,
    data: SweepData,
    parallel: int,
    tracking: Tracking,
    stop: StopRequest,
    console: Console,
    trainable: Callable[..., None] | None,
    evaluate: Callable[..., dict[str, float]] | None,
) -> Result:
    from sweeps.callback import SweepCallback

    record = plan.record
    title = f"{record.name}   {record.model} on {record.scenario}, {record.search}"
    display = Display(console, title=title, planned=plan.trials, slots=parallel)
    scheduler = make_scheduler(plan)
    callback = SweepCallback(
        varied=plan.space.varied,
        errors=record.folder / "errors",
        tracking=tracking,
        display=display,
        scheduler=scheduler,
        stop=stop,
    )
    try:
        stop.check()
        with display:
            search = tune_trials(plan, data, callback, scheduler, parallel, trainable)
    except BaseException:
        callback.interrupt()
        tracking.close("interrupted")
        raise
    stop_ray()
    if not stop.reason:
        search.close()
    records = sorted(callback.records.values(), key=lambda item: item.number)
    return finish(plan, data, tracking, records, stop.reason, display.elapsed(), console, evaluate)


def make_scheduler(plan: Plan) -> Any:
    """ASHA over the epochs of a trial, or None."""
    from ray.tune.schedulers import ASHAScheduler

    if plan.record.scheduler == "none":
        return None
    return ASHAScheduler(
        time_attr="epoch",
        max_t=plan.epochs,
        grace_period=min(plan.record.grace_period, plan.epochs),
        reduction_factor=plan.record.reduction_factor,
        brackets=1,
    )


def tune_trials(
    plan: Plan, data: SweepData, callback: Any, scheduler: Any, parallel: int, trainable: Callable[..., None] | None
) -> Any:
    """Hand the trials to Ray Tune, new or where an interrupted sweep left off; returns the search."""
    from ray import tune

    from sweeps.callback import trial_dirname
    from sweeps.search import SweepSearch
    from sweeps.trial import train_trial

    record = plan.record
    search = SweepSearch(
        plan.space,
        method=record.search,
        points=plan.points,
        seed=record.seed,
        startup=max(2 * parallel, min(STARTUP, len(plan.points) or STARTUP)),
    )
    function = tune.with_parameters(trainable or train_trial, data=data.trial_data, checkpoint_epochs=plan.rungs)
    try:
        # Every object is new and gets its state back from what Tune stored: nothing live is ever pickled.
        tune.run(
            function,
            name="tune",
            storage_path=str(record.folder),
            resume=plan.resumed and has_tune_state(record.folder / "tune"),
            config=plan.fixed,
            metric="objective",
            mode="max",
            num_samples=plan.trials,
            search_alg=search,
            scheduler=scheduler,
            max_concurrent_trials=parallel,
            resources_per_trial={"cpu": record.cpus_per_trial, "gpu": record.gpus_per_trial},
            checkpoint_config=tune.CheckpointConfig(num_to_keep=NUM_CHECKPOINTS),
            callbacks=[callback],
            trial_dirname_creator=trial_dirname,
            raise_on_failed_trial=False,
            verbose=0,
        )
    except Exception as error:
        if f"[Errno {errno.ENOSPC}]" in traceback.format_exc():
            raise disk_full(plan) from error
        raise
    return search


def has_tune_state(folder: Path) -> bool:
    """Whether Tune stored anything to resume; a sweep stopped before its first trial starts afresh."""
    return any(folder.glob("experiment_state-*.json")) and any(folder.glob("searcher-state-*.pkl"))


def finish(
    plan: Plan,
    data: SweepData,
    tracking: Tracking,
    records: list[TrialRecord],
    reason: str,
    seconds: float,
    console: Console,
    evaluate: Callable[..., dict[str, float]] | None = None,
) -> Result:
    """Write what came out, look at the test split once if the search has ended, close the runs, and show it all."""
    record = plan.record
    best = best_of(records)
    test: dict[str, float] = {}
    kept = leaderboard.keep_best(best, record.folder) if best else None
    outcome = "interrupted" if reason else "completed" if best else "failed"
    if outcome == "completed" and kept:
        if evaluate is None:
            from llmemf.training import evaluate_checkpoint as evaluate
        with console.status("scoring the best trial on the test split"):
            test = evaluate(kept, data.scenario, data.features, split="test")
    paths = write_results(plan, data, records, best, test)
    tags = {"mlflow.note.content": leaderboard.shortened((record.folder / "leaderboard.md").read_text())}
    if best:
        tags["best_trial"] = best.name
    summary = {"objective": best.objective, **best.metrics, **test} if best and outcome == "completed" else {}
    tracking.log_parent(metrics=summary, tags=tags, paths=paths)
    lost = tracking.close(outcome)
    record.status = outcome
    record.save()
    print_end(plan, data, records, test, outcome, reason, seconds, lost, tracking.page(), console)
    code = {"completed": 0, "failed": 1}.get(outcome, INTERRUPTED if reason == "interrupted" else 2)
    return Result(code, records, test)


def write_results(
    plan: Plan, data: SweepData, records: list[TrialRecord], best: TrialRecord | None, test: dict[str, float]
) -> list[Path]:
    """leaderboard.csv, leaderboard.md and best.yaml in the sweep's folder."""
    record = plan.record
    from sweeps.report_text import caveats

    notes = caveats(plan, data)
    files = {
        "leaderboard.csv": leaderboard.as_csv(records),
        "leaderboard.md": leaderboard.as_markdown(records, title=record.name, notes=notes, test=test),
    }
    if best:
        config = build_config(plan.config_class, {**plan.fixed, **best.settings}, where=best.name)
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
        write_whole(record.folder / name, text)
    return [record.folder / name for name in files]


def open_tracking(plan: Plan, data: SweepData, console: Console, client: Callable[[], Any] | None = None) -> Tracking:
    """The tracker with its parent run; makes the database where there is none."""
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
    target = Target(record.tracking_uri, record.scenario, record.name, artifacts, tags, plan.fixed)
    with console.status("opening the tracking database"):
        tracking = Tracking(target, client)
        tracking.open()
    return tracking


def check_reachable(record: SweepRecord) -> None:
    """Try to connect to the tracking server and the Ray cluster, where they are named by an address.

    Raises:
        InputError: nobody answers there.
    """
    parts = urlsplit(record.tracking_uri)
    if parts.scheme in ("http", "https"):
        problem = _no_answer(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        if problem:
            raise InputError(
                f"no tracking server answers at {record.tracking_uri} ({problem}): start it, or leave --tracking-uri out"
            )
    host, _, port = (record.ray_address or "").removeprefix("ray://").partition(":")
    if port.isdecimal():
        problem = _no_answer(host, int(port))
        if problem:
            raise InputError(
                f"no Ray cluster answers at {record.ray_address} ({problem}): start it, or leave --ray-address out"
            )


def _no_answer(host: str | None, port: int, timeout: float = 3.0) -> str:
    """Why nobody answers there, "" if somebody does."""
    try:
        socket.create_connection((host or "", port), timeout=timeout).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def code_version() -> str:
    """Git commit of this checkout (with -dirty for changed files), or the package's version."""
    import llmemf

    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return llmemf.__version__
    return found or llmemf.__version__


def disk_full(plan: Plan) -> InputError:
    return InputError(f"no space left for {plan.record.folder}: free some, then continue with: {plan.resume_command()}")


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the sweep's folder: two drivers of one sweep would overwrite each other.

    Raises:
        InputError: another process holds it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"sweep {name!r} is running in another process") from None
        yield
