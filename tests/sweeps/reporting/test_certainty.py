import math

import numpy as np
import pytest
from report_fakes import make_sweep, rising, trial
from scipy import stats
from sweep_fakes import grow

from sweeps.reporting.breakdown import Ranked
from sweeps.reporting.certainty import certainty, epoch_noise, objective_error, paired_error
from sweeps.reporting.gather import gather
from sweeps.state.sweep_state import SweepState


def ranks(rng, cases=4000, better=0.0):
    domain = (np.arange(cases) >= cases // 4).astype(int)
    shared = np.random.default_rng(5).exponential(20, cases)
    sampled = 1 + np.floor(np.maximum(0, shared + rng.normal(-better, 2, cases)))
    return {"case": np.arange(cases), "domain": domain, "sampled": sampled, "full": sampled}


def test_the_paired_error_is_that_of_a_paired_test():
    rng = np.random.default_rng(0)
    first, second = ranks(rng, better=1.0), ranks(rng)
    chosen = {key: values[first["domain"] == 0] for key, values in first.items()}
    other = {key: values[second["domain"] == 0] for key, values in second.items()}
    a, b = 1 / chosen["sampled"], 1 / other["sampled"]
    expected = (a - b).mean() / stats.ttest_rel(a, b).statistic
    assert paired_error(chosen, other) == pytest.approx(expected)
    assert objective_error(chosen) == pytest.approx(stats.sem(a))


def test_both_domains_count_alike_as_under_the_bootstrap():
    rng = np.random.default_rng(1)
    found = ranks(rng)
    parts = [1 / found["sampled"][found["domain"] == domain] for domain in (0, 1)]
    drawn = [np.mean([rng.choice(part, len(part)).mean() for part in parts]) for _ in range(1000)]
    assert objective_error(found) == pytest.approx(np.std(drawn), rel=0.1)


def test_noise_of_epochs_is_found_around_a_curve():
    rng = np.random.default_rng(2)
    curves = [[0.08 * (1 - 0.9**e) + rng.normal(0, 0.001) for e in range(1, 40)] for _ in range(40)]
    assert epoch_noise(curves) == pytest.approx(0.001, rel=0.1)
    assert epoch_noise([[0.1, 0.2, 0.3]]) is None and epoch_noise([]) is None


def test_a_lead_beside_its_noise(tmp_path):
    history = gather(make_sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.04)), trial(rising(0.0399))]))
    rng = np.random.default_rng(3)
    best = ranks(rng)
    found = certainty(history, Ranked({"t01": best, "t02": ranks(rng)}))
    assert found.how == "cases" and found.runner_up == "t02" and found.own_error == objective_error(best)
    assert found.lead == pytest.approx(history.valued[0].record.objective - history.valued[1].record.objective)
    assert found.is_clear == (found.lead > 2 * found.error) and "One seed." in found.sentence
    alone = certainty(history, Ranked({"t01": best}))
    assert alone.how == "epochs" and alone.own_error is not None, "the second trial's weights are gone"


def test_an_objective_of_a_sample_of_cases_is_less_sure(tmp_path):
    trials = [trial(rising(0.05)), trial(rising(0.04))]
    rng = np.random.default_rng(3)
    found = {"t01": ranks(rng), "t02": ranks(rng)}
    every, some = (
        certainty(gather(make_sweep(tmp_path, trials, name=f"s{cases}", fixed={"valid_cases": cases})), Ranked(found))
        for cases in (0, 1000)
    )
    # 1,000 of 4,000 cases: twice the error.
    assert some.error == pytest.approx(2 * every.error) and some.own_error == pytest.approx(2 * every.own_error)


def test_without_any_measure_of_noise_it_says_so(tmp_path):
    history = gather(make_sweep(tmp_path, [trial([0.05]), trial([0.04])], epochs=1))
    found = certainty(history, None)
    assert found.how == "" and math.isnan(found.error) and "cannot be told" in found.sentence
    assert certainty(gather(make_sweep(tmp_path, [], name="e", status="planned")), None).runner_up == ""


def test_repeats_say_how_sure_the_best_trial_is(tmp_path):
    record = make_sweep(tmp_path, [trial(rising(value)) for value in (0.05, 0.049, 0.02)], status="running")
    state = SweepState(record.folder)
    for number, value in ((1, 0.040), (2, 0.046), (1, 0.042), (2, 0.048)):
        first = state.records[number]
        grow(state, state.repeat(first, 1001 + len(first.repeated_by)), 6, value=value)
    history = gather(record)
    found = certainty(history, None)
    assert (history.best.name, found.how, found.runner_up, len(history.repeats)) == ("t02", "seeds", "t01", 4)
    assert found.level == 2 and not found.is_clear and "t02" in found.sentence and "3 seeds" in found.sentence
    assert found.lead == pytest.approx(0.0037, abs=1e-4)
