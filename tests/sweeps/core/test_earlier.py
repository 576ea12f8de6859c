import dataclasses

import pytest
from sweep_fakes import epoch_result, tiny_scenario

from llmemf.errors import InputError
from sweeps.core.descriptions import describe_trials
from sweeps.core.options import Options
from sweeps.core.plan import build_plan, plan_sweep
from sweeps.core.resume import plan_continue, plan_resume
from sweeps.search.search import SweepSearch
from sweeps.state.sweep_record import SweepRecord

SMALL = ("epochs=4", "alpha=0.3", "beta=0.3", "l2=1e-5", "lambda1=1.0", "lambda2=0.1,0.5", "lr=1e-3,1e-2,3e-3")
OPTIONS = Options(scenario="own_data", trials=6, grid_points=2, search="optuna", assignments=list(SMALL))


@pytest.fixture
def folder(project_folder):
    """A working folder with the prepared scenario own_data."""
    tiny_scenario("own_data").save("data")
    return project_folder


def planned(**options):
    return plan_sweep(dataclasses.replace(OPTIONS, **options))


def points_file(folder, *lines):
    path = folder / "points.csv"
    path.write_text("\n".join(("lr,lambda2", *lines)) + "\n")
    return path


def search_of(plan):
    return SweepSearch(
        plan.space, plan.state(), method=plan.record.search, points=plan.points, trials=plan.trials, epochs=plan.epochs,
        problem=plan.check.problem, startup=2, observations=plan.record.observations,
    )  # fmt: skip


def run(plan, trials, *, status="completed"):
    """The first trials of a plan, as a driver runs and stores them; every second one is stopped after two epochs."""
    search = search_of(plan)
    state, given = search.state, []
    plan.record.folder.mkdir(parents=True, exist_ok=True)
    plan.record.fingerprint, plan.record.status = tiny_scenario("own_data").fingerprint, status
    plan.record.save()
    state.open()
    for index in range(trials):
        config = search.suggest(f"id{index}")
        record = state.records[config["trial"]]
        given.append(record.config)
        for epoch in range(1, 5):
            stopped = epoch == 2 and record.number % 2 == 0
            state.add(record, epoch_result(epoch, config["lr"] * epoch), stopped=stopped)
            if stopped:
                break
        search.on_trial_complete(f"id{index}")
        search.tell(record)
    state.stop("completed")
    return given


def pairs(points):
    return [(point["lr"], point["lambda2"]) for point in points]


def test_named_points_come_first_each_once_with_four_digits(folder):
    path = points_file(folder, "0.00212345,0.5", "3e-3,0.1", "0.0021234,0.5", "", "1e-2,0.5")
    plan = planned(points=path, trials=7)
    assert pairs(plan.record.points) == [(0.002123, 0.5), (0.003, 0.1), (0.01, 0.5)]
    assert pairs(plan.points[:3]) == pairs(plan.record.points) and len(plan.points) == 5
    assert not set(pairs(plan.points[3:])) & set(pairs(plan.points[:3]))
    assert planned(points=path, trials=2).trials == 3
    whole = planned(points=path, search="grid", trials=None)
    assert len(whole.points) == 7, "six of the grid, of which two are named, and one beside it"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("0.001,0.1", "0.1,0.1"), r"line 3: lr = 0.1"),
        (("fast,0.1",), r"line 2: lr = 'fast'"),
        (("0.001,",), r"line 2: lambda2 = ''"),
        ((), "has no row"),
    ],
)
def test_a_point_that_cannot_be_trained_names_its_line(folder, lines, message):
    with pytest.raises(InputError, match=message):
        planned(points=points_file(folder, *lines))


def test_a_file_without_a_searched_setting_or_against_a_fixed_one_is_refused(folder):
    path = folder / "points.csv"
    path.write_text("lr\n0.001\n")
    with pytest.raises(InputError, match="no column lambda2"):
        planned(points=path)
    path.write_text("lr,lambda2,alpha\n0.001,0.1,0.4\n")
    with pytest.raises(InputError, match=r"line 2: alpha = 0.4.*--set alpha=0.4"):
        planned(points=path)


@pytest.mark.parametrize("status", ["interrupted", "completed"])
def test_points_are_added_to_a_stored_sweep_once(folder, status):
    done = run(planned(name="s"), 3, status=status)
    left = pairs(plan_resume(Options(name="s")).points)
    path = points_file(folder, f"{done[0]['lr']},{done[0]['lambda2']}", "0.004,0.3")
    plan = plan_resume(Options(name="s", points=path))
    assert plan.extended and plan.trials == 7 and pairs(plan.points) == [(0.004, 0.3), *left]
    plan.record.save()
    again = plan_continue(dataclasses.replace(OPTIONS, name="s", points=path))
    assert (again.trials, again.extended) == (7, False) and pairs(again.points) == pairs(plan.points)


def test_a_sweep_like_another_takes_its_settings_and_what_is_given_wins(folder):
    run(planned(name="s", cpus_per_trial=2), 2)
    plan = plan_sweep(Options(like="s", name="t", trials=9, assignments=["lr=1e-3,1e-2"], warm_start="none"))
    record = plan.record
    assert (record.scenario, record.trials, record.cpus_per_trial, plan.epochs) == ("own_data", 9, 2, 4)
    assert plan.space.varied_keys == ("lr", "lambda2") and len(plan.space.blocks[0].points) == 2
    assert not record.points and record.name == "t"
    with pytest.raises(InputError, match=r"--like s: .*llm_emf"):
        plan_sweep(Options(like="s", model="sasrec"))


def test_a_new_sweep_learns_from_the_newest_finished_one_alike(folder):
    done = run(planned(name="s"), 6)
    run(planned(name="t", assignments=[*SMALL, "id_dim=8"], warm_start="none"), 2)
    run(planned(name="u", warm_start="none"), 2, status="interrupted")
    plan = planned(name="v")
    assert plan.record.warm_start == "s" and "s" in plan.notices[0] and "--warm-start none" in plan.notices[0]
    assert [seen.settings for seen in plan.record.observations] == done
    assert [max(seen.values) for seen in plan.record.observations] == [4, 2] * 3
    best = max(done[::2], key=lambda config: config["lr"])
    assert plan.points[0] == best, "the best of the trials that ran to their end"
    states = [trial.state.name for trial in search_of(plan).study.trials]
    assert states == ["COMPLETE", "PRUNED"] * 3
    assert planned(name="v", epochs=2).record.observations[0].values.keys() == {1, 2}
    assert "after epoch 4)" in plan.notices[0] and "after epoch 2)" in planned(name="v", epochs=2).notices[0]
    assert planned(name="v", warm_start="none").record.warm_start == "none"
    assert not planned(name="v", search="grid").record.observations
    named = planned(name="v", points=points_file(folder, *(f"{lr},{lambda2}" for lr, lambda2 in pairs(done[::2]))))
    assert named.record.observations and "trained first" in plan.notices[0]
    assert "trained first" not in " ".join(named.notices), "the points that were named are its best ones"


def test_a_resumed_warm_sweep_proposes_the_same_when_the_earlier_one_is_gone(folder):
    run(planned(name="s"), 6)
    whole = run(planned(name="t"), 6)
    (folder / "mlruns/sweeps/s/sweep.yaml").unlink()
    (folder / "mlruns/sweeps/t/journal.jsonl").unlink()
    record = SweepRecord.load(folder / "mlruns/sweeps/t")
    record.status = "planned"
    record.save()
    assert run(build_plan(record), 6) == whole


def test_a_file_of_results_warms_a_sweep(folder):
    path = folder / "results.csv"
    path.write_text("lr,lambda2,epoch,objective\n1e-3,0.1,1,0.2\n1e-3,0.1,4,0.3\n1e-2,0.5,2,0.5\n")
    record = planned(warm_start=str(path)).record
    assert record.warm_start == str(path)
    assert [seen.values for seen in record.observations] == [{1: 0.2, 4: 0.3}, {2: 0.5}]
    assert pairs(record.points) == [(0.001, 0.1)]
    path.write_text("lr,lambda2,objective\n1e-1,0.1,0.2\n")
    with pytest.raises(InputError, match="line 2: lr = 0.1"):
        planned(warm_start=str(path))


def test_what_cannot_be_compared_is_not_learned_from(folder):
    run(planned(name="s"), 2)
    with pytest.raises(InputError, match="--warm-start s: its ties is mean, this sweep's optimistic"):
        planned(warm_start="s", assignments=[*SMALL, "ties=optimistic"])
    with pytest.raises(InputError, match="--search random"):
        planned(warm_start="s", search="random")
    with pytest.raises(InputError, match="there is no sweep 'missing'"):
        planned(warm_start="missing")


def test_a_file_that_is_not_there_is_named_once(folder):
    with pytest.raises(InputError) as caught:
        planned(points="none.csv")
    assert str(caught.value).count("none.csv") == 1 and "Errno" not in str(caught.value)


def test_points_are_told_from_those_of_the_grid_and_those_to_come(folder):
    path = points_file(folder, "1e-3,0.1", "3e-3,0.5")
    assert describe_trials(planned(points=path)).startswith("6 trials: 2 given points, 2 of the grid, 2 proposed;")
    assert describe_trials(planned(points=path, search="auto", grid_points=None)).startswith(
        "6 trials: 2 given points, 4 proposed;"
    )
