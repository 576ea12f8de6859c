"""The notebook, cell by cell, on a real database."""

import json
from pathlib import Path

import pytest
from finished_sweep import make_finished

from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import RunOwner

NOTEBOOK = json.loads((Path(__file__).resolve().parents[3] / "sweeps" / "analyse.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def executed(finished):
    import matplotlib as mpl

    before = mpl.get_backend()
    mpl.use("agg")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMEMF_STORAGE", str(finished.storage))
        for number, source in enumerate(CODE):
            exec(compile(source, f"cell {number}", "exec"), names)
    yield names
    import matplotlib.pyplot as plt

    plt.close("all")
    mpl.use(before)


def test_it_is_stored_without_outputs():
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in NOTEBOOK["cells"] if "outputs" in cell
    )
    assert len(CODE) >= 5


def test_the_table_holds_the_trials_of_the_journal_in_their_order(executed, finished):
    trials, records = executed["trials"], ranked(SweepState(finished.record.folder).records.values())
    valued = [record for record in records if record.objective is not None]
    assert list(trials.index[: len(valued)]) == [record.name for record in valued]
    assert trials["objective"].dropna().tolist() == [record.objective for record in valued]
    assert executed["settings"] == ["lr"] and trials.loc[valued[0].name, "lr"] == valued[0].varied["lr"]
    assert executed["domains"] == ["film", "book"]


def test_repeats_and_another_sweep_of_that_name_are_no_trials(empty_database, tmp_path, monkeypatch):
    made = make_finished(empty_database, tmp_path)
    monkeypatch.setenv("LLMEMF_STORAGE", str(made.storage))
    client = mlflow_client(made.uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    other = {"sweep": made.record.name, "sweep_id": "of another storage", "outcome": "completed"}
    for trial, tags in (("t05", {**RunOwner.of(made.record).tags, "repeats": "t02"}), ("t01", other)):
        run = client.create_run(experiment, tags={"outcome": "completed", **tags, "trial": trial}).info.run_id
        client.log_param(run, "seed", 1001)
        client.log_metric(run, "objective", 0.9)
    names = {}
    for source in CODE[:2]:
        exec(compile(source, "cell", "exec"), names)
    assert sorted(names["trials"].index) == ["t01", "t02", "t03"] and names["settings"] == ["lr"]


def test_curves_and_importance_are_those_of_the_sweep(executed, finished):
    records = {record.name: record for record in SweepState(finished.record.folder).records.values()}
    for trial, curve in executed["curves"].items():
        record = records[trial]
        assert curve.dropna().tolist()[record.best_epoch - 1] == record.objective
        assert len(curve.dropna()) == record.epoch
    assert executed["importance"].index.tolist() == ["lr"]


def test_all_figures_are_drawn(executed):
    import matplotlib.pyplot as plt

    figures = [plt.figure(number) for number in plt.get_fignums()]
    assert len(figures) == 3
    assert all(axis.has_data() for figure in figures for axis in figure.axes)
