"""The command: both pages in the sweep's folder and among the artifacts of its run; a running sweep is only read."""

import io
import os
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from report_fakes import make_sweep, rising, trial
from rich.console import Console
from sweep_fakes import tiny_data

from llmemf.command_line import command_line
from sweeps.cli.main import run_script
from sweeps.core.storage import locked
from sweeps.reporting import write
from sweeps.reporting.tracked import find_runs, log_report
from sweeps.reporting.write import write_at_end
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import RunOwner
from sweeps.tracking.runs import Tracking, TrackingTarget

TRIALS = [trial(rising(0.05)), trial([0.01, 0.02], "pruned"), trial([], "failed")]


@pytest.fixture
def storage(project_folder, empty_database):
    """`mlruns` of the current folder, with a database."""
    (project_folder / "mlruns").mkdir()
    shutil.copy(empty_database, project_folder / "mlruns" / "mlflow.db")
    return project_folder / "mlruns"


def track(record):
    """Write the sweep's runs into MLflow, by the code that a sweep uses."""
    artifacts = (record.folder.parent.parent / "artifacts").as_uri()
    target = TrackingTarget(
        record.tracking_uri, "sample", RunOwner.of(record), artifacts, {"text_encoder": "offline"}, {"epochs": 6}
    )
    tracking = Tracking(target)
    state = SweepState(record.folder)
    tracking.connect()
    tracking.open(state)
    best = state.records[1]
    tracking.log_parent(metrics={"objective": best.objective, **best.metrics}, step=1, time=1)
    assert tracking.close("completed") == ""
    return state


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["report.py", *words])
    with pytest.raises(SystemExit) as stopped:
        run_script("report.py")
    return stopped.value.code, *capsys.readouterr()


def test_both_pages_are_written_and_logged(storage, monkeypatch, capsys):
    record = make_sweep(storage, TRIALS)
    track(record)
    code, said, _ = run(monkeypatch, capsys)
    assert code == 0 and "report.html" in said and "not logged" not in said
    page = (record.folder / "report.html").read_text()
    assert "Features by offline encoders (text), not by CLIP." in page
    tracked = find_runs(record)
    client = mlflow_client(record.tracking_uri)
    assert {item.path for item in client.list_artifacts(tracked.run)} == {"report.html", "report.md"}
    stored = Path(client.download_artifacts(tracked.run, "report.html"))
    assert stored.read_text() == page
    # MLflow's number of the best trial stands on the page with all of its digits.
    assert f'data-v="{tracked.metrics["objective"]!r}"' in page
    for metric in ("val/movie/mrr", "val/book/ndcg_10", "val_full/book/mrr"):
        assert f'data-v="{tracked.metrics[metric]!r}"' in page


def test_the_page_at_the_end_of_a_sweep_never_fails_it(storage, monkeypatch):
    record, out = make_sweep(storage, TRIALS), io.StringIO()
    data, console = tiny_data(), Console(file=out, width=300)
    assert write_at_end(record, data, console, False) == str(record.folder / "report.html")
    assert "t01" in (record.folder / "report.html").read_text() and out.getvalue() == ""
    # Data of a size that takes minutes is left to the command.
    monkeypatch.setattr(write, "QUICK", 0)
    write_at_end(record, data, console, False)
    assert command_line("report", record.name) in (record.folder / "report.md").read_text()
    for error, said in ((ZeroDivisionError("by 0"), "by 0"), (KeyboardInterrupt(), "")):
        monkeypatch.setattr(write, "as_html", Mock(side_effect=error))
        assert write_at_end(record, data, console, False) == "" and out.getvalue().strip().endswith(said)
    assert out.getvalue().count("\n") == 1


def test_a_running_sweep_is_only_read(storage, monkeypatch, capsys):
    record = make_sweep(storage, [*TRIALS, trial([0.01], "")], status="running", opened={"pid": os.getpid()})
    track(record)
    before = {path: path.read_bytes() for path in record.folder.iterdir() if path.name != ".lock"}
    with locked(record.folder, record.name):
        code, said, _ = run(monkeypatch, capsys, "s1", "--no-breakdown")
    assert code == 0 and "still running" in said and "not logged to MLflow: it is still running" in said
    assert {path: path.read_bytes() for path in before} == before
    assert "still running" in (record.folder / "report.md").read_text()
    assert mlflow_client(record.tracking_uri).list_artifacts(find_runs(record).run) == []


def test_without_mlflow_the_report_is_written_all_the_same(project_folder, monkeypatch, capsys):
    storage = project_folder / "elsewhere"
    record = make_sweep(storage, TRIALS)
    code, said, _ = run(monkeypatch, capsys, "s1", "--storage", "elsewhere")
    assert code == 0 and "not logged to MLflow: there is no database" in said
    assert not (storage / "mlflow.db").exists() and not (project_folder / "mlruns").exists()
    assert "weights of t01 are not in" in (record.folder / "report.md").read_text()


def test_a_server_that_is_away_is_a_sentence(storage):
    record = make_sweep(storage, TRIALS)
    record.tracking_uri = "http://127.0.0.1:9"
    tracked = find_runs(record)
    assert tracked.problem == "no server answers at http://127.0.0.1:9" and log_report(tracked, []) == tracked.problem
    record.tracking_uri = f"sqlite:///{storage / 'mlflow.db'}"
    assert find_runs(record).problem == "there is no experiment 'sample'"


def test_mistakes_are_one_line(project_folder, monkeypatch, capsys):
    code, _, said = run(monkeypatch, capsys)
    assert code == 2 and said.startswith("error: ") and "no sweep in" in said and said.count("\n") == 1
    (project_folder / "notes").write_text("")
    code, _, said = run(monkeypatch, capsys, "--storage", "notes/x")
    assert code == 2 and "notes is a file" in said
    record = make_sweep(project_folder / "mlruns", TRIALS, name="first")
    code, _, said = run(monkeypatch, capsys, "frist")
    assert code == 2 and "there is no sweep 'frist'" in said and "first" in said
    (record.folder / "report.html").mkdir()
    code, _, said = run(monkeypatch, capsys, "first", "--no-breakdown")
    assert code == 2 and said.count(str(record.folder / "report.html")) == said.count(str(record.folder)) == 1
    (record.folder / "report.html").rmdir()
    (record.folder / "journal.jsonl").write_text("garbage\nand more\n")
    code, _, said = run(monkeypatch, capsys, "first")
    assert code == 2 and "line 1 is damaged" in said and said.count("\n") == 1
    assert not (record.folder / "report.html").exists()
