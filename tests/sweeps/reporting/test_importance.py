import random
import warnings

import optuna
import pytest
from report_fakes import make_sweep, many, rising, trial

from sweeps.reporting.bar_charts import importance_bars
from sweeps.reporting.gather import gather
from sweeps.reporting.importance import FEWEST, Importance, Importances, importances


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return gather(make_sweep(tmp_path_factory.mktemp("sweep"), many(60), epochs=27))


@pytest.fixture(scope="module")
def found(history):
    return importances(history.valued, history.parameters)


@pytest.mark.slow
def test_shares_are_optunas(history, found):
    study = optuna.create_study(direction="maximize")
    axes = {parameter.key: parameter.axis for parameter in history.parameters}
    spaces = {key: optuna.distributions.FloatDistribution(a.low, a.high, log=a.log) for key, a in axes.items()}
    for record in (found.record for found in history.valued):
        params = {key: float(record.varied[key]) for key in spaces}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=record.objective))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=found.top)
        expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert {item.key: item.share for item in found.items} == pytest.approx(expected)


@pytest.mark.slow
def test_what_matters_is_told_from_chance(history, found):
    assert found.items[0].key == "lr" and found.of("lr").is_clear and not found.of("lambda1").is_clear
    assert found.items[0].low <= found.items[0].share <= found.items[0].high
    assert found.trials == len(history.valued) and not found.note
    assert importances(history.valued, history.parameters) == found, "the same trials give the same numbers"


def test_pure_noise_is_rarely_taken_for_importance(tmp_path):
    rng = random.Random(1)
    trials = [trial([rng.random()], settings={"lr": 10 ** rng.uniform(-4, -2), "alpha": rng.random(), "beta": 0.0})
              for _ in range(60)]  # fmt: skip
    history = gather(make_sweep(tmp_path, trials, epochs=1))
    clear = [item for item in importances(history.valued, history.parameters).items if item.is_clear]
    assert len(clear) <= 1


@pytest.mark.parametrize("count", [0, FEWEST - 1, FEWEST])
def test_too_few_trials_are_said_so(tmp_path, count):
    history = gather(make_sweep(tmp_path, [trial(rising(0.05 + 0.001 * n)) for n in range(count)]))
    found = importances(history.valued, history.parameters)
    assert found.note and bool(found.items) == (count >= FEWEST)


def test_settings_of_texts_and_constant_ones(tmp_path):
    trials = [trial(rising(0.05 if n % 2 else 0.03 + n / 1e4), settings={"modalities": ["id"] if n % 2 else ["id", "text"],
                                                                        "lr": 1e-3}) for n in range(20)]  # fmt: skip
    history = gather(make_sweep(tmp_path, trials, space={"modalities": [["id"], ["id", "text"]], "lr": [1e-3]}))
    found = importances(history.valued, history.parameters)
    assert [item.key for item in found.items] == ["modalities"] and found.items[0].share == 1


def test_a_level_of_chance_beyond_everything_does_not_shrink_the_bars():
    items = (Importance("lr", 0.46, 0.1, 0.6, 0.5), Importance("beta", 0.05, 0.0, 0.3, 4.4))
    bars = importance_bars(Importances(items, 12, 0.42))
    assert [bar.length for bar in bars] == [0.46, 0.05] and bars[0].interval == (0.1, 0.6)
    assert [bar.mark for bar in bars] == [0.5, 1.0]
