"""Whole reruns on a fake trial floor, and the command line."""

import json
import sys
from collections import Counter
from pathlib import Path

import group_fakes
import pytest
from group_fakes import Floor, go, resume
from sweep_fakes import grow, tiny_data
from typer.testing import CliRunner

from llmemf.errors import InputError
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.groups.group import Group
from sweeps.groups.results import GroupState
from sweeps.state.sweep_record import find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import PARENT

SCORES = {0.003: 0.5, 0.004: 0.9, 0.005: 0.8, 0.006: 0.1}


def value(config, epoch):
    """With the seeds of a rerun lr = 0.005 is the best, 0.004 was lucky with the sweep's own."""
    lr = config["lr"]
    unlucky = lr == 0.004 and config["seed"] != 0
    return (SCORES[lr] - 0.3 * unlucky + lr * config["seed"] ** 2) * epoch / 10


@pytest.fixture
def sweep(project_folder):
    """A completed sweep of four trials: t01 0.5, t02 0.9, t03 0.8, t04 failed."""
    swept = plan_sweep(Options(scenario="sample", name="s1", epochs=3, assignments=["lr=0.003,0.004"]))
    record = swept.record
    record.folder.mkdir(parents=True)
    record.status, record.fingerprint = "completed", tiny_data().scenario.fingerprint
    record.save()
    state = SweepState(record.folder)
    rest = {key: block.points[0][index] for block in swept.space.blocks for index, key in enumerate(block.keys)}
    for lr, score in SCORES.items():
        trial = state.propose({**rest, "lr": lr}, ("lr",), 3, {})
        if lr == 0.006:
            state.fail(trial, "error", "diverged")
        else:
            grow(state, trial, 3, value=score)
    state.tested(state.records[2], {"test/movie/mrr": 0.3})
    state.stop("completed")
    return record


def plan(sweep=None, **options):
    return group_fakes.plan("rerun", sweep=sweep, **options)


def test_the_best_trials_are_planned_with_other_seeds(sweep):
    record = plan(top=2, seeds=3)
    assert record.names == ["t02", "t03"] and record.seeds == [1, 2, 3] and record.name == "s1-rerun"
    assert record.row("t02").overrides["lr"] == 0.004 and record.row("t02").overrides["epochs"] == 3
    assert not {"model", "seed"} & set(record.row("t02").overrides)
    assert record.row("t03").varied == {"lr": 0.005} and record.facts["earlier_looks"] == 1
    assert plan("s1", top=9).names == ["t02", "t03", "t01"], "failed ones have no place"


def test_validation_chooses_and_only_the_winner_is_tested_once(sweep):
    floor = Floor(value=value)
    record = plan("s1", top=2, seeds=3)
    code, text = go(record, floor)
    assert code == 0, text
    assert Counter(name for name, _ in floor.trained) == {"s1-rerun--t02--seeds": 3, "s1-rerun--t03--seeds": 3}
    assert [(Path(folder).parts[-4], seed) for _, seed, folder in floor.tests] == [("s1-rerun--t03--seeds", s) for s in (1, 2, 3)]  # fmt: skip
    stored = Group.load("rerun", record.folder)
    assert (stored.winner, stored.status) == ("t03", "completed")
    results = GroupState(record.folder).results
    assert set(results["t03"].seeds) == {1, 2, 3} and not results["t02"].seeds
    content = json.loads((record.folder / "rerun.json").read_text())
    assert content["winner"] == "t03" and content["test"]["test/movie/mrr"]["count"] == 3
    for name in ("rerun.md", "rerun.csv", "rerun.json"):
        assert (sweep.folder / name).read_text() == (record.folder / name).read_text()
    assert "test of t03" in text and "t02  validation" in text


@pytest.mark.slow
def test_a_completed_rerun_repeats_nothing(sweep):
    go(plan(top=2, seeds=2), Floor(value=value))
    floor = Floor(value=value)
    code, text = go(resume("rerun"), floor)
    assert code == 0 and not floor.trained and not floor.tests and text.count(", earlier") == 2


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6])
def test_stopped_anywhere_it_ends_as_if_it_had_not_been(sweep, step):
    """6 steps: two seeds of two trials, and two tests."""
    first, second = Floor(stops_at=step, value=value), Floor(value=value)
    record = plan(top=2, seeds=2)
    code, text = go(record, first)
    assert code == 130 and "--resume --name s1-rerun" in text
    record = resume("rerun", name="s1-rerun")
    code, text = go(record, second)
    assert code == 0, text
    trained = [*first.trained, *second.trained]
    assert len(trained) == len(set(trained)) == 4 and len(first.tests) + len(second.tests) == 2
    other = plan(top=2, seeds=2, name="again")
    go(other, Floor(value=value))
    mine, its = (json.loads((one.folder / "rerun.json").read_text()) for one in (record, other))
    assert {**mine, "rerun": ""} == {**its, "rerun": ""}


def test_a_trial_that_diverges_is_shown(sweep):
    code, text = go(plan(top=1, seeds=2), Floor(fails=["llm_emf"]))
    assert code == 1 and "2 seeds failed: NonFiniteLoss" in text


@pytest.mark.slow
def test_mlflow_has_one_tree(sweep, empty_database):
    (Path(sweep.storage) / "mlflow.db").write_bytes(empty_database.read_bytes())
    record = plan(top=2, seeds=2)
    go(record, Floor(value=value), mlflow=True)
    client = mlflow_client(record.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("sample").experiment_id])
    (top,) = [run for run in runs if run.data.tags["sweep"] == "rerun s1-rerun"]
    content = json.loads((record.folder / "rerun.json").read_text())
    assert top.data.metrics["test/movie/mrr"] == content["test"]["test/movie/mrr"]["mean"]
    assert (
        top.data.metrics["objective/t03"]
        == top.data.metrics["objective"]
        == content["configurations"][0]["spread"]["mean"]
    )
    assert {file.path for file in client.list_artifacts(top.info.run_id)} == {
        "rerun.md", "rerun.html", "rerun.csv", "rerun.json", "rerun.yaml",
    }  # fmt: skip
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert {run.data.tags["sweep"] for run in below} == {"s1-rerun--t02--seeds", "s1-rerun--t03--seeds"}
    assert all(run.data.tags["rerun"] == "s1-rerun" and run.data.tags["trial"] == PARENT for run in below)


@pytest.mark.parametrize(
    ("status", "options", "message"),
    [
        ("interrupted", {}, "sweep 's1' is not completed \\(interrupted\\): continue it with .* --resume --name s1"),
        ("completed", {"sweep": "s2"}, "rerun: there is no sweep 's2': valid names: s1"),
        ("completed", {"name": "a b"}, "--name 'a b'"),
    ],
)
def test_mistakes(sweep, status, options, message):
    sweep.status = status
    sweep.save()
    with pytest.raises(InputError, match=message):
        plan(**options)


def test_a_stored_rerun_is_not_started_anew_nor_changed_and_its_sweeps_are_no_sweeps_of_the_user(sweep):
    go(plan(top=1, seeds=1), Floor(value=value))
    assert find_sweep(Path(sweep.storage), "--resume", name=None, scenario=None).name == "s1"
    with pytest.raises(InputError, match="one configuration over seeds already"):
        plan("s1-rerun--t02--seeds")
    with pytest.raises(InputError, match="a rerun named 's1-rerun' exists"):
        plan()
    with pytest.raises(InputError, match="as it was started: leave out --top"):
        resume("rerun", top=4)
    with pytest.raises(InputError, match="there is no rerun 'r7'"):
        resume("rerun", name="r7")


def test_the_command_shows_its_plan(sweep, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    from sweeps.cli.main import single

    done = CliRunner().invoke(single("rerun"), ["s1", "--top", "2", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "t02  0.9000  lr=4e-3" in done.output and "nothing was started" in done.output
    assert not (Path(sweep.storage) / "reruns").exists()
