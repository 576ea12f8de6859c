"""Studies: which rows they plan, and whole ones on a fake trial floor."""

import csv
import dataclasses
import sys
from pathlib import Path

import group_fakes
import pytest
from group_fakes import Floor, go, make_sweep, resume
from sweep_fakes import tiny_scenario
from typer.testing import CliRunner

from llmemf.errors import InputError
from sweeps.core.settings import load_settings, scenario_files
from sweeps.groups.group import Group
from sweeps.groups.results import GroupState
from sweeps.state.sweep_record import find_sweep


@pytest.fixture(autouse=True)
def here(project_folder):
    return project_folder


def plan(**options):
    return group_fakes.plan("study", **{"scenario": "sample", "name": "v1", "seeds": 2, **options})


def test_one_row_per_value_and_all_else_is_the_default_and_what_the_scenario_shares():
    group = plan(model="sasrec", vary=["heads=1,2"], assignments=["dim=8"])
    assert [(row.name, row.overrides) for row in group.rows] == [("heads-1", {"heads": 1}), ("heads-2", {"heads": 2})]
    assert group.seeds == [1, 2] and group.trials is None and group.reference == "best"
    config = group.config_of(group.rows[1])
    shared = load_settings(scenario_files(Path("data"))["sample"])["fixed"]
    assert (config["dim"], config["heads"], config["batch_size"]) == (8, 2, shared["batch_size"])
    assert "lr" not in config, "the model's own default"
    assert plan(vary=["id_dim=8"]).rows[0].model == "llm_emf"


def test_several_settings_make_a_row_per_combination():
    rows = plan(vary=["modalities=[[id],[id,text]]", "lr=1e-3,1e-4"], epochs=2).rows
    assert [row.title for row in rows] == [
        "modalities=id lr=1e-3", "modalities=id lr=1e-4", "modalities=id+text lr=1e-3", "modalities=id+text lr=1e-4",
    ]  # fmt: skip
    assert rows[2].overrides == {"modalities": ["id", "text"], "lr": 1e-3}
    assert [row.name for row in rows][-1] == "modalities-id-text-lr-1e-4", "a name of a folder"


def test_modalities_that_no_item_has_are_left_out(here):
    scenario = tiny_scenario("shops")
    dataclasses.replace(scenario, items=scenario.items.assign(image="")).save(here / "data")
    group = plan(scenario="shops", vary=["alpha=0.1,0.2"])
    assert group.fixed["modalities"] == ["id", "text"] and "a stored image" in group.notices[0]
    varied = plan(scenario="shops", vary=["modalities=[[id],[id,image]]"])
    assert "modalities" not in varied.fixed and not varied.notices


def test_around_the_best_trial_of_a_sweep():
    make_sweep("s1", {0.003: 0.4, 0.01: 0.6})
    group = plan(scenario=None, from_sweep="s1", vary=["dropout=0.1,0.3"])
    assert group.origin == "sweep s1 (t02)" and (group.scenario, group.fixed["lr"]) == ("sample", 0.01)
    assert not {"model", "seed"} & set(group.fixed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("--vary", "KEY=VALUE")),
        ({"vary": ["heads"]}, ("--vary", "heads")),
        ({"vary": ["hedas=1"]}, ("hedas", "heads")),
        ({"vary": ["seed=1,2"]}, ("'seed'",)),
        ({"vary": ["heads=1", "heads=2"]}, ("heads",)),
        ({"vary": ["heads=1,1"]}, ("heads=1",)),
        ({"vary": ["heads=many"]}, ("heads", "many")),
        ({"vary": ["heads=1"], "assignments": ["lr=1e-3,1e-4"]}, ("lr", "one value")),
        ({"vary": ["heads=1"], "model": "sasrek"}, ("sasrek", "sasrec")),
        ({"vary": ["heads=3"], "model": "sasrec"}, ("heads = 3",)),
        ({"vary": ["heads=1"], "scenario": None}, ("--scenario",)),
        ({"vary": ["heads=1"], "scenario": None, "from_sweep": "s9"}, ("--from", "s9")),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(InputError) as caught:
        plan(**options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_every_row_is_trained_over_seeds_and_tested_once(here):
    floor = Floor(value=lambda config, epoch: 0.01 * config["heads"] * epoch)
    group = plan(model="sasrec", vary=["heads=1,2,3"], epochs=2)
    code, text = go(group, floor)
    assert code == 0, text
    assert [name for name, _ in floor.trained] == ["v1--heads-1--seeds"] * 2 + ["v1--heads-2--seeds"] * 2
    assert [seed for _, seed, _ in floor.tests] == [1, 2, 1, 2]
    results = GroupState(group.folder).results
    assert {name: result.outcome for name, result in results.items()} == {
        "heads-1": "done", "heads-2": "done", "heads-3": "missing",
    }  # fmt: skip
    assert "heads = 3" in results["heads-3"].reason and "try again" not in text
    lines = list(csv.DictReader((group.folder / "study.csv").open()))
    line = next(one for one in lines if (one["row"], one["domain"], one["metric"]) == ("heads-2", "movie", "mrr"))
    values = [100 * value for value in results["heads-2"].values("test/movie/mrr").values()]
    assert [float(value) for value in line["values"].split(";")] == values and line["against"] == "heads-1"
    assert float(line["validation"]) == pytest.approx(0.04)
    page = (group.folder / "study.md").read_text()
    assert (
        "| heads=2 | 0.0400 | 0.0000 | 0.0400 to 0.0400 | 2 | 2 | 2 | 4.0 s | 200 | heads=2 |" in page
        and "heads=3: cannot run" in page
    )
    cells = {row.count(" & ") for row in (group.folder / "study.tex").read_text().splitlines() if "pm" in row}
    assert cells == {8}


@pytest.mark.slow
def test_stopped_and_resumed_it_ends_as_if_it_had_not_been():
    options = {"model": "sasrec", "vary": ["heads=1,2"], "epochs": 2}
    first, second = Floor(stops_at=4), Floor()
    code, text = go(plan(**options), first)
    assert code == 130 and "--resume --name v1" in text
    group = resume("study")
    code, text = go(group, second)
    assert code == 0, text
    assert len({*first.trained, *second.trained}) == len(first.trained) + len(second.trained) == 4
    assert len(first.tests) + len(second.tests) == 4
    other = plan(name="v2", **options)
    go(other, Floor())
    assert (group.folder / "study.csv").read_text() == (other.folder / "study.csv").read_text()
    assert Group.load("study", group.folder).status == "completed"


def test_its_sweeps_are_no_sweeps_of_the_user():
    group = plan(model="sasrec", vary=["heads=1"], epochs=2)
    go(group, Floor())
    with pytest.raises(InputError):
        find_sweep(Path(group.storage))


def test_the_command_shows_its_rows(here, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    from sweeps.cli.main import single

    words = ["--scenario", "sample", "--model", "sasrec", "--vary", "heads=2,3", "--dry-run"]
    done = CliRunner().invoke(single("study"), words)
    assert done.exit_code == 0, done.output
    assert "heads-2" in done.output and "cannot run" in done.output and "1 of 2 rows can run" in done.output
    assert not list(here.iterdir())
