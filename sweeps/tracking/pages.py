"""MLflow's servers: its own pages on the database of a storage folder (which one, at which address), and how a server is run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from llmemf.errors import InputError
from llmemf.io import storage_errors
from sweeps.state.sweep_record import SweepRecord, newest_sweeps
from sweeps.tracking.addresses import absolute_uri, database, unusable
from sweeps.tracking.mlflow_runs import mlflow_client, runs_page
from sweeps.tracking.owned_runs import PARENT, RunOwner
from sweeps.tracking.runs import BEST, VALID

START_SECONDS = 120.0
STOP_SECONDS = 10.0
SHOWN_SWEEPS = 5
VIEW_TAG = "mlflow.sharedViewState."
"""Tag of an experiment under which MLflow's pages keep a shared view."""
SECTION = "llmemf"
"""Part of MLflow's page of charts."""


def find_tracking(storage: Path, tracking_uri: str | None) -> str:
    """Where the runs of a storage folder are: the given address, that of its newest sweep, or its own database.

    Raises:
        InputError: there is no database yet.
    """
    newest = [] if tracking_uri is not None else [record.tracking_uri for record in newest_sweeps(storage)[:1]]
    for uri in (*newest, absolute_uri(tracking_uri, storage)):
        file = database(uri)
        if file is None or file.exists():
            return uri
    raise InputError(f"there is no MLflow database at {file}: run a sweep first, or name its folder with --storage")


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Raise InputError where another program listens on the port already, or the host is none of this machine's."""
    with socket.socket() as probe:
        # As servers do it: a port that was left a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"no server can listen at --host {host} --port {port} ({error.strerror}): give others"
            ) from None


def end_on_signals() -> None:
    """However this process is asked to end (Ctrl-C, kill, a closed terminal), let a server end with it.

    The first signal raises KeyboardInterrupt; further ones do not break off the end of the server.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, end)


@contextmanager
def server(words: list[str], address: str, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A server that a command of MLflow starts, ready to answer; ended with the block, and all its processes with it.

    Args:
        words: after `mlflow`.
        address: where it answers.
        log: where its words go.
        environment: variables beside those of this process.

    Raises:
        InputError: it does not start, or its log cannot be written.
    """
    with storage_errors(log):
        output = log.open("wb")
    with output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        _wait(process, address, log)
        yield process
    finally:
        _end(process)


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "no word")
    raise InputError(f"MLflow's server did not start ({last.strip()[:200]}): see {log}")


def _end(process: subprocess.Popen) -> None:
    """End the server and its workers; they are given a moment to do so themselves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def links(uri: str, storage: Path, address: str) -> dict[str, str]:
    """Name of a sweep -> the page with its runs, for the newest ones that MLflow knows; then the page of each scenario.

    The page of a sweep is a shared view of MLflow's: its runs, the best first, with the columns that tell them apart, and
    parallel coordinates behind the button for charts. The list of an experiment shows neither metrics nor settings.

    Raises:
        InputError: the tracking server or database does not answer.
    """
    client = mlflow_client(uri)
    found, scenarios = {}, {}
    try:
        for record in newest_sweeps(storage)[:SHOWN_SWEEPS]:
            experiment = client.get_experiment_by_name(record.scenario)
            if experiment is None:
                continue
            key, view = record.identity, json.dumps(shared_view(client, experiment.experiment_id, record))
            if experiment.tags.get(VIEW_TAG + key) != view:
                client.set_experiment_tag(experiment.experiment_id, VIEW_TAG + key, view)
            page = f"{address}{runs_page(experiment.experiment_id)}"
            found[record.name] = f"{page}&{urlencode({'viewStateShareKey': key})}"
            scenarios[f"all of {record.scenario}"] = page
    except Exception as error:
        raise unusable(uri, error) from error
    return found | scenarios


def shared_view(client: Any, experiment: str, record: SweepRecord) -> dict[str, Any]:
    """What MLflow's list of runs shows of a sweep: filter, order and columns."""
    owner = RunOwner.of(record)
    condition = owner.condition
    if owner.former and not client.search_runs([experiment], condition, max_results=1):
        condition = f"tags.sweep = '{record.name}'"
    trials = f"{condition} and tags.trial != '{PARENT}'"
    best = client.search_runs([experiment], trials, order_by=["metrics.objective DESC"], max_results=1)
    known = sorted(name for run in best for name in run.data.metrics if name.endswith("/ndcg_10"))
    # Runs of former versions have no numbers of their best epoch.
    metrics = [name for name in known if name.startswith(BEST)] or [name for name in known if name.startswith(VALID)]
    columns = ["tags.`outcome`", "attributes.`Duration`", "metrics.`objective`"]
    columns += [f"metrics.`{name}`" for name in metrics] + [f"params.`{key}`" for key in record.varied_keys]
    return {
        "searchFilter": condition,
        "orderByKey": "metrics.`objective`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "FIRST_20_RUNS",
        "groupBy": "",
        "groupsExpanded": {},
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        # Sections that MLflow adds come behind this one, not sorted among it.
        "isAccordionReordered": True,
        "compareRunSections": [{"uuid": SECTION, "name": "Settings and objective", "display": True, "columns": 1}],
        # A chart that MLflow draws as soon as its button for charts is pressed.
        "compareRunCharts": [
            {
                "type": "PARALLEL",
                "uuid": f"{SECTION}-PARALLEL",
                "metricSectionId": SECTION,
                "runsCountToCompare": 100,
                "isGenerated": False,
                "deleted": False,
                "selectedMetrics": ["objective"],
                "selectedParams": record.varied_keys,
                "showAllRuns": True,
            }
        ],
    }
