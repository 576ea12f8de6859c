from dataclasses import replace

import numpy as np
import pytest
import tiny
from report_fakes import make_sweep, rising, trial

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.training import Trainer
from sweeps.core.sweep_data import SweepData
from sweeps.reporting.breakdown import break_down, rank_leaders, rank_validation, weights_of
from sweeps.reporting.gather import gather
from sweeps.state import checkpoints


def by_hand(ranks, chosen):
    gain = [1 / rank for rank in ranks["sampled"][chosen]]
    return pytest.approx(sum(gain) / len(gain))


@pytest.fixture
def data():
    scenario = tiny.make_scenario()
    return SweepData(scenario, {}, TrialData.build(scenario))


@pytest.fixture
def ranks(data):
    rng = np.random.default_rng(0)
    targets = data.scenario.valid.targets
    return {
        "case": np.arange(len(targets)), "domain": (targets >= tiny.NUM_X).astype(int),
        "sampled": rng.integers(1, 11, len(targets)).astype(float), "full": rng.integers(1, 30, len(targets)).astype(float),
    }  # fmt: skip


def test_groups_are_those_of_a_plain_loop(data, ranks):
    scenario = data.scenario
    found = break_down("t01", ranks, scenario)
    seen = [sum(int(item == target) for item in scenario.train.items) for target in scenario.valid.targets]
    lengths = [len(scenario.valid.row(case)) - 1 for case in range(len(seen))]
    for group in found.by["target seen in training"]:
        chosen = [c for c, n in enumerate(seen) if (n > 0) == ("warm" in group.label)
                  and scenario.domains[ranks["domain"][c]] == group.domain]  # fmt: skip
        assert group.cases == len(chosen) and group.mrr == by_hand(ranks, chosen)
    ends = {"never": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10-19": (10, 19), "20-49": (20, 49)}
    for group in found.by["popularity of the target"]:
        low, high = ends[group.label]
        chosen = [
            c for c, n in enumerate(seen) if low <= n <= high and scenario.domains[ranks["domain"][c]] == group.domain
        ]
        assert group.cases == len(chosen) and group.mrr == by_hand(ranks, chosen)
        assert group.hr_10 == 1.0 and group.mrr_full == pytest.approx(np.mean(1 / ranks["full"][chosen]))
    for title, groups in found.by.items():
        assert sum(group.cases for group in groups) == len(seen), title
    ends = {"1-2": (1, 2), "3-4": (3, 4), "5-7": (5, 7), "8-10": (8, 10)}
    assert {group.label for group in found.by["length of the history"]} == {
        label for label, (low, high) in ends.items() if any(low <= n <= high for n in lengths)
    }


def test_cold_targets_and_a_domain_without_cases(data, ranks):
    scenario = data.scenario
    target = int(scenario.valid.targets[0])
    kept = [row for row in map(scenario.train.row, range(len(scenario.train))) if target not in row]
    cold = replace(scenario, train=type(scenario.train).from_rows(range(len(kept)), kept))
    groups = break_down("t01", ranks, cold).by["target seen in training"]
    assert any(group.label == "never (cold)" for group in groups)
    one = {key: values[ranks["domain"] == 0] for key, values in ranks.items()}
    assert {group.domain for group in break_down("t01", one, scenario).by["domain"]} == {"film"}
    assert break_down("t01", one, scenario, valid_cases=3).sampled and not break_down("t01", one, scenario).sampled


def trained_sweep(storage, data):
    """A sweep whose two trials were really trained, the way a sweep keeps their weights."""
    values = []
    record = make_sweep(storage, [trial(rising(0.05)), trial(rising(0.04))], fixed={"modalities": ["id"]})
    for number, seed in ((1, 0), (2, 1)):
        settings = {"model": "sasrec", "dim": 6, "epochs": 1, "device": "cpu", "seed": seed, "eval_batch_size": 7}
        trainer = Trainer(build_config(model_class("sasrec").config_class, settings), data.trial_data)
        report = next(trainer.epochs())
        checkpoints.save(trainer, checkpoints.trial_folder(record.folder, number), {**report, "epoch": 6})
        values.append(report)
    return record, values


def test_kept_weights_give_the_numbers_that_were_logged(tmp_path, data):
    record, reports = trained_sweep(tmp_path, data)
    history = gather(record)
    found = rank_leaders(history, data=data)
    assert list(found.ranks) == ["t01", "t02"] and not found.problem
    for group in break_down("t01", found.ranks["t01"], data.scenario).by["domain"]:
        assert group.mrr == pytest.approx(reports[0][f"val/{group.domain}/mrr"], rel=1e-12)
        assert group.mrr_full == pytest.approx(reports[0][f"val_full/{group.domain}/mrr"], rel=1e-12)
        assert group.hr_10 == pytest.approx(reports[0][f"val/{group.domain}/hr_10"], rel=1e-12)


def test_weights_or_data_that_are_gone_are_a_sentence(tmp_path, data):
    record, _ = trained_sweep(tmp_path, data)
    history = gather(record)
    assert "data of sample is not in" in rank_leaders(history).problem
    other = tiny.make_scenario(seed=5)
    assert "was trained on data" in rank_leaders(history, data=SweepData(other, {}, TrialData.build(other))).problem
    folder = weights_of(history, 1)
    (folder / "best.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError):
        rank_validation(folder, data)
    assert str(folder / "best.safetensors") in rank_leaders(history, data=data).problem
    (folder / "best.safetensors").unlink()
    assert "weights of t01 are not in" in rank_leaders(history, data=data).problem
    empty = gather(make_sweep(tmp_path, [], name="empty", status="planned"))
    assert rank_leaders(empty).problem == "No trial has a value."
