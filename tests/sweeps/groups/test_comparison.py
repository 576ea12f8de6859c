"""Whole comparisons: with a fake trial floor and a real MLflow, and one with real systems on a real Ray."""

from __future__ import annotations

import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import group_fakes
import numpy as np
import pytest
import tiny
from group_fakes import Floor
from sweep_fakes import tiny_data

from llmemf.errors import InputError
from sweeps.groups.evaluation import load_ranks, ranks_path
from sweeps.groups.results import GroupState
from sweeps.groups.run import SharedRay
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import PARENT

ROOT = Path(__file__).resolve().parents[3]
MODELS = ["popularity", "gru4rec", "sasrec"]
TESTS = 1 + 2 + 2


@pytest.fixture
def here(project_folder, empty_database):
    (project_folder / "mlruns").mkdir()
    (project_folder / "mlruns" / "mlflow.db").write_bytes(empty_database.read_bytes())
    return project_folder


def start(floor, mlflow=False, **options):
    options = {"scenario": "sample", "name": "c1", "models": MODELS, "trials_per_model": 3, "seeds": 2, **options}
    group = group_fakes.plan("comparison", **options)
    return *group_fakes.go(group, floor, mlflow=mlflow), group


def resume(floor, data=None, **options):
    group = group_fakes.resume("comparison", **options)
    return *group_fakes.go(group, floor, data), group


def table_of(record):
    return list(csv.DictReader((record.folder / "comparison.csv").open()))


def count_of_tests(record):
    return Counter(
        (event["row"], event["seed"])
        for event in GroupState(record.folder).event_log.read()
        if event["event"] == "tested"
    )


def test_every_system_is_searched_trained_over_seeds_and_tested_once(here):
    floor = Floor()
    code, text, record = start(floor)
    assert code == 0, text
    assert Counter(name for name, _ in floor.trained) == {
        "c1--popularity": 2, "c1--popularity--seeds": 1, "c1--gru4rec": 3, "c1--gru4rec--seeds": 2, "c1--sasrec": 3,
        "c1--sasrec--seeds": 2,
    }  # fmt: skip
    assert [(model, seed) for model, seed, _ in floor.tests] == [
        ("popularity", 1), ("gru4rec", 1), ("gru4rec", 2), ("sasrec", 1), ("sasrec", 2),
    ]  # fmt: skip
    assert "GRU4Rec: graph abc." in (record.folder / "comparison.md").read_text(), "what a model says of itself"
    assert all("--seeds/" in str(folder) for *_, folder in floor.tests), "a search must not see the test split"
    assert [line.split()[1] for line in text.splitlines() if line[:1].isdigit()] == ["Popularity", "GRU4Rec", "SASRec"]
    for name in ("comparison.md", "comparison.tex", "comparison.csv", "comparison.yaml"):
        assert (record.folder / name).stat().st_size > 100
    state = GroupState(record.folder)
    sasrec = state.results["sasrec"]
    # Of the three trials the one with the largest learning rate is the best by this floor's formula.
    tried = [item.config["lr"] for item in SweepState(record.sweep_folder("sasrec")).records.values()]
    seeds = SweepState(record.sweep_folder("sasrec", "seeds")).records.values()
    assert sasrec.chosen["lr"] == max(tried)
    assert {item.config["seed"] for item in seeds} == {1, 2}
    assert sasrec.seeds[1].seconds == 2.0 * record.fixed["epochs"] and sasrec.search["trials"] == 3
    cell = next(line for line in table_of(record) if line["model"] == "sasrec")
    ranks = load_ranks(ranks_path(record.folder, "sasrec", 1))
    of_domain = ranks["sampled"][ranks["domain"] == (cell["domain"] == "book")]
    assert float(cell["values"].split(";")[0]) == pytest.approx(100 * np.mean(1 / of_domain))


def test_mlflow_has_one_tree(here):
    _, _, record = start(Floor(), mlflow=True, models=["popularity", "sasrec"])
    client = mlflow_client(record.tracking_uri)
    experiment = client.get_experiment_by_name("sample")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (top,) = [run for run in runs if run.data.tags["sweep"] == "comparison c1"]
    assert top.info.run_name == "comparison c1" and top.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(top.info.run_id)} >= {"comparison.md", "comparison.tex"}
    mean = np.mean(list(GroupState(record.folder).results["sasrec"].values("test/book/mrr").values()))
    assert top.data.metrics["test/book/mrr/sasrec"] == pytest.approx(mean)
    below = {run.data.tags["sweep"]: run for run in runs if run.data.tags.get("mlflow.parentRunId") == top.info.run_id}
    assert set(below) == {"c1--popularity", "c1--popularity--seeds", "c1--sasrec", "c1--sasrec--seeds"}
    assert all(run.data.tags["comparison"] == "c1" and run.data.tags["trial"] == PARENT for run in below.values())
    for run in runs:
        has_test = any(name.startswith("test") for name in run.data.metrics)
        is_seed = run.data.tags["sweep"].endswith("--seeds") and run.data.tags["trial"] != PARENT
        assert has_test == (is_seed or run is top), run.data.tags["sweep"]


def test_a_completed_comparison_repeats_nothing(here):
    _, _, record = start(Floor())
    before, floor = table_of(record), Floor()
    code, text, record = resume(floor)
    assert code == 0 and not floor.trained and not floor.tests and text.count(", earlier") == 3
    assert table_of(record) == before


@pytest.mark.parametrize("step", [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 8, 18))])
def test_stopped_anywhere_it_ends_as_if_it_had_not_been(here, step):
    """18 steps in all: the trials of searches and seeds, and the tests."""
    first = Floor(stops_at=step)
    code, text, record = start(first)
    assert code == 130 and "--resume --name c1" in text
    assert (record.folder / "comparison.md").exists()
    second = Floor()
    code, text, record = resume(second)
    assert code == 0, text
    assert max(count_of_tests(record).values()) == 1 and len(count_of_tests(record)) == TESTS
    whole = [*first.trained, *second.trained]
    assert len(set(whole)) == len(whole) == 13, "no trial is trained twice"
    assert len(first.tests) + len(second.tests) == TESTS
    _, _, other = start(Floor(), name="c2")
    assert table_of(record) == table_of(other)


def test_a_system_that_fails_or_cannot_run_is_shown_and_ends_no_other(here):
    code, text, record = start(Floor(fails=["gru4rec"]), assignments=["sasrec.heads=3"])
    assert code == 4 and record.status == "incomplete"
    systems = GroupState(record.folder).results
    assert {name: result.outcome for name, result in systems.items()} == {
        "popularity": "done", "gru4rec": "failed", "sasrec": "missing",
    }  # fmt: skip
    assert systems["gru4rec"].reason == "3 trials failed: NonFiniteLoss: gru4rec"
    assert "heads = 3" in systems["sasrec"].reason
    assert "GRU4Rec     failed: 3 trials failed" in text and "SASRec      cannot run: " in text
    assert "1 of 3 rows, wholly or in part: gru4rec" in text and text.rstrip().endswith(
        "--resume --name c1 --retry-failed"
    )
    page = (record.folder / "comparison.md").read_text()
    assert re.search(r"\| GRU4Rec[^|]*: failed \| - \|", page) and re.search(
        r"\| SASRec[^|]*: cannot run \| - \|", page
    )
    assert {line["model"]: line["outcome"] for line in table_of(record)} == {
        "popularity": "done", "gru4rec": "failed", "sasrec": "missing",
    }  # fmt: skip


@pytest.mark.slow
def test_no_result_at_all_is_exit_code_1_and_is_tried_again(here):
    code, _, record = start(Floor(nan=["sasrec"]), models=["sasrec"])
    assert code == 1 and GroupState(record.folder).results["sasrec"].reason == "a score is NaN"
    assert record.status == "failed"
    floor = Floor()
    code, _, _ = resume(floor)
    assert code == 0 and not floor.trained and len(floor.tests) == 2


def test_all_are_tested_against_a_reference_that_was_named_beforehand(here):
    code, text, record = start(Floor(), reference="popularity")
    assert code == 0 and "reference   Popularity" in text
    lines = [line for line in table_of(record) if line["metric"] == "mrr"]
    assert {line["model"]: line["against"] for line in lines} == {
        "popularity": "", "gru4rec": "popularity", "sasrec": "popularity",
    }  # fmt: skip
    assert "against Popularity, named beforehand" in (record.folder / "comparison.md").read_text()
    with pytest.raises(InputError, match=r"--reference.*sasrek.*sasrec"):
        start(Floor(), name="c2", reference="sasrek")


def test_a_system_can_be_added_to_a_completed_comparison(here):
    start(Floor(), models=["popularity"])
    floor = Floor()
    code, text, record = resume(floor, models=["sasrec"])
    assert code == 0 and record.names == ["popularity", "sasrec"] and "1 of 2 systems done" in text
    assert {name.split("--")[1] for name, _ in floor.trained} == {"sasrec"}
    assert {line["against"] for line in table_of(record)} == {"popularity", "sasrec"}


def test_ranks_that_were_lost_are_made_again_without_another_result(here):
    _, _, record = start(Floor(), models=["sasrec"])
    before = table_of(record)
    ranks_path(record.folder, "sasrec", 2).unlink()
    floor = Floor()
    code, _, record = resume(floor)
    assert code == 0 and [(model, seed) for model, seed, _ in floor.tests] == [("sasrec", 2)] and not floor.trained
    assert table_of(record) == before and max(count_of_tests(record).values()) == 1


@pytest.mark.slow
def test_a_spent_time_budget_leaves_a_comparison_to_be_resumed(here):
    floor = Floor()
    record = group_fakes.plan("comparison", scenario="sample", name="c1", models=MODELS)
    code, text = group_fakes.go(record, floor, time_budget=0.001)
    assert code == 3 and not floor.trained and "the time budget is spent" in text
    assert resume(Floor())[0] == 0


def test_other_data_under_the_same_name_is_refused(here):
    start(Floor(), models=["popularity"])
    scenario = tiny.make_scenario(name="sample")
    other = tiny_data()
    other.scenario = scenario
    with pytest.raises(InputError, match="has changed since comparison 'c1' was started"):
        resume(Floor(), other)


def test_one_ray_as_long_as_the_data_fits(monkeypatch):
    started = []
    monkeypatch.setattr("sweeps.groups.run.start_ray", lambda record, size: started.append(size >> 20) or (2, []))
    monkeypatch.setattr("sweeps.groups.run.stop_ray", lambda: None)
    ray = SharedRay()
    plan = SimpleNamespace(record=None, notices=[])

    def start(size):
        return ray.start(plan, SimpleNamespace(shared_bytes=lambda: size * 2**20))

    assert [start(size) for size in (10, 10, 30, 300, 10)] == [2] * 5
    assert started == [10, 300], "with 100 MB to spare"
    ray.stop()
    assert start(10) == 2 and len(started) == 3


def compare(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LLMEMF_DATA_ROOT")}
    command = [sys.executable, str(ROOT / "sweeps" / "compare.py"), *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.chaos
def test_two_real_systems_with_the_driver_killed_in_between(here):
    tiny.make_scenario().save(here / "data")
    arguments = ["--scenario", "tiny", "--models", "popularity,sasrec", "--trials-per-model", "2", "--seeds", "2"]
    arguments += ["--epochs", "12", "--set", "dim=6", "--set", "batch_size=4", "--set", "patience=0", "--name", "c1"]
    process = compare(here, *arguments)
    log = here / "mlruns" / "sweeps" / "c1--sasrec--seeds" / "journal.jsonl"
    end = time.monotonic() + 240
    while not (log.exists() and '"epoch"' in log.read_text()):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    popularity = (here / "mlruns" / "sweeps" / "c1--popularity" / "journal.jsonl").read_bytes()
    process = compare(here, "--resume")
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    record = group_fakes.resume("comparison")
    assert (here / "mlruns" / "sweeps" / "c1--popularity" / "journal.jsonl").read_bytes() == popularity
    assert count_of_tests(record) == {("popularity", 1): 1, ("sasrec", 1): 1, ("sasrec", 2): 1}
    records = SweepState(record.sweep_folder("sasrec", "seeds")).records.values()
    assert all(item.outcome == "completed" and item.epoch == 12 for item in records)
    lines = [line for line in table_of(record) if line["metric"] == "mrr"]
    assert len(lines) == 2 * 2 * 2 and all(0 < float(line["mean"]) < 100 for line in lines)
    sasrec = [line for line in lines if line["model"] == "sasrec"]
    assert all(line["seeds"] == "2" and float(line["spread"]) > 0 for line in sasrec)
    assert all(not math.isnan(float(line["p_holm"])) for line in lines)
