import dataclasses
import datetime
from pathlib import Path

import pytest
import yaml
from sweep_fakes import propose, tiny_scenario

from llmemf.errors import InputError
from llmemf.models import MODELS, model_class
from sweeps.cluster.resources import slots
from sweeps.core import settings
from sweeps.core.options import Options
from sweeps.core.plan import build_plan, plan_sweep
from sweeps.core.resume import plan_continue, plan_extend, plan_resume
from sweeps.core.settings import checked_space, load_settings, scenario_files
from sweeps.core.sweep_data import load_data
from sweeps.search.grid_points import choose_points
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState

NOW = datetime.datetime(2026, 11, 21, 2, 3, 4)


@pytest.fixture
def prepared(project_folder):
    """A data root in which movie_book and own_data exist."""
    for name in ("movie_book", "own_data"):
        tiny_scenario(name).save("data")
    return project_folder


def make(**options):
    return plan_sweep(Options(**{"scenario": "movie_book", "search": "optuna", **options}), now=NOW)


def test_every_shipped_scenario_file_is_a_valid_sweep(project_folder):
    files = scenario_files(Path("data"))
    assert {"movie_book", "food_kitchen", "sample"} <= set(files)
    for name, path in files.items():
        tiny_scenario(name).save("data")
        plan = plan_sweep(Options(scenario=name), now=NOW)
        assert plan.record.scenario == name and plan.trials >= 12 and plan.record.search == "auto"
        assert path.read_text().startswith("# ") and f"--scenario {name}" in path.read_text()
        assert load_settings(path)["model"] == "llm_emf"


@pytest.mark.parametrize("name", ["movie_book", "food_kitchen"])
def test_the_papers_grids(project_folder, name):
    tiny_scenario(name).save("data")
    plan = plan_sweep(Options(scenario=name, search="optuna"), now=NOW)
    assert plan.space.size == 59_400
    assert plan.space.varied_keys == ("lr", "l2", "alpha", "beta", "lambda1", "lambda2")
    assert {k: plan.fixed[k] for k in ("batch_size", "dropout", "epochs", "patience")} == {
        "batch_size": 256, "dropout": 0.3, "epochs": 100, "patience": 10
    }  # fmt: skip
    assert plan.rungs == [3, 9, 27, 81]
    assert (plan.trials, len(plan.points)) == (60, 30)


def test_without_data_the_sample_is_used_under_its_own_name(project_folder):
    plan = make()
    assert plan.record.scenario == "sample" and plan.record.requested == "movie_book"
    assert plan.record.name == "sample-20261121-020304"
    assert plan.epochs < 20
    assert not list(project_folder.iterdir()), "planning writes nothing"


def test_an_unknown_scenario_offers_the_nearest(prepared):
    with pytest.raises(InputError, match="did you mean 'movie_book'"):
        make(scenario="movie_bok")
    with pytest.raises(InputError, match="did you mean 'own_data'"):
        make(scenario="own_dta")


def test_prepared_data_without_a_file_uses_the_models_space(prepared):
    plan = make(scenario="own_data")
    assert plan.record.scenario == "own_data" and plan.space.size == 59_400
    assert "default space" in plan.notices[0]


def test_points_are_seeded_and_feasible(prepared):
    assert make().points == make().points != make(seed=1).points
    assert all(point["alpha"] + point["beta"] <= 1 + 1e-9 for point in make(trials=500).points)


@pytest.mark.parametrize("storage", ["file", "file/x"])
def test_a_file_in_the_place_of_the_storage_is_named(prepared, storage):
    Path("file").touch()
    with pytest.raises(InputError, match=f"--storage {storage}: .*file is a file"):
        make(storage=Path(storage))


def test_set_fixes_or_replaces(prepared):
    plan = make(assignments=["lr=1e-3", "l2=1e-5,1e-4", "id_dim=64", "heads=1,2"])
    assert plan.space.varied_keys == ("l2", "alpha", "beta", "lambda1", "lambda2", "heads")
    assert plan.fixed["id_dim"] == 64 and "heads" not in plan.fixed
    assert {point["lr"] for point in plan.points} == {1e-3}
    assert plan.space.size == 2 * 66 * 36 * 2


def test_set_a_share(prepared):
    plan = make(assignments=["alpha=0.3"])
    assert {point["alpha"] for point in plan.points} == {0.3}
    assert max(point["beta"] for point in plan.points) <= 0.7
    again = build_plan(SweepRecord(**plan.record.model_dump()))
    assert again.points == plan.points


def test_set_modalities_is_one_value_and_integers_become_floats(prepared):
    plan = make(assignments=["modalities=id,text", "lambda1=0,1", "lambda2=0.1", "sequences=xy"])
    assert plan.fixed["modalities"] == ["id", "text"] and plan.fixed["sequences"] == ["xy"]
    assert {type(point["lambda1"]) for point in plan.points} == {float}
    assert plan.needs == {"text"}


def test_points_that_the_model_refuses_are_dropped(prepared):
    """With ids alone, alpha = 0 leaves no weight at all; with the merged sequence alone, lambda2 = 0 does."""
    plan = make(assignments=["modalities=id"])
    assert all(point["alpha"] > 0 for point in plan.points)
    assert plan.space.size == 59_400 // 66 * 55
    assert any("no weight" in reason for reason in plan.space.dropped_by)
    plan = make(assignments=["sequences=xy"])
    assert {point["lambda2"] for point in plan.space.shuffled(0)} == {0.1, 0.3, 0.5, 0.7, 1.0}
    assert plan.space.distributions()["lambda2"].low == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assignments": ["lrr=1"]}, "did you mean 'lr'"),
        ({"assignments": ["lr"]}, "key=value"),
        ({"assignments": ["lr=-0.001"]}, r"lr = -0.001: .*greater than 0"),
        ({"assignments": ["lr=1e-3,-1e-3"]}, "lr = -0.001"),
        ({"assignments": ["alpha=0.7", "beta=0.4"]}, "above 1"),
        ({"assignments": ["alpha=1.5"]}, "alpha = 1.5"),
        ({"assignments": ["dropout=1"]}, "dropout = 1"),
        ({"assignments": ["epochs=5,10"]}, "epochs must be the same in all trials"),
        ({"assignments": ["ties=mean,optimistic"]}, "ties must be the same"),
        ({"assignments": ["objective=fulll"]}, "objective = 'fulll'"),
        ({"assignments": ["model=sasrec"]}, "give --model"),
        ({"model": "llm_emff"}, "did you mean 'llm_emf'"),
        ({"name": "a/b"}, "--name 'a/b'"),
        ({"tracking_uri": "mlruns"}, "sqlite:///FILE.db"),
        ({"storage": Path("s3://bucket/x")}, "a folder is expected"),
        ({"scenario": None}, "--scenario is missing"),
    ],
)
def test_mistakes_are_one_sentence(prepared, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)
    assert sorted(path.name for path in prepared.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"spac": {}}, "did you mean 'space'"),
        ({"fixed": {"lr": 1e-3}, "space": {"lr": [1e-3]}}, "both fixed and space"),
        ({"trials": 0}, "trials = 0"),
        ({"space": {"lr": {"low": 1, "high": 0}}}, "mine.yaml: .*lr"),
        ({"space": {"lr": [1e-3]}, "constraints": ["lr <"]}, "mine.yaml: .*lr <"),
    ],
)
def test_mistakes_in_a_scenario_file(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message):
        load_settings(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"space": {"lrr": [1e-3]}}, "did you mean 'lr'"),
        ({"space": {"lr": [1e-3, -1]}}, "lr = -1"),
        ({"space": {"lr": {"low": -1, "high": 1}}}, "lr = -1"),
        ({"fixed": {"id_dimm": 1}}, "did you mean 'id_dim'"),
        ({"fixed": {"lr": [1e-3, 1e-2]}}, "put them into space"),
        ({"space": {"lr": [1e-3]}, "constraints": ["lrr <= 1"]}, "did you mean 'lr'"),
    ],
)
def test_settings_that_the_model_does_not_have(prepared, monkeypatch, content, message):
    path = prepared / "movie_book.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(settings, "scenario_files", lambda _: {"movie_book": path})
    with pytest.raises(InputError, match=message) as refused:
        make()
    assert str(refused.value).startswith("movie_book.yaml")


def test_numbers_of_trials(prepared):
    space, record = make().space, make().record

    def count(**values):
        points, trials = choose_points(record.model_copy(update={"grid_points": None, **values}), space)
        return len(points), trials

    assert count(search="optuna", trials=20) == (10, 20)
    assert count(search="optuna", trials=20, grid_points=3) == (3, 20)
    assert count(search="optuna", trials=20, grid_points=0) == (0, 20)
    assert count(search="random", trials=20) == (0, 20)
    assert count(search="auto", trials=20, grid_points=3) == (0, 20), "it spreads its first points itself"
    assert count(search="grid", trials=20) == (20, 20)
    small = build_plan(record.model_copy(update={"space": {"lr": [1e-3, 1e-2]}, "constraints": []})).space
    assert choose_points(record.model_copy(update={"grid_points": None}), small)[1] == 60
    assert len(choose_points(record.model_copy(update={"grid_points": None}), small)[0]) == 2


def test_grid_runs_the_whole_grid_unless_told_otherwise(prepared):
    assert make(search="grid", assignments=["lr=1e-3", "l2=0,1e-5", "lambda1=0.3"]).trials == 2 * 66 * 6
    assert make(search="grid", trials=7).trials == 7


def test_a_sweep_of_the_same_name_is_refused(prepared):
    plan = make(name="mine")
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    with pytest.raises(InputError, match="--resume to continue it, or another --name"):
        make(name="mine")


def store(name="mine", done=0, now=NOW, **options):
    """A stored sweep whose first trials have been proposed, and its plan."""
    plan = plan_sweep(Options(**{"scenario": "movie_book", "name": name, "search": "optuna", **options}), now=now)
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    state = SweepState(plan.record.folder)
    for number in range(done):
        choice = plan.points[number] if number < len(plan.points) else refined(plan.space.point(number))
        state.propose(choice, plan.varied_keys, plan.epochs, {})
    return plan


def refined(point):
    """A proposal of Optuna's, beside the grid."""
    return {**point, "lr": 2.345e-3}


def test_resume_brings_the_same_plan_back(prepared):
    plan = store(assignments=["lr=1e-3,1e-2"], trials=9, seed=5)
    again = plan_resume(Options(name="mine", concurrency=1))
    assert again.resumed and not again.extended and again.points == plan.points and again.fixed == plan.fixed
    assert again.record.concurrency == 1 and again.trials == 9
    assert again.space == plan.space


@pytest.mark.parametrize("search", ["optuna", "grid"])
def test_resume_plans_the_points_that_are_left(prepared, search):
    plan = store(done=3, trials=8, search=search)
    again = plan_resume(Options(name="mine"))
    assert again.points == plan.points[3:] and len(plan.points) == (8 if search == "grid" else 4)
    assert again.trials == 8


def test_resume_may_change_resources_and_how_many_weights_are_kept(prepared):
    store()
    changed = {"cpus_per_trial": 2.0, "gpus_per_trial": 0.5, "concurrency": 1, "ray_address": "auto", "keep": 2,
               "fresh_workers": True}  # fmt: skip
    record = plan_resume(Options(name="mine", **changed)).record
    assert {key: getattr(record, key) for key in changed} == changed


@pytest.mark.parametrize(
    ("options", "repeats", "candidates"),
    [
        ({"trials": 40}, 8, 4),
        ({"trials": 60, "confirm": 0.5}, 30, 5),
        ({"trials": 12}, 2, 2),
        ({"trials": 9}, 0, 0),
        ({"trials": 40, "confirm": 0.0}, 0, 0),
        ({"trials": 40, "keep": 2}, 8, 2),
        ({"trials": 40, "keep": 1}, 0, 0),
        ({"trials": 40, "assignments": ["seed=0,1,2"]}, 0, 0),
        ({"trials": 40, "search": "grid"}, 8, 4),
    ],
)
def test_how_many_trials_are_repeated(prepared, options, repeats, candidates):
    plan = make(**options)
    assert (plan.most_repeats, plan.candidates) == (repeats, candidates)


def test_how_many_repeats_may_come(prepared, tmp_path):
    plan, state = make(trials=12, epochs=3), SweepState(tmp_path)
    found = []
    for _ in range(3):
        found.append(plan.repeats_to_come(state))
        state.repeat(propose(state, epochs=3), 1001)
    assert found == [2, 1, 0]
    assert make(trials=9).repeats_to_come(state) == 0, "it has no confirmation"


def test_a_sweep_from_before_confirmation_has_none_unless_it_is_asked_for(prepared):
    record = store().record
    path = record.folder / "sweep.yaml"
    stored = yaml.safe_load(path.read_text())
    assert stored.pop("confirm") == 0.2
    path.write_text(yaml.safe_dump(stored))
    assert plan_resume(Options(name="mine")).record.confirm == 0
    assert plan_resume(Options(name="mine", confirm=0.3)).record.confirm == 0.3


def test_a_sweep_that_was_recorded_without_an_option_goes_on_with_its_default(prepared):
    record = store().record
    path = record.folder / "sweep.yaml"
    stored = yaml.safe_load(path.read_text())
    assert stored.pop("fresh_workers") is False
    path.write_text(yaml.safe_dump(stored))
    assert plan_resume(Options(name="mine")).record.model_dump() == record.model_dump()


def test_resume_takes_the_newest_of_the_scenario_or_of_all(prepared):
    for minute, (name, scenario) in enumerate([("b", "movie_book"), ("a", "movie_book"), ("c", "own_data")]):
        store(name, scenario=scenario, now=NOW.replace(minute=minute))
    assert plan_resume(Options(scenario="movie_book")).record.name == "a"
    assert plan_resume(Options()).record.name == "c"
    store("d", now=NOW.replace(minute=9))
    assert plan_resume(Options()).record.name == "d"
    with pytest.raises(InputError, match="--resume: there is no sweep 'e'"):
        plan_resume(Options(name="e"))
    with pytest.raises(InputError, match="--resume: no sweep of scenario 'toys'.*a, b, c"):
        plan_resume(Options(scenario="toys"))
    with pytest.raises(InputError, match="--extend: there is no sweep 'e'"):
        plan_extend(Options(name="e"), 3)


def test_without_any_sweep_that_is_said(prepared):
    with pytest.raises(InputError, match="^--resume: no sweep in /.*/mlruns/sweeps; .* --scenario sample"):
        plan_resume(Options())


def test_resume_refuses_to_change_the_sweep(prepared):
    store()
    with pytest.raises(InputError, match="--resume continues .* leave out --trials, --epochs$"):
        plan_resume(Options(name="mine", trials=3, epochs=4))
    with pytest.raises(InputError, match="leave out --set, or give --extend"):
        plan_resume(Options(name="mine", assignments=["lr=1"]))


def test_a_sweep_that_was_moved_goes_on_where_it_lies(prepared):
    store()
    (prepared / "mlruns").rename(prepared / "moved")
    with pytest.raises(InputError, match="give --name mine"):
        plan_resume(Options(storage=Path("moved")))
    plan = plan_resume(Options(name="mine", storage=Path("moved")))
    assert plan.record.folder == prepared / "moved" / "sweeps" / "mine"


@pytest.mark.parametrize("done", [3, 6, 10])
def test_extend_adds_proposals_and_keeps_the_grid_part(prepared, done):
    """Ten trials, five of them grid points; however far it came, the grid part stays five."""
    plan = store(trials=10, done=done)
    again = plan_extend(Options(name="mine"), 6)
    assert again.resumed and again.extended and again.before == {}
    assert again.trials == again.record.trials == 16 and again.record.grid_points == 5
    assert again.points == plan.points[done:] and again.space == plan.space
    assert plan_resume(Options(name="mine")).trials == 10, "planning stores nothing"


def test_extend_counts_from_the_newest_extension(prepared):
    store(trials=4, done=4)
    plan_extend(Options(name="mine"), 2).record.save()
    assert plan_extend(Options(name="mine"), 3).trials == 9


def test_extend_in_grid_mode_takes_the_next_points(prepared):
    plan = store(trials=7, search="grid", done=7)
    again = plan_extend(Options(name="mine"), 4)
    assert again.points == plan.space.fresh(0, plan.points, 4) and again.trials == 11
    assert not [point for point in again.points if point in plan.points]
    assert [*plan.points, *again.points] == make(trials=11, search="grid").points, "as if 11 had been asked for at once"


def test_extend_with_the_rest_of_a_grid(prepared):
    store(trials=3, search="grid", done=3, assignments=["lr=1e-3,1e-2", "l2=0.0", "alpha=0.4", "beta=0.3",
          "lambda1=0.1,0.5", "lambda2=0.1"])  # fmt: skip
    again = plan_extend(Options(name="mine"), 9)
    assert len(again.points) == 1 and again.trials == again.record.trials == 4


def test_extend_without_a_grid_point_left_is_refused(prepared):
    few = ["lr=1e-3,1e-2", "l2=0.0", "alpha=0.4", "beta=0.3", "lambda1=0.1", "lambda2=0.1"]
    store(trials=2, search="grid", done=2, assignments=few)
    with pytest.raises(InputError, match="--extend 5: no grid point is left; widen the grid with --set"):
        plan_extend(Options(name="mine"), 5)
    wider = plan_extend(Options(name="mine", assignments=["lr=1e-4,1e-3,1e-2"]), 5)
    assert [point["lr"] for point in wider.points] == [1e-4] and wider.trials == 3
    assert wider.before == {}, "lr varied before"


def test_extend_into_a_wider_space(prepared):
    plan = store(trials=6, done=6)
    wide = plan_extend(Options(name="mine", assignments=["lr=1e-5,1e-4,1e-3,1e-2,1e-1"]), 4)
    lr = wide.space.distributions()["lr"]
    assert (lr.low, lr.high) == (1e-5, 1e-1) and wide.space.varied_keys == plan.space.varied_keys
    assert wide.record.space["lr"] == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert wide.trials == 10 and wide.before == {}


def test_extend_by_one_share_of_a_simplex_keeps_the_other(prepared):
    store(trials=4, done=4, assignments=["alpha=0.3"])
    wide = plan_extend(Options(name="mine", assignments=["beta=0.1,0.2"]), 4)
    assert wide.record.space["alpha, beta"]["given"] == {"alpha": 0.3, "beta": [0.1, 0.2]}
    assert {point["alpha"] for point in wide.space.shuffled(0)} == {0.3}
    assert {point["beta"] for point in wide.space.shuffled(0)} == {0.1, 0.2}


def test_a_range_of_whole_numbers_is_refused():
    config_class = model_class("llm_emf").config_class
    with pytest.raises(InputError, match="x.yaml: space: id_dim .*whole number"):
        checked_space(config_class, {"id_dim": {"low": 16, "high": 64}}, where="x.yaml")
    found = checked_space(config_class, {"lr": {"low": 1, "high": 2}}, where="x.yaml")["lr"]["low"]
    assert type(found) is float, "in the type of the setting"


def test_a_removed_setting_is_refused_with_what_to_do(prepared):
    with pytest.raises(InputError, match="--set: cuda_graphs was removed"):
        make(assignments=["cuda_graphs=true"])


def test_extend_by_a_setting_that_was_the_same_so_far(prepared):
    """`heads` had the model's default, `id_dim` a fixed value: earlier trials are told both."""
    plan = store(trials=4, done=4, assignments=["id_dim=64"])
    default = plan.configs[0].heads
    wide = plan_extend(Options(name="mine", assignments=["heads=1,2,4", "id_dim=32,128"]), 4)
    assert wide.before == {"heads": default, "id_dim": 64}
    assert set(wide.varied_keys) == {*plan.space.varied_keys, "heads", "id_dim"}
    assert "id_dim" not in wide.fixed and "id_dim" not in wide.record.fixed
    stored = build_plan(SweepRecord(**wide.record.model_dump()), known=[])
    assert stored.space == wide.space, "the stored record brings the wider space back"


def test_extend_with_another_value_of_a_fixed_setting(prepared):
    """One value fixes it for the new trials; earlier ones had another and are shown with it."""
    store(trials=4, done=4, assignments=["id_dim=64"])
    again = plan_extend(Options(name="mine", assignments=["id_dim=32"]), 4)
    assert again.before == {"id_dim": 64} and "id_dim" in again.varied_keys
    assert {config.to_dict()["id_dim"] for config in again.configs} == {32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assignments": ["epochs=9"]}, "epochs must be the same in all trials of a sweep: start a new one"),
        ({"assignments": ["selection=per_domain"]}, "selection must be the same"),
        ({"assignments": ["lr=-1"]}, "lr = -1"),
        ({"assignments": ["lrr=1"]}, "did you mean 'lr'"),
        ({"trials": 9}, "--extend continues .* leave out --trials"),
        ({"seed": 9, "model": "sasrec"}, "leave out --model, --seed"),
    ],
)
def test_what_an_extension_may_not_change(prepared, options, message):
    store(trials=4, done=2)
    before = (prepared / "mlruns" / "sweeps" / "mine" / "sweep.yaml").read_text()
    with pytest.raises(InputError, match=message):
        plan_extend(Options(name="mine", **options), 3)
    assert (prepared / "mlruns" / "sweeps" / "mine" / "sweep.yaml").read_text() == before


def test_extend_before_the_first_trial_is_refused(prepared):
    store()
    with pytest.raises(InputError, match="has no trial yet: continue it with --resume"):
        plan_extend(Options(name="mine"), 3)


def test_continue_starts_and_then_continues(prepared):
    options = Options(
        scenario="movie_book", name="mine", search="optuna", trials=8, seed=3, assignments=["lr=1e-3,1e-2"]
    )
    first = plan_continue(options)
    assert not first.resumed and first.trials == 8
    first.record.folder.mkdir(parents=True)
    first.record.save()
    SweepState(first.record.folder).propose(first.points[0], first.varied_keys, first.epochs, {})
    options.concurrency = 2
    second = plan_continue(options)
    assert second.resumed and second.points == first.points[1:] and second.record.concurrency == 2
    with pytest.raises(InputError, match="--continue needs --name"):
        plan_continue(Options(scenario="movie_book"))


def test_resources_in_plain_words(prepared):
    record = make(gpus_per_trial=0).record
    machine = {"CPU": 4.0, "GPU": 2.0}
    assert slots(record, machine) == 4
    assert slots(record.model_copy(update={"gpus_per_trial": 0.5}), machine) == 4
    assert slots(record.model_copy(update={"gpus_per_trial": 1.0}), machine) == 2
    assert slots(record.model_copy(update={"concurrency": 3}), machine) == 3
    for values, message in [
        ({"cpus_per_trial": 8}, "asks for 8 CPUs, this machine has 4 CPUs, 2 GPUs: lower --cpus-per-trial"),
        ({"gpus_per_trial": 3}, "asks for 1 CPU, 3 GPUs, this machine has 4 CPUs, 2 GPUs"),
        ({"cpus_per_trial": 0}, "positive"),
        ({"concurrency": 0}, "--concurrency 0"),
    ]:
        with pytest.raises(InputError, match=message):
            slots(record.model_copy(update=values), machine)


def test_changed_data_is_noticed(prepared):
    plan = make(name="mine", assignments=["modalities=id"])
    plan.record.fingerprint = "0" * 64
    with pytest.raises(InputError, match="has changed since sweep 'mine' was started"):
        load_data(plan)
    plan.record.fingerprint = ""
    data = load_data(plan)
    assert data.features == {} and data.tags()["fingerprint"] == data.scenario.fingerprint


def test_missing_features_are_told_before_anything_starts(prepared):
    with pytest.raises(InputError, match="llmemf features offline movie_book"):
        load_data(make())


def test_the_command_that_resumes_names_the_sweep_and_its_storage(prepared):
    assert make(name="mine").resume_command().split()[-3:] == ["--resume", "--name", "mine"]
    words = make(name="mine", storage=Path("other")).resume_command().split()
    assert words[-4:] == ["--name", "mine", "--storage", str(prepared / "other")]


def test_sweeps_of_a_comparison_are_continued_only_by_name(project_folder):
    for name in ("s1", "c1--llm_emf"):
        plan = plan_sweep(Options(scenario="sample", name=name))
        plan.record.folder.mkdir(parents=True)
        plan.record.save()
    (project_folder / "mlruns" / "comparisons" / "c1").mkdir(parents=True)
    assert plan_resume(Options()).record.name == "s1"
    assert plan_resume(Options(name="c1--llm_emf")).record.name == "c1--llm_emf"


@pytest.mark.parametrize("scenario", ["sample", "movie_book"])
@pytest.mark.parametrize("model", list(MODELS))
def test_every_system_sweeps_a_scenario_that_was_written_for_another(tmp_path, scenario, model):
    """Of the file it takes what all systems share, as a comparison does; the space is its own."""
    plan = plan_sweep(Options(scenario=scenario, model=model, data_root=tmp_path, storage=tmp_path / "mlruns"))
    stored = load_settings(scenario_files(Path("data"))["sample"])
    assert (plan.record.model, plan.record.scheduler, plan.record.grace_period) == (
        model,
        "asha",
        stored["grace_period"],
    )
    said = [notice for notice in plan.notices if f"{model} takes batch_size" in notice]
    if model == stored["model"]:
        assert plan.record.fixed == stored["fixed"] and not said
        return
    assert len(said) == 1
    shared = {key: stored["fixed"][key] for key in ("batch_size", "epochs", "patience")}
    assert plan.record.fixed == shared and not plan.record.constraints
    own = checked_space(model_class(model).config_class, dict(model_class(model).search_space), where="")
    assert plan.record.space == own


@pytest.mark.parametrize(
    ("empty", "features", "left"),
    [
        ({}, (), None),
        ({"image": ""}, (), ["id", "text"]),
        ({"image": "https://shop.example/1.jpg"}, (), ["id", "text"]),
        ({"image": "", "title": "", "description": ""}, (), ["id"]),
        ({"image": "", "title": ""}, (), ["id", "text"]),
        ({"image": ""}, ("image.imported",), None),
    ],
)
def test_a_sweep_leaves_out_what_no_item_has(project_folder, empty, features, left):
    scenario = tiny_scenario("shop")
    dataclasses.replace(scenario, items=scenario.items.assign(**empty)).save("data")
    for name in features:
        path = project_folder / "data" / "shop" / "features" / name / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    plan = plan_sweep(Options(scenario="shop"), now=NOW)
    assert plan.record.fixed.get("modalities") == left
    assert any("no item of shop has" in notice for notice in plan.notices) == bool(left)
    named = plan_sweep(Options(scenario="shop", assignments=["modalities=id,image"], name="other"), now=NOW)
    assert named.record.fixed["modalities"] == ["id", "image"]


def test_a_file_without_a_space_searches_the_default_one_around_what_it_fixes(project_folder):
    tiny_scenario("shop").save("data")
    default = plan_sweep(Options(scenario="shop", name="a"), now=NOW).space
    (project_folder / "data" / "shop.yaml").write_text("fixed: {lr: 0.002, alpha: 0.3}\n")
    plan = plan_sweep(Options(scenario="shop", name="b"), now=NOW)
    assert plan.space.varied_keys == tuple(key for key in default.varied_keys if key not in ("lr", "alpha"))
    assert plan.shared["lr"] == 0.002 and {config.alpha for config in plan.configs} == {0.3}
