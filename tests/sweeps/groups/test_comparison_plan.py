"""What a comparison plans: systems, budgets, shared settings, and the sweeps that it is made of."""

import dataclasses
from pathlib import Path

import group_fakes
import pytest
import yaml
from group_fakes import resume
from sweep_fakes import grow, tiny_scenario
from typer.testing import CliRunner

from llmemf.errors import InputError
from llmemf.models import MODELS, model_class
from sweeps.cli.main import single
from sweeps.core.settings import SHARED_SETTINGS, load_settings, scenario_files
from sweeps.groups.group import Group
from sweeps.groups.new_group import GroupOptions
from sweeps.groups.plan import plan_group
from sweeps.groups.row_sweeps import plan_search, plan_seeds
from sweeps.state.sweep_state import SweepState


@pytest.fixture(autouse=True)
def here(project_folder):
    return project_folder


def plan(**options):
    return group_fakes.plan("comparison", **{"scenario": "sample", "name": "c1", **options})


def search(group, model):
    return plan_search(group, group.row(model))


def test_all_systems_by_default_with_one_budget_each():
    record = plan(trials_per_model=7, seeds=3)
    assert set(record.names) == set(MODELS) and record.names[-1] == "llm_emf"
    assert record.seeds == [1, 2, 3] and record.seed == 0
    for model in record.names:
        planned = search(record, model)
        assert planned.trials <= 7 and planned.record.name == f"c1--{model}"
        assert set(planned.space.varied_keys) == {
            key.strip() for name in model_class(model).search_space for key in name.split(",")
        }
        full = planned.space.continuous or planned.space.size >= 7
        assert planned.trials == (7 if full else planned.space.size)


def test_what_systems_share_is_the_scenario_files_and_none_of_llm_emfs_own():
    values = load_settings(scenario_files(Path("data"))["sample"])["fixed"]
    record = plan()
    assert record.fixed == {key: value for key, value in values.items() if key in SHARED_SETTINGS}
    assert {"epochs", "patience", "batch_size"} <= set(record.fixed)
    llm_emf, sasrec = search(record, "llm_emf"), search(record, "sasrec")
    default = model_class("llm_emf").config_class()
    assert "id_dim" in values and llm_emf.configs[0].id_dim == default.id_dim != values["id_dim"]
    for config in (llm_emf.configs[0], sasrec.configs[0]):
        assert [getattr(config, key) for key in ("epochs", "batch_size", "patience")] == [2, 256, 2]
    assert llm_emf.rungs == sasrec.rungs


def test_a_setting_is_for_all_that_have_it_or_for_one():
    record = plan(
        models=["sasrec", "gru4rec", "llm_emf"], assignments=["dim=8", "sasrec.lr=1e-3,2e-3", "llm_emf.id_dim=4"]
    )
    sasrec, gru4rec, llm_emf = (search(record, model) for model in ("sasrec", "gru4rec", "llm_emf"))
    assert sasrec.fixed["dim"] == gru4rec.fixed["dim"] == 8 and "dim" not in llm_emf.fixed
    assert llm_emf.fixed["id_dim"] == 4
    points = {name: plan.space.blocks[0].points for name, plan in (("sasrec", sasrec), ("gru4rec", gru4rec))}
    assert points["sasrec"] == ((1e-3,), (2e-3,)) and points["gru4rec"] == tuple(
        (lr,) for lr in model_class("gru4rec").search_space["lr"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["sasrek"]}, "--models: unknown system 'sasrek': did you mean 'sasrec'?"),
        ({"scenario": "movie_bok"}, "unknown scenario 'movie_bok': did you mean 'movie_book'?"),
        ({"scenario": None}, "--scenario is missing"),
        ({"assignments": ["dimm=3"]}, "--set dimm=3: unknown key 'dimm': did you mean 'dim'?"),
        ({"assignments": ["sasrec.alpha=3"]}, "unknown key 'alpha'"),
        ({"assignments": ["lr=-1"]}, "lr = -1"),
        ({"assignments": ["epochs=2,3"]}, "it must be the same in all systems"),
        ({"assignments": ["sasrec.valid_cases=20"]}, "must be the same in all systems: write --set valid_cases=20"),
        ({"assignments": ["seed=4"]}, "give --seed"),
        ({"assignments": ["llm_emf.lr=1"], "models": ["sasrec"]}, "'llm_emf' is not compared"),
        ({"name": "a b"}, "--name 'a b'"),
        ({"tracking_uri": "runs"}, "--tracking-uri runs"),
    ],
)
def test_a_mistake_is_told(options, message):
    with pytest.raises(InputError) as error:
        plan(**options)
    assert message in str(error.value)


def test_an_unprepared_scenario_falls_back_to_the_sample_and_keeps_its_name_in_mind():
    record = plan(scenario="movie_book")
    assert (record.scenario, record.requested) == ("sample", "movie_book")


def test_a_prepared_scenario_without_a_file_has_the_models_defaults(here):
    tiny_scenario("shops").save(here / "data")
    record = plan(scenario="shops", epochs=3)
    assert record.scenario == "shops" and record.fixed == {"epochs": 3}
    assert search(record, "sasrec").configs[0].batch_size == 256


def test_a_system_leaves_out_the_modalities_that_no_item_has(here):
    scenario = tiny_scenario("shops")
    dataclasses.replace(scenario, items=scenario.items.assign(image="")).save(here / "data")
    record = plan(scenario="shops", models=["sasrec", "llm_emf"])
    (notice,) = record.notices
    assert notice.startswith("LLM-EMF: no item of shops has a stored image")
    assert search(record, "llm_emf").fixed["modalities"] == ["id", "text"]
    assert "modalities" not in search(record, "sasrec").fixed
    named = plan(scenario="shops", models=["llm_emf"], assignments=["modalities=id,image"], name="c2")
    assert search(named, "llm_emf").fixed["modalities"] == ["id", "image"] and not named.notices


def test_the_chosen_configuration_runs_whole_over_fresh_seeds():
    record = plan(models=["sasrec", "item_knn"], seeds=3, seed=10)
    chosen = {"epochs": 4, "lr": 1e-3, "l2": 0.0, "dim": 8}
    seeds = plan_seeds(record, record.row("sasrec"), chosen)
    assert sorted(point["seed"] for point in seeds.points) == [11, 12, 13]
    assert seeds.trials == 3 and seeds.rungs == [] and seeds.record.keep == 3
    assert {key: seeds.configs[0].to_dict()[key] for key in chosen} == chosen
    assert search(record, "sasrec").fixed["seed"] == 10
    assert plan_seeds(record, record.row("item_knn"), {"epochs": 4}).trials == 1, "nothing is drawn in a closed form"


def stored(here, **options):
    record = plan(models=["sasrec"], **options)
    record.folder.mkdir(parents=True)
    record.save()
    return record


def test_a_record_survives_the_disk(here):
    record = stored(here, assignments=["dim=8"])
    assert Group.load("comparison", record.folder).model_dump() == record.model_dump()
    content = yaml.safe_load((record.folder / "comparison.yaml").read_text())
    assert content["seeds"] == [1, 2, 3, 4, 5] and content["assignments"] == ["dim=8"]


def test_resume_takes_everything_from_the_record_but_resources_and_further_systems(here):
    record = stored(here, trials_per_model=3)
    found = resume("comparison", concurrency=2, models=["gru4rec", "sasrec"])
    assert found.concurrency == 2 and found.trials == 3
    assert found.names == ["gru4rec", "sasrec"] and found.created == record.created
    assert not search(found, "sasrec").record.fresh_workers
    fresh = resume("comparison", fresh_workers=True)
    assert search(fresh, "sasrec").record.fresh_workers
    for options, message in (
        ({"seeds": 2}, "leave out --seeds"),
        ({"assignments": ["dim=3"]}, "leave out --set"),
        ({"name": "c2"}, "there is no comparison 'c2': valid names: c1"),
        ({"scenario": "food_kitchen"}, "no comparison of scenario 'food_kitchen'"),
    ):
        with pytest.raises(InputError, match=message):
            resume("comparison", **options)


def test_the_newest_comparison_goes_on(here):
    for day, name in ((1, "old"), (3, "newest"), (2, "middle")):
        record = plan(models=["sasrec"], name=name)
        record.created = f"2026-01-0{day}T00:00:00"
        record.folder.mkdir(parents=True)
        record.save()
    assert resume("comparison").name == "newest"
    assert start_or_continue(name="old", scenario="sample", seeds=9).name == "old"
    assert start_or_continue(name="new", scenario="sample", seeds=9).seeds == list(range(1, 10))
    with pytest.raises(InputError, match="--continue needs --name"):
        start_or_continue(scenario="sample")


def start_or_continue(**options):
    return plan_group("comparison", GroupOptions(**options), start_or_continue=True)


def test_names_that_are_taken(here):
    stored(here)
    with pytest.raises(InputError, match="a comparison named 'c1' exists"):
        plan(models=["sasrec"])
    (here / "mlruns" / "sweeps" / "c2--sasrec").mkdir(parents=True)
    with pytest.raises(InputError, match="a sweep named 'c2--sasrec' exists"):
        plan(name="c2")


def test_a_stored_search_goes_on_as_it_was_planned(here):
    record = stored(here, trials_per_model=4)
    assert record.search == "auto"
    record.search = "optuna"
    first = search(record, "sasrec")
    first.record.folder.mkdir(parents=True)
    first.record.save()
    state = SweepState(first.record.folder)
    grow(state, state.propose(first.points[0], first.varied_keys, first.epochs, {}), first.epochs)
    record.concurrency = 5
    again = search(record, "sasrec")
    assert again.resumed and again.record.concurrency == 5 and again.trials == 4
    assert first.points[0] not in again.points and again.points == first.points[1:]


def test_the_plan_shows_settings_as_they_were_given():
    """Brackets of a list are text, not the terminal library's markup."""
    arguments = ["--scenario", "sample", "--models", "llm_emf", "--set", "llm_emf.modalities=[id,text]", "--dry-run"]
    result = CliRunner().invoke(single("compare"), arguments)
    assert result.exit_code == 0, result.output
    assert "llm_emf.modalities=[id,text]" in result.output
