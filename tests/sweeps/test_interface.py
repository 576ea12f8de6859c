"""Sweeps from Python: data frames, errors, and the notebook."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import sweeps
from sweeps import GroupOptions, InputError, Options, interface, load_group, load_sweep, run_sweep, study
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked

NOTEBOOK = Path(sweeps.__file__).parent / "from_python.ipynb"


def test_all_names_are_there():
    assert all(callable(getattr(sweeps, name)) for name in sweeps.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sweeps.no_such_name


def test_a_stored_sweep_as_data_frames(finished):
    results = load_sweep(storage=finished.storage)
    state = SweepState(finished.record.folder)
    records = {record.name: record for record in state.records.values()}
    assert results.record.status == "completed" and results.folder == finished.record.folder
    assert results.trials.index.tolist() == [record.name for record in ranked(records.values())]
    assert results.trials["lr"].to_dict() == {name: record.varied["lr"] for name, record in records.items()}
    for name, curve in results.curves.groupby("trial"):
        record = records[name]
        assert len(curve) == record.epoch and curve["objective"].max() == record.objective
    assert results.test.to_dict() == state.tests[-1]["metrics"]


def test_mistakes_are_the_errors_of_the_command_line(project_folder):
    for problem, call in {
        "'sampel'": lambda: run_sweep(Options(scenario="sampel")),
        "lr = -1": lambda: run_sweep(Options(scenario="sample", assignments=["lr=-1"])),
        "no sweep in": load_sweep,
        "no data for movie_book": lambda: run_sweep(Options(scenario="movie_book")),
        "load_group: no study in": lambda: load_group("study"),
        "load_group: there is no study 'x'": lambda: load_group("study", "x"),
        "'comparson'.*'comparison'": lambda: load_group("comparson"),
        r"models = 'sasrec': .*\['sasrec'\]": lambda: GroupOptions(scenario="sample", models="sasrec"),
        "assignments = 'lr=1'": lambda: Options(scenario="sample", assignments="lr=1"),
        "--vary is missing": lambda: study(GroupOptions(scenario="sample")),
    }.items():
        with pytest.raises(InputError, match=problem):
            call()
    assert not list(project_folder.iterdir())


def test_the_options_are_those_of_the_command_line():
    from sweeps.cli.sweep import sweep

    offered = set(inspect.signature(sweep).parameters)
    assert {field.name for field in dataclasses.fields(Options)} <= offered
    assert Options(storage="~/runs").storage == Path.home() / "runs"


@pytest.mark.slow
def test_the_notebook_runs(sweep_folder):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    before, names = mpl.get_backend(), {}
    mpl.use("agg")
    try:
        for number, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    finally:
        plt.close("all")
        mpl.use(before)
    assert names["results"].record.status == "completed" and len(names["again"].trials) == 4
    assert "from-python" in names["mistake"] and names["group"].group.status == "completed"
    assert {"popularity", "transitions"} <= set(names["group"].table["model"])


@pytest.mark.parametrize("quiet", [True, False])
def test_a_notebook_gets_plain_lines_or_nothing(monkeypatch, capsys, quiet):
    """Rich hands what it prints to the notebook, whatever file it was given."""
    shown = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *args: shown.append(args))
    console = interface._console(quiet)
    console.print("a line")
    with console.status("waiting"):
        pass
    assert not shown and capsys.readouterr().out == ("" if quiet else "a line\n")
