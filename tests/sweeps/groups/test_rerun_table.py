import csv
import io
import json

import numpy as np
import pytest
from scipy import stats
from sweep_fakes import tiny_scenario

from sweeps.groups import rerun, rerun_table
from sweeps.groups.group import Group, Row
from sweeps.groups.results import RowResult, SeedResult
from sweeps.groups.table import OBJECTIVE, build_table
from sweeps.state.trial_records import TrialRecord

NEAR = {"t10": [0.0510, 0.0494, 0.0483, 0.0526, 0.0471], "t12": [0.0507, 0.0499, 0.0475, 0.0509, 0.0473]}
FAR = {"t10": [0.0510, 0.0512, 0.0509, 0.0511, 0.0510], "t12": [0.0310, 0.0313, 0.0308, 0.0311, 0.0309]}


def make(values, *, reasons=None, winner="", tested=(), missing=(), asked=2):
    trials = list(values)
    rows = [
        Row(name=name, title=name, model="llm_emf", overrides={"lr": 0.01}, varied={"lr": 0.01}, objective=0.06)
        for name in trials
    ]
    group = Group(
        kind="rerun", name="s1-rerun", requested="sample", scenario="sample", rows=rows, test="winner", winner=winner,
        facts={"sweep": "s1", "asked": asked, "earlier_looks": 1}, seeds=[1, 2, 3, 4, 5], data_root="/", storage="/",
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
    table = build_table(group, tiny_scenario(), results, seeds, {})
    rerun.KIND.annotate(table)
    return table


def markdown(table):
    return rerun.KIND.files(table)["rerun.md"]


def against_leader(row):
    return row.seed_tests[OBJECTIVE]


def test_a_ranking_within_the_noise_is_warned_of():
    table = make(NEAR)
    assert table.winner == "t10" and [line.name for line in table.rows] == ["t10", "t12"]
    (warning,) = table.warnings
    p = stats.ttest_rel(NEAR["t10"], NEAR["t12"]).pvalue
    assert warning.startswith("The ranking is within the noise") and f"p {p:.3f}, intervals overlap" in warning
    assert f"**{warning}**" in markdown(table)


def test_a_clear_ranking_is_not():
    table = make({"t12": FAR["t12"], "t10": FAR["t10"]})
    assert table.winner == "t10" and not table.warnings
    assert against_leader(table.rows[1]).p == stats.ttest_rel(FAR["t12"], FAR["t10"]).pvalue
    assert against_leader(table.rows[1]).difference == pytest.approx(np.mean(FAR["t12"]) - np.mean(FAR["t10"]))


def test_noise_behind_a_clear_second_place_is_told_apart():
    middle = [value - 0.0001 * (1 + 0.01 * place) for place, value in enumerate(FAR["t10"])]
    noisy = [0.09, 0.01, 0.08, 0.02, 0.04]
    table = make({**FAR, "t07": noisy})
    assert table.warnings[0].startswith("Not all") is (table.rows[1].name != "t07")
    assert "t07" in table.warnings[0] and "t12" not in table.warnings[0]
    assert not make({"t10": FAR["t10"], "t11": middle}).warnings, "nearly the same distance at every seed is no noise"


def test_holm_counts_the_others():
    table = make({**NEAR, "t04": [0.0480, 0.0499, 0.0470, 0.0505, 0.0465]})
    raw = {line.name: against_leader(line).p for line in table.rows if line.seed_tests}
    small, large = sorted(raw, key=raw.get)
    adjusted = {line.name: against_leader(line).adjusted for line in table.rows if line.seed_tests}
    assert adjusted[small] == pytest.approx(min(1, 2 * raw[small]))
    assert adjusted[large] == pytest.approx(max(adjusted[small], raw[large]))


def test_one_seed_is_warned_of():
    table = make({"t10": [0.05], "t12": [0.04]})
    assert table.winner == "t10" and "One seed says nothing" in table.warnings[0]
    assert rerun_table.cells(table.rows[0])[1:4] == ["0.0500", "-", "-"]


def test_one_of_which_a_seed_failed_does_not_win():
    table = make({"t10": [0.09, 0.09], "t12": NEAR["t12"]}, reasons={"t10": "3 of 5 seeds failed: NonFiniteLoss"})
    assert table.winner == "t12" and table.rows[0].name == "t12"
    assert len(table.rows[1].values[OBJECTIVE]) == 2 and against_leader(table.rows[1]).against == "t12"
    assert "NonFiniteLoss" in markdown(table)
    assert make({"t10": [], "t12": NEAR["t12"]}, missing=["t10"]).winner == "t12"
    assert make({"t10": []}, missing=["t10"]).winner == ""


def test_the_one_that_was_tested_stays_the_winner():
    table = make(NEAR, winner="t12", tested=["t12"])
    assert table.winner == "t12" and "t12 was chosen and tested earlier; t10 leads now" in table.warnings[0]
    assert table.tested["test/movie/mrr"].mean == pytest.approx(np.mean(NEAR["t12"]) / 2)


def test_luck_of_the_search_and_missing_trials_are_told():
    notes = " ".join(make(NEAR, asked=3).notes)
    assert "t10, t12 scored above the interval" in notes and "3 were asked for; the sweep has 2 trials" in notes
    assert "1 time before" not in notes and "1 time before" in " ".join(make(NEAR, tested=["t10"]).notes)


def test_the_files_hold_the_same_numbers():
    table = make(NEAR, tested=["t10"])
    lines = {
        (line["trial"], line["metric"]): line
        for line in csv.DictReader(io.StringIO(rerun.KIND.files(table)["rerun.csv"]))
    }
    content = json.loads(rerun.KIND.files(table)["rerun.json"])
    page = markdown(table)
    for entry in content["configurations"]:
        line = lines[entry["trial"], "objective"]
        assert [float(value) for value in line["values"].split(";")] == list(entry["objective"].values()) == NEAR[entry["trial"]]  # fmt: skip
        assert (float(line["mean"]), float(line["low"])) == (entry["spread"]["mean"], entry["spread"]["low"])
        assert f"{entry['spread']['mean']:.4f} | {entry['spread']['deviation']:.4f}" in page
    assert content["winner"] == "t10" and lines["t10", "objective"]["winner"] == "1"
    tested = content["test"]["test/movie/mrr"]
    assert float(lines["t10", "test/movie/mrr"]["mean"]) == tested["mean"]
    assert ("t12", "test/movie/mrr") not in lines
    assert f"| movie MRR | {tested['mean']:.4f} |" in page
    assert content["configurations"][0]["against_leader"] is None
