import numpy as np
import pytest
import tiny

from llmemf.checkpoint import evaluate_checkpoint
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.ranking import rank_metrics
from llmemf.training import Trainer
from sweeps.core.sweep_data import SweepData
from sweeps.groups.evaluation import evaluate_on_test, load_ranks, ranks_path, save_ranks, search_facts
from sweeps.state.trial_records import TrialRecord

SHARED = {"epochs": 2, "batch_size": 16, "max_length": 12, "device": "cpu", "eval_batch_size": 7}


def trained(folder, model, **settings):
    """A checkpoint of a system on the tiny scenario, and the data it is to be scored on."""
    scenario = tiny.make_scenario()
    features = tiny.make_features_of_both_kinds(scenario) if model == "llm_emf" else {}
    data = SweepData(scenario, features, tiny.TrialData.build(scenario, **features))
    config = build_config(model_class(model).config_class, {"model": model, **SHARED, **settings})
    trainer = Trainer(config, data.trial_data)
    for _ in trainer.epochs():
        pass
    trainer.save(folder)
    return data


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("sasrec", {"dim": 6}),
        ("llm_emf", {"id_dim": 6, "encoder_layers": 1, "selection": "per_domain"}),
        ("popularity", {}),
    ],
)
def test_ranks_give_the_metrics_that_the_trial_floor_gives(tmp_path, model, settings):
    data = trained(tmp_path, model, **settings)
    look = evaluate_on_test(tmp_path, data)
    assert look.metrics == evaluate_checkpoint(tmp_path, data.scenario, data.features)
    targets = data.scenario.test.targets
    assert sorted(look.ranks["case"]) == list(range(len(targets)))
    is_y = targets[look.ranks["case"]] >= data.scenario.num_x
    assert (look.ranks["domain"] == is_y).all()
    for code, domain in enumerate(data.scenario.domains):
        found = rank_metrics(look.ranks["full"][look.ranks["domain"] == code])
        assert found["mrr"] == look.metrics[f"test_full/{domain}/mrr"]
    weights = [p for p in model_class(model)(build_config(model_class(model).config_class, {"model": model, **SHARED, **settings}), data.trial_data).parameters() if p.requires_grad]  # fmt: skip
    assert look.parameters == sum(int(np.prod(p.shape)) for p in weights)
    assert (look.parameters == 0) == (model == "popularity")
    assert look.status == model_class(model).status


def test_other_data_and_damaged_weights_are_refused(tmp_path):
    trained(tmp_path, "sasrec", dim=6)
    other = tiny.make_scenario(seed=5)
    with pytest.raises(InputError, match="was trained on data"):
        evaluate_on_test(tmp_path, SweepData(other, {}, tiny.TrialData.build(other)))
    (tmp_path / "best.safetensors").write_bytes(b"broken")
    scenario = tiny.make_scenario()
    with pytest.raises(InputError, match="best.safetensors is damaged"):
        evaluate_on_test(tmp_path, SweepData(scenario, {}, tiny.TrialData.build(scenario)))


def test_ranks_on_disk_are_sorted_by_case(tmp_path):
    path = ranks_path(tmp_path, "sasrec", 3)
    ranks = {"case": np.array([4, 0, 2]), "domain": np.array([0, 0, 1]), "sampled": np.array([1.5, 2, 3]), "full": np.array([9.0, 8, 7])}  # fmt: skip
    save_ranks(path, ranks)
    found = load_ranks(path)
    assert found["case"].tolist() == [0, 2, 4] and found["sampled"].tolist() == [2, 3, 1.5]
    assert found["domain"].tolist() == [0, 1, 0] and found["full"].tolist() == [8, 7, 9]
    assert [item.name for item in path.parent.iterdir()] == ["sasrec--seed3.npz"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="remove it"):
        load_ranks(path)


def test_how_a_search_went():
    records = [
        TrialRecord(1, {}, 4, outcome="completed", objective=0.1, seconds=10),
        TrialRecord(2, {}, 4, outcome="failed", objective=0.9, seconds=1),
        TrialRecord(3, {}, 4, outcome="pruned", objective=0.2, seconds=2.04),
    ]
    assert search_facts(records) == {
        "trials": 3, "completed": 1, "pruned": 1, "failed": 1, "seconds": 13.0, "objective": 0.2,
    }  # fmt: skip
