"""MLflow's pages from one command: the right database, plain words where it cannot be, a clean end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import sweeps
from llmemf.errors import InputError
from sweeps.cli.main import run_script
from sweeps.tracking import pages
from sweeps.tracking.mlflow_runs import mlflow_client

COMMAND = Path(sweeps.__file__).with_name("ui.py")


def run(capsys, *words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ui.py", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            run_script("ui.py")
    return left.value.code, capsys.readouterr()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_without_a_database_it_says_so(tmp_path, capsys):
    code, printed = run(capsys, "--storage", tmp_path)
    assert code == 2 and printed.err.count("\n") == 1
    assert f"no MLflow database at {tmp_path / 'mlflow.db'}" in printed.err and "--storage" in printed.err
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_named(finished, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, printed = run(capsys, "--storage", finished.storage, "--port", port)
    assert code == 2 and f"--port {port} (" in printed.err


def test_the_database_is_that_of_the_newest_sweep_or_the_storage(finished, tmp_path):
    assert pages.find_tracking(finished.storage, None) == finished.uri
    moved = tmp_path / "moved"
    shutil.copytree(finished.storage / "sweeps", moved / "sweeps")
    other = tmp_path / "other.db"
    shutil.copy(finished.storage / "mlflow.db", other)
    assert pages.find_tracking(moved, f"sqlite:///{other}") == f"sqlite:///{other}"
    path = moved / "sweeps" / "s1" / "sweep.yaml"
    path.write_text(path.read_text().replace(finished.uri, "http://tracking.example:5000"))
    assert pages.find_tracking(moved, None) == "http://tracking.example:5000"
    path.write_text(path.read_text().replace("http://tracking.example:5000", f"sqlite:///{tmp_path}/gone.db"))
    shutil.copy(other, moved / "mlflow.db")
    assert pages.find_tracking(moved, None) == f"sqlite:///{moved / 'mlflow.db'}"
    with pytest.raises(InputError, match="no longer writes folders"):
        pages.find_tracking(moved, str(moved))


def test_runs_on_a_server_are_pointed_at_and_nothing_is_started(finished, monkeypatch, capsys):
    monkeypatch.setattr(pages, "find_tracking", lambda storage, uri: "http://tracking.example:5000")
    monkeypatch.setattr(pages, "mlflow_client", lambda uri: mlflow_client(finished.uri))
    monkeypatch.setattr(pages, "server", None)
    code, printed = run(capsys, "--storage", finished.storage)
    assert code == 0 and "http://tracking.example:5000/#/experiments/" in printed.out


def test_the_link_of_a_sweep_shows_its_trials_the_best_first_with_what_tells_them_apart(finished):
    links = pages.links(finished.uri, finished.storage, "http://127.0.0.1:5000")
    client = mlflow_client(finished.uri)
    experiment = client.get_experiment_by_name("tiny")
    page = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert links == {"s1": f"{page}&viewStateShareKey={finished.record.identity}", "all of tiny": page}
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{finished.record.identity}"])
    order = [f"{view['orderByKey']} {'ASC' if view['orderByAsc'] else 'DESC'}"]
    runs = client.search_runs([experiment.experiment_id], view["searchFilter"], order_by=order)
    values = [run.data.metrics["objective"] for run in runs if "objective" in run.data.metrics]
    assert len(values) == 3 and values == sorted(values, reverse=True)
    assert {run.data.tags["trial"] for run in runs} <= {"sweep", "t01", "t02", "t03", "t04"}
    assert view["compareRunCharts"][0]["selectedParams"] == ["lr"]
    assert view["isAccordionReordered"] is True, "MLflow would sort its own sections before that of the chart"
    for column in view["selectedColumns"]:
        kind, _, name = column.partition(".")
        if kind != "attributes":
            assert name.strip("`") in getattr(runs[0].data, kind), column
    assert {"metrics.`val_best/film/ndcg_10`", "params.`lr`", "tags.`outcome`"} <= set(view["selectedColumns"])


def test_sweeps_of_a_comparison_are_not_listed(finished, tmp_path):
    for name in ("s1", "c--sasrec", "s1--x"):
        shutil.copytree(finished.record.folder, tmp_path / "sweeps" / name)
    (tmp_path / "comparisons" / "c").mkdir(parents=True)
    assert len(pages.newest_sweeps(tmp_path)) == 2


def test_a_database_that_does_not_answer_is_one_sentence(finished):
    with pytest.raises(InputError, match="tracking at http://127.0.0.1:9 does not work"):
        pages.links("http://127.0.0.1:9", finished.storage, "http://127.0.0.1:9")


@pytest.mark.slow
def test_a_server_that_cannot_start_is_one_sentence(tmp_path, capsys):
    (tmp_path / "mlflow.db").write_text("this is no database")
    code, printed = run(capsys, "--storage", tmp_path, "--port", free_port())
    assert code == 2 and "did not start" in printed.err and str(tmp_path / "ui.log") in printed.err


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted_and_leaves_nothing_behind(finished, tmp_path):
    port = free_port()
    words = [sys.executable, str(COMMAND), "--port", str(port), "--storage", str(finished.storage)]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        lines = []
        while "Ctrl-C ends it" not in "".join(lines[-1:]):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        assert finished.uri in lines[0] and f"http://127.0.0.1:{port}" in lines[1] and lines[1].startswith("s1")
        experiment = mlflow_client(finished.uri).get_experiment_by_name("tiny").experiment_id
        assert (
            f"/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={finished.record.identity}"
            in lines[1]
        )
        found = _search(port, experiment, f"tags.sweep_id = '{finished.record.identity}' and tags.trial != 'sweep'")
        assert {tag["value"] for run in found for tag in run["data"]["tags"] if tag["key"] == "trial"} >= {"t01", "t02"}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert b"MLflow" in page.read()
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.read().strip() == "stopped"
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while not _is_free(port):
        assert time.monotonic() < end, "the server is still there"
        time.sleep(0.1)
    assert not list(tmp_path.iterdir()), "MLflow wrote into the current folder"


def _search(port, experiment, condition):
    body = json.dumps({"experiment_ids": [experiment], "filter": condition}).encode()
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["runs"]


def _is_free(port):
    try:
        pages.check_port(port)
    except InputError:
        return False
    return True


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "ui.log").mkdir()
    with (
        pytest.raises(InputError, match=str(tmp_path / "ui.log")),
        pages.server(["server"], "", tmp_path / "ui.log", {}),
    ):
        pass
