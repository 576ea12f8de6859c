"""Plans and whole ablations on a fake trial floor, their tables, and the command line."""

import csv
import sys
from collections import Counter
from pathlib import Path

import group_fakes
import numpy as np
import pytest
from group_fakes import Floor, make_sweep, resume
from scipy import stats
from typer.testing import CliRunner

from llmemf.errors import InputError
from sweeps.groups.encoders import Encoders
from sweeps.groups.evaluation import load_ranks, ranks_path
from sweeps.groups.group import Group
from sweeps.groups.results import GroupState
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import PARENT

ROWS = ["ids", "text", "text_llm", "text_image", "no_merged", "one_layer"]
OFFLINE = Encoders(text="offline", image="offline", problems={"llm": "no LLM text"})
SCORES = {0.003: 0.4, 0.01: 0.6}
RUN = ["ids", "text", "text_image", "no_merged"]


@pytest.fixture
def sweep(project_folder):
    return make_sweep("s1", SCORES)


def plan(**options):
    return group_fakes.plan("ablation", **{"scenario": "sample", "rows": ROWS, "seeds": 2, "name": "a1", **options})


def go(group, floor, **more):
    group.facts["encoders"] = OFFLINE.model_dump()
    return group_fakes.go(group, floor, **more)


def table_of(record):
    return list(csv.DictReader((record.folder / "ablation.csv").open()))


def test_rows_have_the_best_configuration_of_the_newest_completed_sweep(sweep):
    make_sweep("s2", SCORES, status="interrupted")
    record = plan()
    assert record.origin == "sweep s1 (t02)" and record.trials is None
    assert (record.fixed["lr"], record.fixed["alpha"], record.fixed["epochs"]) == (0.01, 0.2, 2)
    assert record.fixed["id_dim"] == 16, "the scenario file's own settings are those of the sweep"
    assert not {"model", "seed"} & set(record.fixed) and record.seeds == [1, 2]
    changed = plan(from_sweep="s1", scenario=None, assignments=["dropout=0.5", "id_dim=8"], epochs=1)
    assert (changed.fixed["dropout"], changed.fixed["id_dim"], changed.fixed["epochs"]) == (0.5, 8, 1)


def test_where_the_sample_stands_in_its_sweep_gives_the_configuration(sweep):
    record = plan(scenario="movie_book")
    assert (record.scenario, record.requested) == ("sample", "movie_book")
    assert record.origin == "sweep s1 (t02)"


def test_tuned_rows_search_what_a_sweep_would(project_folder):
    record = plan(tune=3, assignments=["lr=1e-3,1e-2"])
    assert record.trials == 3 and record.space["lr"] == [1e-3, 1e-2] and "alpha, beta" in record.space
    assert record.fixed["id_dim"] == 16 and record.constraints == ["alpha + beta <= 1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": 2, "from_sweep": "s1"}, "--tune and --from exclude each other"),
        ({"scenario": None}, "--scenario is missing"),
        ({"from_sweep": "s9"}, "--from: there is no sweep 's9'"),
        ({"from_sweep": "s2"}, "--from s2: sweep 's2' is not completed"),
        ({"from_sweep": "s1", "scenario": "food_kitchen"}, "that sweep is of sample, not of food_kitchen"),
        ({"rows": ["idz"]}, "--rows: unknown row 'idz': did you mean 'ids'"),
        ({"assignments": ["lr=1e-3,1e-2"]}, "--set: lr: one value is expected"),
        ({"assignments": ["drop=1"]}, "--set: unknown key 'drop': did you mean 'dropout'"),
        ({"assignments": ["seed=3"]}, "give --seed"),
        ({"name": "-x"}, "--name '-x'"),
        ({"scenario": "smple"}, "unknown scenario 'smple'"),
    ],
)
def test_mistakes(sweep, options, message):
    make_sweep("s2", SCORES, status="interrupted")
    with pytest.raises(InputError) as caught:
        plan(**options)
    assert message in str(caught.value)


def test_without_a_sweep_it_asks_for_one(project_folder):
    with pytest.raises(
        InputError, match="no completed sweep of sample by llm_emf in .* give --tune N .* or run .*--scenario sample"
    ):
        plan()


def test_rows_are_trained_over_seeds_and_tested_once_against_the_full_model(sweep):
    floor, record = Floor(), plan()
    code, text = go(record, floor)
    assert code == 0, text
    assert Counter(name for name, _ in floor.trained) == {f"a1--{row}--seeds": 2 for row in RUN}
    assert [(Path(folder).parts[-4], seed) for _, seed, folder in floor.tests] == [(f"a1--{row}--seeds", seed) for row in RUN for seed in (1, 2)]  # fmt: skip
    results = GroupState(record.folder).results
    assert {name: result.outcome for name, result in results.items()} == {**dict.fromkeys(ROWS, "missing"), **dict.fromkeys(RUN, "done")}  # fmt: skip
    assert results["text_llm"].reason == "no LLM text" and "the same model as '+ text + image'" in results["one_layer"].reason  # fmt: skip
    lines = {(line["row"], line["domain"], line["ranked_among"], line["metric"]): line for line in table_of(record)}
    assert (
        lines["text_llm", "", "", ""]["outcome"] == "missing"
        and lines["text_llm", "", "", ""]["reason"] == "no LLM text"
    )

    def gain(row):
        ranks = [load_ranks(ranks_path(record.folder, row, seed)) for seed in (1, 2)]
        return np.mean([1 / one["sampled"][one["domain"] == 0] for one in ranks], axis=0)

    for row in ("ids", "text", "no_merged"):
        line = lines[row, "movie", "stored candidates", "mrr"]
        assert float(line["mean"]) == pytest.approx(100 * gain(row).mean())
        assert float(line["difference"]) == pytest.approx(100 * (gain(row) - gain("text_image")).mean())
        if len(gain(row)) > 1:
            assert float(line["p"]) == pytest.approx(stats.ttest_rel(gain(row), gain("text_image")).pvalue)
    full = lines["text_image", "movie", "stored candidates", "mrr"]
    assert full["p"] == full["p_seeds"] == "" and full["full_model"] == "1"
    values = {row: [float(value) for value in lines[row, "movie", "stored candidates", "mrr"]["values"].split(";")] for row in RUN}  # fmt: skip
    over_seeds = {
        row: stats.ttest_rel(values[row], values["text_image"]).pvalue for row in ("ids", "text", "no_merged")
    }
    smallest = min(over_seeds, key=over_seeds.get)
    line = lines[smallest, "movie", "stored candidates", "mrr"]
    assert float(line["p_seeds"]) == pytest.approx(over_seeds[smallest])
    assert float(line["p_seeds_holm"]) == pytest.approx(min(1, 3 * over_seeds[smallest]))
    page = (record.folder / "ablation.md").read_text()
    assert "| **+ text + image (full model)** |" in page and "| + text + LLM: cannot run | - |" in page
    assert "+ text + LLM cannot run: no LLM text" in page and "sweep s1 (t02)" in page
    assert lines["ids", "movie", "stored candidates", "mrr"]["paper"] == "5.03", "the sample's domains are the paper's"
    assert "paper (other data) MRR" in page
    latex = (record.folder / "ablation.tex").read_text()
    cells = {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line}
    assert cells == {10} and latex.count("{") == latex.count("}")


def test_the_full_model_is_always_a_row(sweep):
    record = plan(rows=["ids"])
    code, _ = go(record, Floor())
    assert code == 0 and record.names == ["ids", "text_image"] and record.reference == "text_image"


@pytest.mark.slow
def test_tuned_rows_have_a_search_and_one_look_each(project_folder):
    floor, record = Floor(), plan(tune=3, rows=["ids", "no_merged"])
    code, text = go(record, floor)
    assert code == 0, text
    assert Counter(name for name, _ in floor.trained) == {
        f"a1--{row}{step}": count
        for row in ("ids", "text_image", "no_merged")
        for step, count in (("", 3), ("--seeds", 2))
    }
    assert all("--seeds" in str(folder) for *_, folder in floor.tests), "a search must not look at the test split"
    result = GroupState(record.folder).results["ids"]
    tried = [item.config["lr"] for item in SweepState(record.sweep_folder("ids")).records.values()]
    assert result.chosen["lr"] == max(tried) and result.search["trials"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 16])
def test_stopped_anywhere_it_ends_as_if_it_had_not_been(sweep, step):
    """16 steps: two seeds of four rows and their looks."""
    first, second, record = Floor(stops_at=step), Floor(), plan()
    code, text = go(record, first)
    assert code == 130 and "--resume --name a1" in text
    code, text = go(resume("ablation"), second)
    assert code == 0, text
    trained = [*first.trained, *second.trained]
    assert len(trained) == len(set(trained)) == 8 and len(first.tests) + len(second.tests) == 8
    other = plan(name="a2")
    go(other, Floor())
    assert table_of(record) == table_of(other)


def test_features_that_come_later_do_not_change_a_stored_ablation(sweep):
    record = plan()
    go(record, Floor())
    again = Group.load("ablation", record.folder)
    assert Encoders(**again.facts["encoders"]) == OFFLINE and again.reference == "text_image"
    with pytest.raises(InputError, match="as it was started: leave out --rows"):
        resume("ablation", rows=["ids"])


@pytest.mark.slow
def test_mlflow_has_one_tree(sweep, empty_database):
    (Path(sweep.storage) / "mlflow.db").write_bytes(empty_database.read_bytes())
    record = plan(rows=["ids"])
    go(record, Floor(), mlflow=True)
    client = mlflow_client(record.tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name("sample").experiment_id])
    (top,) = [run for run in runs if run.data.tags["sweep"] == "ablation a1"]
    line = next(
        line for line in table_of(record) if (line["row"], line["domain"], line["metric"]) == ("ids", "book", "mrr")
    )
    assert 100 * top.data.metrics["test/book/mrr/ids"] == pytest.approx(float(line["mean"]))
    assert top.data.params["full_model"] == "text_image"
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert {run.data.tags["sweep"] for run in below} == {"a1--ids--seeds", "a1--text_image--seeds"}
    assert all(run.data.tags["ablation"] == "a1" and run.data.tags["trial"] == PARENT for run in below)


def test_the_command_lists_rows_without_data(sweep, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    from sweeps.cli.main import single

    done = CliRunner().invoke(single("ablation"), ["--scenario", "sample", "--rows", "ids,text", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "ids, text" in done.output and "sweep s1 (t02)" in done.output and "nothing was started" in done.output
    assert not (Path(sweep.storage) / "ablations").exists()
