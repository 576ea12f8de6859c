"""The notebook, cell by cell, on a real database."""

import json
from pathlib import Path

import pytest

from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked

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
