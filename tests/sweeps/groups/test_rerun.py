"""Whole reruns on a fake trial floor, and the command line."""

import csv
import io
import sys
from collections import Counter
from pathlib import Path

import group_fakes
import numpy as np
import pytest
from group_fakes import Floor, go, resume
from scipy import stats
from sweep_fakes import grow, tiny_data, tiny_scenario
from typer.testing import CliRunner

from llmemf.errors import InputError
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.groups.blocks import blocks_of
from sweeps.groups.group import Group, Row
from sweeps.groups.notes import notes_of, warnings_of
from sweeps.groups.render import files
from sweeps.groups.results import GroupState, RowResult, SeedResult
from sweeps.groups.table import OBJECTIVE, build_table
from sweeps.state.sweep_record import find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord
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


def lines_of(text):
    """The CSV table by trial and metric."""
    return {(line["trial"], line["metric"]): line for line in csv.DictReader(io.StringIO(text))}


def lines_in(record):
    return lines_of((record.folder / "rerun.csv").read_text())


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
    line = lines_in(record)["t03", "test/movie/mrr"]
    assert line["winner"] == "1" and line["seeds"] == "3"
    for name in ("rerun.md", "rerun.csv"):
        assert (sweep.folder / name).read_text() == (record.folder / name).read_text()
    assert "Test of t03" in text and "t02  validation" in text
    assert str(record.folder / "rerun.log") in text and (record.folder / "rerun.log").exists()


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
    assert lines_in(record) == lines_in(other)


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
    lines = lines_in(record)
    assert top.data.metrics["test/movie/mrr"] == float(lines["t03", "test/movie/mrr"]["mean"])
    mean = float(lines["t03", "objective"]["mean"])
    assert top.data.metrics["objective/t03"] == top.data.metrics["objective"] == mean
    assert {file.path for file in client.list_artifacts(top.info.run_id)} == {
        "rerun.md", "rerun.html", "rerun.csv", "rerun.yaml",
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
    assert find_sweep(Path(sweep.storage)).name == "s1"
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
    assert "t02 0.9000 lr=4e-3" in " ".join(done.output.split()) and "nothing was started" in done.output
    assert not (Path(sweep.storage) / "reruns").exists()


NEAR = {"t10": [0.0510, 0.0494, 0.0483, 0.0526, 0.0471], "t12": [0.0507, 0.0499, 0.0475, 0.0509, 0.0473]}
FAR = {"t10": [0.0510, 0.0512, 0.0509, 0.0511, 0.0510], "t12": [0.0310, 0.0313, 0.0308, 0.0311, 0.0309]}


def make(values, *, reasons=None, winner="", tested=(), missing=()):
    trials = list(values)
    rows = [
        Row(name=name, title=name, model="llm_emf", overrides={"lr": 0.01}, varied={"lr": 0.01}, objective=0.06)
        for name in trials
    ]
    group = Group(
        kind="rerun", name="s1-rerun", requested="sample", scenario="sample", rows=rows, test="winner", winner=winner,
        facts={"sweep": "s1", "earlier_looks": 1}, seeds=[1, 2, 3, 4, 5], data_root="/", storage="/",
        tracking_uri="x",
    )  # fmt: skip
    results, seeds = [], {}
    for name, own in values.items():
        result = RowResult(name, outcome="missing" if name in missing else "done", reason=(reasons or {}).get(name, ""))
        if name in tested:
            trained = {"best_epoch": 3, "epochs_run": 4, "seconds": 1.0}
            metrics = {s: {"test/movie/mrr": v / 2} for s, v in enumerate(own, start=1)}
            result.seeds = {s: SeedResult(metrics=of_seed, **trained) for s, of_seed in metrics.items()}
        results.append(result)
        seeds[name] = {
            seed: TrialRecord(
                seed, {}, 4, objective=value, best_epoch=3, metrics={"val/movie/mrr": value, "val/mrr": value}
            )
            for seed, value in enumerate(own, start=1)
        }
    return build_table(group, tiny_scenario(), results, seeds, {})


def markdown(table):
    return files(table)["rerun.md"]


def against_leader(row):
    return row.seed_tests[OBJECTIVE]


def test_a_ranking_within_the_noise_is_warned_of():
    table = make(NEAR)
    assert table.winner == "t10" and [line.name for line in table.rows] == ["t10", "t12"]
    (warning,) = warnings_of(table)
    p = stats.ttest_rel(NEAR["t10"], NEAR["t12"]).pvalue
    assert warning.startswith("The ranking is within the noise") and f"p {p:.3f}, intervals overlap" in warning
    assert f"**{warning}**" in markdown(table)


def test_a_clear_ranking_is_not():
    table = make({"t12": FAR["t12"], "t10": FAR["t10"]})
    assert table.winner == "t10" and not warnings_of(table)
    assert against_leader(table.rows[1]).p == stats.ttest_rel(FAR["t12"], FAR["t10"]).pvalue
    assert against_leader(table.rows[1]).difference == pytest.approx(np.mean(FAR["t12"]) - np.mean(FAR["t10"]))


def test_noise_behind_a_clear_second_place_is_told_apart():
    middle = [value - 0.0001 * (1 + 0.01 * place) for place, value in enumerate(FAR["t10"])]
    noisy = [0.09, 0.01, 0.08, 0.02, 0.04]
    table = make({**FAR, "t07": noisy})
    assert warnings_of(table)[0].startswith("Not all") is (table.rows[1].name != "t07")
    assert "t07" in warnings_of(table)[0] and "t12" not in warnings_of(table)[0]
    assert not warnings_of(make({"t10": FAR["t10"], "t11": middle})), (
        "nearly the same distance at every seed is no noise"
    )


def test_holm_counts_the_others():
    table = make({**NEAR, "t04": [0.0480, 0.0499, 0.0470, 0.0505, 0.0465]})
    raw = {line.name: against_leader(line).p for line in table.rows if line.seed_tests}
    small, large = sorted(raw, key=raw.get)
    adjusted = {line.name: against_leader(line).adjusted for line in table.rows if line.seed_tests}
    assert adjusted[small] == pytest.approx(min(1, 2 * raw[small]))
    assert adjusted[large] == pytest.approx(max(adjusted[small], raw[large]))


def test_one_seed_is_warned_of():
    table = make({"t10": [0.05], "t12": [0.04]})
    assert table.winner == "t10" and "One seed says nothing" in warnings_of(table)[0]
    line = blocks_of(table)[0].rows[0]
    assert [line[key].text for key in ("validation", "sd", "95 % interval", "p")] == ["0.0500", "-", "-", "leader"]


def test_one_of_which_a_seed_failed_does_not_win():
    table = make({"t10": [0.09, 0.09], "t12": NEAR["t12"]}, reasons={"t10": "3 of 5 seeds failed: NonFiniteLoss"})
    assert table.winner == "t12" and table.rows[0].name == "t12"
    assert len(table.rows[1].values[OBJECTIVE]) == 2 and against_leader(table.rows[1]).against == "t12"
    assert "NonFiniteLoss" in markdown(table)
    assert make({"t10": [], "t12": NEAR["t12"]}, missing=["t10"]).winner == "t12"
    assert make({"t10": []}, missing=["t10"]).winner == ""


def test_the_one_that_was_tested_stays_the_winner():
    table = make(NEAR, winner="t12", tested=["t12"])
    assert table.winner == "t12" and "t12 was chosen and tested earlier; t10 leads now" in warnings_of(table)[0]
    assert table.tested["test/movie/mrr"].mean == pytest.approx(np.mean(NEAR["t12"]) / 2)


def test_luck_of_the_search_is_told():
    notes = " ".join(notes_of(make(NEAR)))
    assert "t10, t12 scored above the interval" in notes
    assert "1 time before" not in notes and "1 time before" in " ".join(notes_of(make(NEAR, tested=["t10"])))


def test_the_files_hold_the_same_numbers():
    table = make(NEAR, tested=["t10"])
    written = files(table)
    lines, page = lines_of(written["rerun.csv"]), written["rerun.md"]
    for row in table.rows:
        line, spread = lines[row.name, OBJECTIVE], row.cells[OBJECTIVE]
        assert [float(value) for value in line["values"].split(";")] == NEAR[row.name]
        assert (float(line["mean"]), float(line["low"])) == (spread.mean, spread.low)
        assert f"{spread.mean:.4f} | {spread.deviation:.4f}" in page
    assert (lines["t10", OBJECTIVE]["winner"], lines["t10", OBJECTIVE]["p"]) == ("1", "")
    assert float(lines["t12", OBJECTIVE]["p"]) == stats.ttest_rel(NEAR["t10"], NEAR["t12"]).pvalue
    tested = table.tested["test/movie/mrr"]
    assert float(lines["t10", "test/movie/mrr"]["mean"]) == tested.mean
    assert ("t12", "test/movie/mrr") not in lines
    assert f"| movie | stored candidates | {tested.mean:.4f} ± {tested.deviation:.4f} |" in page
    assert set(written) == {"rerun.md", "rerun.html", "rerun.csv"}


def test_a_row_of_which_some_seeds_have_ended_is_not_one_that_has_not_run(sweep):
    record = plan(top=2, seeds=3)
    go(record, Floor(stops_at=3, value=value))
    table = (record.folder / "rerun.md").read_text()
    assert "t02: unfinished" in table and "t03: not run yet" in table
