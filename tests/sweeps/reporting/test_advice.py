"""Each rule fires on what it is for, and stays silent beside it."""

import pytest
from report_fakes import make_sweep, many, rising, trial

from sweeps.reporting import advice
from sweeps.reporting.advice import advise, beyond
from sweeps.reporting.certainty import Certainty, certainty
from sweeps.reporting.gather import gather
from sweeps.reporting.importance import Importance, Importances
from sweeps.reporting.parameters import Parameter, numeric_axis

NOTHING = Importances()
UNKNOWN = Certainty()
LRS = (1e-4, 1e-3, 1e-2)


def sweep(tmp_path, trials, /, **more):
    return gather(make_sweep(tmp_path, trials, **more))


def at(lr, top, **more):
    return trial(rising(top, 6), settings={"lr": lr, "alpha": 0.3, "beta": 0.2, "lambda1": 0.3}, **more)


def test_an_interrupted_sweep_is_finished_first(tmp_path):
    trials = [trial(rising(0.05)), trial([0.01], "")]
    found = advice.finish_first(sweep(tmp_path, trials, status="interrupted", trials=5))
    assert "4 trials of 5" in found.why and "--resume --name s1" in found.command
    done = sweep(tmp_path, [trial(rising(0.05))], name="done")
    assert advice.finish_first(done) is None


def test_an_edge_is_widened(tmp_path):
    trials = [at(lr, top) for lr, top in ((1e-4, 0.02), (1e-4, 0.021), (1e-3, 0.04), (1e-2, 0.05), (1e-2, 0.051))]
    found = advice.widen_range(sweep(tmp_path, trials), NOTHING)
    assert found.title == "Widen lr" and "lr at the top of its range (0.01) in 2" in found.why
    assert "--set lr=0.0001,0.001,0.01,0.1" in found.command and "--extend 6 --name s1" in found.command


@pytest.mark.parametrize("tops", [(0.02, 0.05, 0.04), (0.04, 0.05, 0.02)])
def test_a_best_trial_inside_needs_no_wider_range(tmp_path, tops):
    trials = [at(lr, top + n / 1e3) for lr, top in zip(LRS, tops) for n in (0, 1)]
    assert advice.widen_range(sweep(tmp_path, trials), NOTHING) is None


def test_an_edge_that_does_not_matter_or_that_bounds_by_nature_stays(tmp_path):
    trials = [at(1e-2, 0.05 + n / 1e3) for n in range(5)] + [at(1e-4, 0.02)]
    found = sweep(tmp_path, trials)
    flat = Importances((Importance("lr", 0.05, 0.0, 0.2, 0.3),), 50, 0.1)
    assert advice.widen_range(found, NOTHING) and advice.widen_range(found, flat) is None
    shares = [trial(rising(0.05 + n / 1e3), settings={"lr": 1e-3, "alpha": 0.0, "beta": 0.2}) for n in range(6)]
    assert advice.widen_range(sweep(tmp_path, shares, name="shares"), NOTHING) is None
    drops = [trial(rising(0.05 + n / 1e3), settings={"dropout": (0.0, 0.3)[n > 3]}) for n in range(6)]
    zero = sweep(tmp_path, drops[::-1], name="zero", space={"dropout": [0.0, 0.3, 0.6, 0.9]})
    assert "1.2" not in str(advice.widen_range(zero, NOTHING)), "the model refuses a dropout of 1.2"


def test_the_next_value_beyond_a_range():
    grid = Parameter("lr", LRS, numeric_axis("lr", 1e-4, 1e-2), LRS)
    assert beyond(grid, upper=True) == pytest.approx(0.1) and beyond(grid, upper=False) == pytest.approx(1e-5)
    steps = Parameter("x", (0.1, 0.3, 0.5), numeric_axis("x", 0.1, 0.5), (0.1, 0.3, 0.5))
    assert beyond(steps, upper=True) == pytest.approx(0.7) and beyond(steps, upper=False) == pytest.approx(-0.1)
    span = Parameter("lr", (1e-3,), numeric_axis("lr", 1e-4, 1e-2))
    assert beyond(span, upper=True) == pytest.approx(0.1)


def test_noise_above_differences_asks_for_seeds(tmp_path):
    found = sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.0499))])
    close = Certainty("cases", "t02", 0.0001, 0.002, 0.003, 2)
    one = advice.compare_seeds(found, close)
    assert "rerun s1 --top 2 --seeds 5" in one.command and "0.0001 behind" in one.why
    clear = Certainty("cases", "t02", 0.01, 0.002, 0.003, 1)
    assert advice.compare_seeds(found, clear) == advice.compare_seeds(found, UNKNOWN) is None


def test_a_flat_setting_is_fixed_at_the_best_value(tmp_path):
    found = sweep(tmp_path, [at(1e-3, 0.05), at(1e-4, 0.04)])
    items = (Importance("lr", 0.95, 0.8, 1.0, 0.1), Importance("lambda1", 0.05, 0.0, 0.1, 0.1))
    one = advice.fix_unimportant(found, Importances(items, 60, 0.1))
    assert one.title == "Fix lambda1" and "--set lambda1=0.3" in one.command and "60 trials" in one.why
    assert advice.fix_unimportant(found, Importances(items, 20, 0.1)) is None, "too few trials to say so"


def test_a_best_last_epoch_asks_for_more_epochs(tmp_path):
    found = advice.train_longer(sweep(tmp_path, [at(1e-3, 0.05)]))
    assert "--epochs 12" in found.command and "6 of 6" in found.why
    peaked = sweep(tmp_path, [trial([0.01, 0.05, 0.04, 0.03, 0.03, 0.03])], name="peaked")
    assert advice.train_longer(peaked) is None


def test_failures_in_one_region_are_left_out(tmp_path):
    trials = [at(1e-2, 0.0, end="failed") for _ in range(4)] + [at(lr, 0.05) for lr in (1e-4, 1e-4, 1e-3, 1e-3)]
    found = advice.avoid_failures(sweep(tmp_path, trials))
    assert "4 of 8 trials failed" in found.why and "4 of 4 with lr 0.01 on, 0 of 4 elsewhere" in found.why
    assert "--set lr=0.0001,0.001 " in f"{found.command} "
    low = [at(1e-4, 0.0, end="failed") for _ in range(4)] + [at(lr, 0.05) for lr in (1e-2, 1e-2, 1e-3, 1e-3)]
    found = advice.avoid_failures(sweep(tmp_path, low, name="low"))
    assert "--set lr=0.001,0.01 " in f"{found.command} "


def test_failures_everywhere_are_shown_and_a_single_one_is_not_a_region(tmp_path):
    trials = [at(lr, 0.0, end="failed") for lr in LRS] + [at(lr, 0.05) for lr in LRS]
    found = advice.avoid_failures(sweep(tmp_path, trials))
    assert found.title == "Look at the failures" and "errors/t01.txt" in found.why and not found.command
    single = [at(1e-2, 0.0, end="failed")] + [at(1e-3, 0.05) for _ in range(9)]
    assert advice.avoid_failures(sweep(tmp_path, single, name="single")) is None


def test_memory_asks_for_smaller_batches(tmp_path):
    trials = [trial([], "failed", kind="memory", error="OutOfMemoryError"), at(1e-3, 0.05)]
    found = advice.avoid_failures(sweep(tmp_path, trials, fixed={"batch_size": 64}))
    assert "--set batch_size=32" in found.command and "want of memory" in found.why


def test_few_trials_ask_for_more(tmp_path):
    found = advice.add_trials(sweep(tmp_path, [at(lr, 0.05) for lr in LRS]))
    assert "--extend 7" in found.command
    assert advice.add_trials(sweep(tmp_path, many(60), name="many")) is None


def test_all_rules_together(tmp_path):
    found = sweep(tmp_path, many(60), epochs=27)
    assert [item.title for item in advise(found, NOTHING, certainty(found, None))]
    assert all(item.why.endswith(".") for item in advise(found, NOTHING, UNKNOWN))
    part = sweep(tmp_path, many(60), name="c1--llm_emf", epochs=27)
    (tmp_path / "comparisons" / "c1").mkdir(parents=True)
    assert advise(part, NOTHING, certainty(part, None)) == [], "a comparison's searches have the comparison's rules"


def test_a_running_sweep_is_told_of_its_failures_alone(tmp_path):
    trials = [at(lr, 0.0, end="failed") for lr in LRS] + [at(lr, 0.05) for lr in LRS]
    found = sweep(tmp_path, trials, status="running", opened={"host": "another"})
    assert found.state == "running"
    assert [item.title for item in advise(found, NOTHING, UNKNOWN)] == ["Look at the failures"]
