"""The trainer: resuming, stopping, choosing, refusing; and that frozen things stay frozen."""

import contextlib
import dataclasses
import itertools
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import NUM_ITEMS, NUM_X, NUM_Y, SMALL, make_config, make_data, make_features_of_both_kinds, make_scenario
from tiny import make_candidates as candidates_for

from llmemf import checkpoint, training
from llmemf.batches import TrialData
from llmemf.checkpoint import CONFIG, evaluate_checkpoint
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError
from llmemf.memory import memory_gb
from llmemf.models import model_class
from llmemf.ranking import METRICS
from llmemf.training import NonFiniteLoss, Trainer, training_precision

MEASURED = ("seconds_train", "seconds_valid", "sequences_per_second", "cpu_percent", "memory_gb")
DROPOUT = {"dropout": 0.3, "l2": 1e-4}
WHOLE = {"modalities": ["id", "image", "text"]}


def make_trainer(data=None, **values):
    """A trainer of a small LLM-EMF: item ids alone unless `modalities` says more, and one layer."""
    return Trainer(make_config(**{"modalities": ["id"], "encoder_layers": 1, **values}), data or make_data())


def run(trainer):
    """Metrics of every epoch without the times."""
    return [{k: v for k, v in metrics.items() if k not in MEASURED} for metrics in trainer.epochs()]


def assert_same_state(one, two):
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), name
    states = one.optimizer.state_dict()["state"], two.optimizer.state_dict()["state"]
    assert set(states[0]) == set(states[1])
    for number, state in states[0].items():
        assert all(torch.equal(tensor, states[1][number][name]) for name, tensor in state.items())
    assert set(one.best) == set(two.best)
    for name, kept in one.best.items():
        assert (kept["value"], kept["epoch"]) == (two.best[name]["value"], two.best[name]["epoch"])
        assert all(torch.equal(tensor, two.best[name]["weights"][key]) for key, tensor in kept["weights"].items())


@pytest.mark.parametrize(
    "options",
    [
        WHOLE,
        {"objective": "sampled", "sampled_negatives": 11},
        {"warmup_epochs": 1, "lr_schedule": "plateau", "plateau_epochs": 1, "lr": 0.05},
        *(
            pytest.param({**WHOLE, **options}, marks=pytest.mark.slow)
            for options in (
                {"learn_weights": True, "scale_init": 20.0, "scale_max": 20.0},
                {"selection": "per_domain"},
                {"monitor": "val_loss", "l2_mode": "adamw"},
                {"optimizer": "adagrad", "clip_value": 0.01},
                {"warmup_epochs": 1, "lr_schedule": "cosine"},
                {"l2_mode": "embedding_rows", "clip_norm": 0.5, "missing": "learned", "empty_sequence": "learned"},
                {"loss_roles": "per_target", "item_projection": "mlp", "projection_dim": 5, "layout": "aligned"},
            )
        ),
    ],
    ids=str,
)
def test_resumed_equals_uninterrupted_bit_for_bit(options, tmp_path):
    options = {**DROPOUT, "epochs": 3, **options}
    whole = make_trainer(**options)
    expected = run(whole)
    assert [metrics["epoch"] for metrics in expected] == [1, 2, 3]
    first = make_trainer(**options)
    steps = first.epochs()
    start = [next(steps), next(steps)]
    first.save(tmp_path)
    torch.rand(7), np.random.rand(3), random.random()
    second = make_trainer(**options)
    second.load(tmp_path)
    rest = run(second)
    assert [{k: v for k, v in m.items() if k not in MEASURED} for m in start] + rest == expected
    assert_same_state(second, whole)


def test_the_same_seed_gives_the_same_and_another_seed_another_run():
    one, two, other = make_trainer(**DROPOUT), make_trainer(**DROPOUT), make_trainer(**DROPOUT, seed=1)
    results = [run(trainer) for trainer in (one, two, other)]
    assert results[0] == results[1]
    assert_same_state(one, two)
    assert results[0][0]["train/loss"] != results[2][0]["train/loss"]
    name = "towers.0.head.tables.id.input"
    initial = [make_trainer(seed=seed).model.state_dict()[name] for seed in (0, 1)]
    assert not torch.equal(*initial)


def test_training_leaves_the_callers_random_state_alone():
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    run(make_trainer(**DROPOUT, objective="sampled", sampled_negatives=5))
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert np.random.get_state()[1].tolist() == expected[1] and random.getstate() == expected[2]


def scripted(monkeypatch, values, **options):
    """A trainer whose validation yields the given (MRR of film, of book, loss), and whose first weight counts epochs."""
    trainer = make_trainer(epochs=len(values), **options)
    parameter = next(trainer.model.parameters())

    def train(epoch):
        with torch.no_grad():
            parameter.fill_(epoch)
        return 0.5

    def validate():
        film, book, loss = values[trainer.epoch]
        return {"val/film/mrr": film, "val/book/mrr": book, "val/mrr": (film + book) / 2, "val/loss": loss}

    monkeypatch.setattr(trainer, "_train_epoch", train)
    monkeypatch.setattr(trainer, "_validate", validate)
    return trainer


def weights_epoch(kept):
    return float(next(iter(kept["weights"].values())).flatten()[0])


CURVE = [(0.1, 0.1, 5), (0.3, 0.2, 4), (0.2, 0.2, 3), (0.2, 0.25, 6), (0.1, 0.1, 7), (0.1, 0.1, 8), (0.9, 0.9, 1)]


@pytest.mark.parametrize(
    ("options", "epochs", "best"),
    [
        ({"patience": 3}, 5, {"joint": (0.25, 2)}),
        ({"patience": 3, "monitor": "val_loss"}, 6, {"joint": (-3, 3)}),
        ({"patience": 2, "selection": "per_domain"}, 6, {"x": (0.3, 2), "y": (0.25, 4)}),
        ({"patience": 0}, 7, {"joint": (0.9, 7)}),
        ({"patience": 1}, 3, {"joint": (0.25, 2)}),
    ],
)
def test_early_stopping_and_the_choice_of_the_best_epoch(monkeypatch, options, epochs, best):
    trainer = scripted(monkeypatch, CURVE, **options)
    metrics = run(trainer)
    assert len(metrics) == epochs
    assert [m["stopped_early"] for m in metrics] == [False] * (epochs - 1) + [epochs < len(CURVE)]
    assert {name: (kept["value"], kept["epoch"]) for name, kept in trainer.best.items()} == best
    assert all(weights_epoch(kept) == kept["epoch"] for kept in trainer.best.values())
    assert metrics[-1]["objective"] == pytest.approx(np.mean([value for value, _ in best.values()]))
    assert metrics[-1]["best_epoch"] == max(epoch for _, epoch in best.values())
    objectives = [m["objective"] for m in metrics]
    assert objectives == sorted(objectives)


def test_more_patience_lets_a_stopped_run_go_on_and_a_stopped_run_stays_stopped(monkeypatch, tmp_path):
    trainer = scripted(monkeypatch, CURVE, patience=2)
    assert len(run(trainer)) == 4
    trainer.save(tmp_path)
    again = scripted(monkeypatch, CURVE, patience=2)
    again.load(tmp_path)
    assert run(again) == []
    patient = scripted(monkeypatch, CURVE, patience=5)
    patient.load(tmp_path)
    assert [m["epoch"] for m in run(patient)] == [5, 6, 7]


def rates_of(trainer, monkeypatch):
    """Learning rate of every step, epoch by epoch."""
    rates = []

    def step(index):
        rates.append({group["lr"] for group in trainer.optimizer.param_groups})
        return torch.tensor(0.5)

    monkeypatch.setattr(trainer, "step", step)
    epochs = len(run(trainer))
    assert all(len(rate) == 1 for rate in rates)
    return np.array([rate.pop() for rate in rates]).reshape(epochs, -1)


def test_the_learning_rate_rises_and_falls_as_computed_by_hand(monkeypatch):
    options = {"epochs": 5, "lr": 0.1, "patience": 0}
    constant = rates_of(make_trainer(**options), monkeypatch)
    assert (constant == 0.1).all() and constant.shape[1] > 1
    passed = np.arange(1, constant.size + 1).reshape(constant.shape) / constant.shape[1]
    rising = rates_of(make_trainer(**options, warmup_epochs=2), monkeypatch)
    np.testing.assert_allclose(rising, 0.1 * np.minimum(1, passed / 2))
    cosine = rates_of(make_trainer(**options, warmup_epochs=2, lr_schedule="cosine", lr_end=0.2), monkeypatch)
    np.testing.assert_allclose(cosine[:2], rising[:2])
    falling = 0.1 * (0.2 + 0.8 * (1 + np.cos(np.pi * (passed - 2) / 3)) / 2)
    np.testing.assert_allclose(cosine[2:], falling[2:])
    assert cosine[-1, -1] == pytest.approx(0.02)


def test_a_plateau_lowers_the_learning_rate_and_starts_a_new_count(monkeypatch):
    curve = iter([0.1, 0.3, 0.3, 0.2, 0.2, 0.2, 0.4, 0.1])
    trainer = make_trainer(epochs=8, patience=0, lr=1.0, lr_schedule="plateau", plateau_epochs=2, plateau_factor=0.5)
    monkeypatch.setattr(trainer, "_validate", lambda: {"val/mrr": next(curve), "val/loss": 1.0})
    rates = rates_of(trainer, monkeypatch)
    assert trainer.plateaus == [4, 6]
    assert rates[:, 0].tolist() == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_cosine_is_not_continued_towards_another_end(tmp_path):
    trainer = make_trainer(epochs=3, lr_schedule="cosine")
    next(trainer.epochs())
    trainer.save(tmp_path)
    with pytest.raises(InputError, match="epochs"):
        make_trainer(epochs=4, lr_schedule="cosine").load(tmp_path)
    make_trainer(epochs=3, lr_schedule="cosine").load(tmp_path)


def test_more_epochs_continue_exactly_as_if_they_had_been_planned(tmp_path):
    long = make_trainer(**DROPOUT, epochs=3)
    expected = run(long)
    short = make_trainer(**DROPOUT, epochs=1)
    run(short)
    short.save(tmp_path)
    longer = make_trainer(**DROPOUT, epochs=3)
    longer.load(tmp_path)
    assert run(longer) == expected[1:]


def test_metrics_of_an_epoch():
    trainer = make_trainer(epochs=1)
    (metrics,) = trainer.epochs()
    names = {
        f"{kind}/{domain}/{m}"
        for kind in ("val", "val_full", "val_unseen")
        for domain in ("film", "book")
        for m in METRICS
    }
    names |= {
        "val/mrr",
        "val_full/mrr",
        "val_unseen/mrr",
        "val/loss",
        "train/loss",
        "objective",
        "best_epoch",
        "epoch",
        "stopped_early",
    }
    assert set(metrics) == names | set(MEASURED)
    assert metrics["objective"] == metrics["val/mrr"] and metrics["best_epoch"] == 1
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    "options",
    [{"lr": 1e30}, {"lr": 1e30, "objective": "sampled"}],
    ids=str,
)
def test_divergence_names_epoch_step_and_settings(options):
    with pytest.raises(NonFiniteLoss) as caught:
        run(make_trainer(epochs=3, **options))
    message = str(caught.value)
    assert "epoch 1" in message and "lr = 1e+30" in message and "batch_size = 16" in message and "\n" not in message


def test_a_loss_that_is_not_a_number_names_its_step(monkeypatch):
    trainer = make_trainer(epochs=2)
    original, calls = trainer.model.training_loss, []

    def loss(batch):
        calls.append(len(batch))
        return original(batch) * (math.inf if len(calls) == 5 else 1)

    monkeypatch.setattr(trainer.model, "training_loss", loss)
    with pytest.raises(NonFiniteLoss, match="loss is inf in epoch 2, step 2 with lr = 0.01, l2 = 0"):
        run(trainer)


def test_checkpoints_refuse_other_settings_data_and_features(tmp_path):
    trainer = make_trainer(**WHOLE, epochs=1)
    run(trainer)
    trainer.save(tmp_path)
    with pytest.raises(InputError, match=r"another configuration \(dropout, lr differ\)"):
        make_trainer(**WHOLE, epochs=1, lr=0.02, dropout=0.1).load(tmp_path)
    with pytest.raises(InputError, match="trained on data"):
        make_trainer(make_data(make_scenario(seed=1)), **WHOLE, epochs=1).load(tmp_path)
    with pytest.raises(InputError, match="other image features"):
        make_trainer(make_data(missing=False), **WHOLE, epochs=1).load(tmp_path)
    with pytest.raises(InputError, match=r"nowhere holds no trained model"):
        make_trainer(epochs=1).load(tmp_path / "nowhere")
    scenario = make_scenario()
    with pytest.raises(InputError, match="other image features"):
        evaluate_checkpoint(tmp_path, scenario, make_features_of_both_kinds(scenario, missing=False))
    other = make_scenario(seed=1)
    with pytest.raises(InputError, match="trained on data"):
        evaluate_checkpoint(tmp_path, other, make_features_of_both_kinds(other))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a checkpoint after one epoch, only to be read."""
    folder = tmp_path_factory.mktemp("checkpoint")
    trainer = make_trainer(epochs=1)
    run(trainer)
    trainer.save(folder)
    return folder


@pytest.fixture
def stored(written, tmp_path):
    """A checkpoint after one epoch."""
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def edit_config(folder, change):
    content = yaml.safe_load((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(yaml.safe_dump(content))


def load_state(folder):
    make_trainer(epochs=1).load(folder)


def load_best(folder):
    evaluate_checkpoint(folder, make_scenario(), {}, "valid", device="cpu")


FILES = [(checkpoint.STATE, load_state), (checkpoint.BEST, load_best)]


@pytest.mark.parametrize("hashes", [True, False], ids=["hashes", "no hashes"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
@pytest.mark.parametrize(("name", "load"), FILES)
def test_damaged_checkpoints_are_the_users_mistake(stored, name, load, content, hashes):
    if not hashes:
        edit_config(stored, lambda values: values.pop("sha256"))
    (stored / name).unlink() if content is None else (stored / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load(stored)


@pytest.mark.parametrize(("name", "load"), FILES)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_flipped_bit_of_a_checkpoint_is_found(stored, name, load, place):
    content = bytearray((stored / name).read_bytes())
    content[int(place * len(content))] ^= 1
    load(stored)
    (stored / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load(stored)


def test_another_yaml_is_no_checkpoint(stored):
    (stored / CONFIG).write_text("lr: 0.1\n")
    with pytest.raises(InputError, match=f"{CONFIG}.*best, config"):
        load_state(stored)


def write_old_settings(folder, **values):
    """The configuration as a version wrote it that had these settings."""
    edit_config(folder, lambda content: (content.pop("sha256"), content["config"].update(values)))


def test_checkpoints_of_the_version_before_load(stored):
    old = {"cuda_graphs": False, "group_encoders": "auto", "objective_kernel": "auto", "objective_precision": "auto"}
    old["compile"] = True
    write_old_settings(stored, **old)
    load_state(stored), load_best(stored)


@pytest.mark.parametrize("setting", [{"cuda_graphs": True}, {"objective_kernel": "triton"}], ids=str)
def test_a_removed_setting_that_did_something_is_named(stored, setting):
    ((key, value),) = setting.items()
    write_old_settings(stored, **setting)
    for load in (load_state, load_best):
        with pytest.raises(InputError, match=f"{CONFIG}: {key} = {value!r}"):
            load(stored)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"selection": "per_domain"},
        {"monitor": "val_loss", "ties": "optimistic"},
        {"loss_roles": "per_target"},
        {"modalities": ["id"], "ties": "pessimistic"},
        {"preset": "literal"},
    ],
    ids=str,
)
def test_a_checkpoint_evaluates_to_the_metrics_of_its_best_epoch(options, tmp_path):
    scenario = make_scenario()
    trainer = make_trainer(epochs=5, **{**DROPOUT, **WHOLE, "lr": 0.05, **options})
    metrics = run(trainer)
    trainer.save(tmp_path)
    features = make_features_of_both_kinds(scenario)
    if "modalities" in options:
        features = {}
    result = evaluate_checkpoint(tmp_path, scenario, features, split="valid", device="cpu")
    codes = {"x": "film", "y": "book"}
    for name, kept in trainer.best.items():
        logged = metrics[kept["epoch"] - 1]
        for domain in codes.values() if name == "joint" else [codes[name]]:
            for kind, prefix in (("valid", "val"), ("valid_full", "val_full")):
                for metric in METRICS:
                    assert result[f"{kind}/{domain}/{metric}"] == logged[f"{prefix}/{domain}/{metric}"]
        if name == "joint":
            assert (result["valid/mrr"], result["valid/loss"]) == (logged["val/mrr"], logged["val/loss"])
    beside = {f"test/{domain}/{name}" for domain in codes.values() for name in ("mrr_per_item", "coverage_10")}
    expected = {name.replace("valid", "test") for name in result} | beside
    assert set(evaluate_checkpoint(tmp_path, scenario, features, device="cpu")) == expected


def test_the_test_split_touches_nothing_of_a_trial():
    scenario = make_scenario()
    test = dataclasses.replace(scenario.test, items=(scenario.test.items + 1) % NUM_ITEMS)
    other = dataclasses.replace(
        scenario,
        test=test,
        candidates={**scenario.candidates, "test": candidates_for(np.random.default_rng(9), test.targets)},
    )
    other.validate()
    assert other.fingerprint != scenario.fingerprint
    assert run(make_trainer(make_data(scenario), **DROPOUT)) == run(make_trainer(make_data(other), **DROPOUT))
    (metrics, *_) = run(make_trainer(make_data(scenario), epochs=1))
    assert not [name for name in metrics if "test" in name]


def test_frozen_features_are_the_same_bytes_after_training():
    scenario = make_scenario()
    features = make_features_of_both_kinds(scenario)
    before = {kind: (matrix.rows.tobytes(), matrix.has.tobytes()) for kind, matrix in features.items()}
    data = TrialData.build(scenario, **features)
    given = {kind: getattr(data, kind).rows.tobytes() for kind in features}
    trainer = make_trainer(data, **DROPOUT, **WHOLE, lr=0.05)
    tables = trainer.model.towers[0].head.tables
    inside = {kind: tables[kind].rows.numpy().tobytes() for kind in features}
    first = next(p for p in trainer.model.parameters() if p.requires_grad).clone()
    run(trainer)
    assert not torch.equal(next(p for p in trainer.model.parameters() if p.requires_grad), first)
    for kind, matrix in features.items():
        assert (matrix.rows.tobytes(), matrix.has.tobytes()) == before[kind]
        assert getattr(data, kind).rows.tobytes() == given[kind]
        assert tables[kind].rows.numpy().tobytes() == inside[kind]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        WHOLE,
        {"modalities": ["id"]},
        {**WHOLE, "objective": "sampled", "sampled_negatives": 64},
        {**WHOLE, "mixture": "logit"},
    ],
    ids=str,
)
def test_32_sequences_are_learned_by_heart(options):
    rng = np.random.default_rng(4)
    parts = [(rng.choice(NUM_X, 3, replace=False), NUM_X + rng.choice(NUM_Y, 3, replace=False)) for _ in range(32)]
    rows = [rng.permutation(np.concatenate(part)).tolist() for part in parts]
    data = make_data(make_scenario(rows={"train": rows, "valid": rows}))
    trainer = make_trainer(data, epochs=70, patience=0, lr=0.02, id_dim=24, tied_ids=False, batch_size=8, **options)
    values = []
    for metrics in trainer.epochs():
        values.append(min(metrics["val/mrr"], metrics["val_full/mrr"]))
        if values[-1] > 0.9:
            break
    assert values[0] < 0.4 and values[-1] > 0.9


def test_validation_may_look_at_a_sample_that_every_trial_shares():
    data = make_data()
    samples = [make_trainer(data, valid_cases=9, seed=seed).valid_cases for seed in (0, 1)]
    np.testing.assert_array_equal(*samples)
    assert len(set(samples[0])) == 9 and max(samples[0]) < len(data.valid)
    assert make_trainer(data, valid_cases=0).valid_cases is None
    assert make_trainer(data, valid_cases=len(data.valid)).valid_cases is None
    few, all_of_them = run(make_trainer(data, valid_cases=9)), run(make_trainer(data))
    assert few[0]["train/loss"] == all_of_them[0]["train/loss"]
    assert few[0]["val/loss"] != all_of_them[0]["val/loss"]


def test_ties_reach_the_metrics():
    """All scores are equal without any weight in the item vectors: the tie rule decides."""
    results = {}
    for ties in ("optimistic", "mean", "pessimistic"):
        trainer = make_trainer(ties=ties)
        with torch.no_grad():
            trainer.model.towers[0].head.tables["id"].input.zero_()
        results[ties] = trainer._validate()["val_full/film/mrr"]
    assert results["optimistic"] == 1
    assert results["mean"] == pytest.approx(1 / (1 + (NUM_X - 1) / 2))
    assert results["pessimistic"] == pytest.approx(1 / NUM_X)


def one_step(**options):
    """Parameters before and after one step of one batch, and the gradients of the loss alone."""
    trainer = make_trainer(epochs=1, batch_size=64, **options)
    names = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    before = {name: trainer.model.get_parameter(name).detach().clone() for name in names}
    batch = trainer.train_sequences.batch(torch.arange(len(trainer.train_sequences)))
    reference = make_trainer(epochs=1, batch_size=64, **options).model.train()
    reference.training_loss(batch).backward()
    gradients = {name: reference.get_parameter(name).grad for name in names}
    trainer._train_epoch(1)
    return trainer, before, {name: trainer.model.get_parameter(name).detach() for name in names}, gradients


@pytest.mark.parametrize("mode", ["adam", "adamw", "embedding_rows", "none"])
def test_l2_acts_where_it_says(mode):
    """After one step Adam's first moment is a tenth of the gradient it was given, coupled decay included."""
    l2, lr, table = 3.0, 1e-3, "towers.0.head.tables.id.input"
    trainer, before, after, gradients = one_step(l2=l2, lr=lr, l2_mode=mode)
    in_history = np.unique(np.concatenate([trainer.data.train.row(i)[:-1] for i in range(len(trainer.data.train))]))
    rows = torch.zeros(NUM_ITEMS, 1)
    rows[in_history] = 1
    assert 0 < len(in_history) < NUM_ITEMS
    for name, start in before.items():
        expected = gradients[name]
        decayed = start * (start.ndim >= 2)
        if mode == "adam":
            expected = expected + l2 * decayed
        elif mode == "embedding_rows" and name == table:
            expected = expected + 2 * l2 * start * rows / len(trainer.train_sequences)
        given = trainer.optimizer.state[trainer.model.get_parameter(name)]["exp_avg"] / 0.1
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=5e-6, msg=lambda m, n=name: f"{n}: {m}")
        start = start - lr * l2 * decayed if mode == "adamw" else start
        moved = start - lr * given / (given.abs() + 1e-8)
        torch.testing.assert_close(after[name], moved, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = {}
    for clip in (0.0, 0.01):
        trainer = make_trainer(epochs=1, clip_norm=clip)
        seen = norms.setdefault(clip, [])
        step = trainer.optimizer.step

        def record(*args, trainer=trainer, seen=seen, step=step, **kwargs):
            seen.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).norm())
            return step(*args, **kwargs)

        monkeypatch.setattr(trainer.optimizer, "step", record)
        trainer._train_epoch(1)
    assert min(norms[0.0]) > 0.02
    assert max(norms[0.01]) == pytest.approx(0.01, rel=1e-3)


def test_single_values_of_the_gradient_are_cut_before_the_norm_is_taken(monkeypatch):
    found = {}
    for name, values in {
        "free": {},
        "cut": {"clip_value": 1e-3},
        "both": {"clip_value": 1e-3, "clip_norm": 1e-2},
    }.items():
        trainer = make_trainer(epochs=1, batch_size=999, **values)
        monkeypatch.setattr(trainer.optimizer, "step", lambda *args, **kwargs: None)
        trainer._train_epoch(1)
        found[name] = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    cut = found["free"].clamp(-1e-3, 1e-3)
    assert 0 < int((found["free"].abs() > 1e-3).sum()) < len(cut)
    torch.testing.assert_close(found["cut"], cut, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found["both"], cut * 1e-2 / cut.norm(), rtol=1e-3, atol=1e-8)


def test_adagrad_moves_by_the_root_of_the_summed_squares():
    """Two steps of every parameter, from the gradients that the model gives."""
    trainer = make_trainer(optimizer="adagrad", lr=0.05, batch_size=999)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    expected, squares = {}, {}
    step = trainer.optimizer.step

    def follow(*args, **kwargs):
        for parameter in trainer.model.parameters():
            if parameter.grad is not None:
                name = names[id(parameter)]
                squares[name] = squares.get(name, 0) + parameter.grad.numpy() ** 2
                start = expected.get(name, parameter.detach().numpy().copy())
                expected[name] = start - 0.05 * parameter.grad.numpy() / (np.sqrt(squares[name]) + 1e-10)
        return step(*args, **kwargs)

    trainer.optimizer.step = follow
    trainer._train_epoch(1)
    trainer._train_epoch(2)
    assert expected
    for name, parameter in trainer.model.named_parameters():
        if name in expected:
            np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_adagrad_without_its_kind_of_decay_is_refused():
    with pytest.raises(InputError, match="adagrad has no decoupled decay"):
        make_config(optimizer="adagrad", l2_mode="adamw")


def test_a_checkpoint_says_what_the_model_was_built_on(tmp_path):
    data = make_data()
    settings = {"model": "mifn", "epochs": 1, "dim": 4, "nodes": 8, "device": "cpu", "batch_size": 16, "max_length": 12}
    trainer = Trainer(build_config(model_class("mifn").config_class, settings), data)
    run(trainer)
    trainer.save(tmp_path)
    stored = read_yaml(tmp_path / "config.yaml")
    assert stored["facts"] == trainer.model.facts() and len(stored["facts"]["kg_hash"]) == 64
    assert evaluate_checkpoint(
        tmp_path, make_scenario(), make_features_of_both_kinds(make_scenario()), "valid", device="cpu"
    )


def test_every_epoch_sees_every_sequence_once_in_another_order(monkeypatch):
    trainer = make_trainer(epochs=2)
    seen, batch = [], trainer.train_sequences.batch
    monkeypatch.setattr(trainer.train_sequences, "batch", lambda index: seen.append(index.tolist()) or batch(index))
    run(trainer)
    per_epoch = math.ceil(len(trainer.train_sequences) / SMALL["batch_size"])
    epochs = [list(itertools.chain(*part)) for part in (seen[:per_epoch], seen[per_epoch:])]
    assert len(seen) == 2 * per_epoch
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(len(trainer.train_sequences)))
    assert epochs[0] != epochs[1]


def test_an_unknown_device_is_the_users_mistake():
    for name in ("gpu", "cuda:99"):
        with pytest.raises(InputError, match=f"device = '{name}' is not here: one of auto, cpu"):
            make_trainer(device=name)


@pytest.mark.slow
def test_memory_is_the_peak_of_this_process():
    """A block that was held and given back stays in the peak; another process starts from its own."""
    script = (
        "import numpy as np; from llmemf.memory import memory_gb\n"
        "before = memory_gb(); block = np.ones(2**26); del block; after = memory_gb()\n"
        "assert set(before) == {'memory_gb'}, before\n"
        "print(before['memory_gb'], after['memory_gb'])"
    )
    held = np.ones(2**26)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    before, after = map(float, found.stdout.split())
    assert 0.4 < after - before < 0.6, "the block is half a GiB"
    assert before < memory_gb()["memory_gb"] - 0.3, f"{held.nbytes} bytes of the parent are none of the child's"


def test_a_checkpoint_older_than_a_setting_had_its_default(tmp_path):
    data = make_data()
    trainer = make_trainer(data)
    next(trainer.epochs())
    trainer.save(tmp_path)
    stored = yaml.safe_load((tmp_path / CONFIG).read_text())
    for key in ("precision", "heads"):
        del stored["config"][key]
    (tmp_path / CONFIG).write_text(yaml.safe_dump(stored))
    make_trainer(data).load(tmp_path)
    with pytest.raises(InputError, match="heads"):
        make_trainer(data, heads=2).load(tmp_path)


def test_products_have_tf32_in_training_on_a_gpu_alone():
    """Ranking stays outside, where fp32 is exact."""
    before = torch.get_float32_matmul_precision()
    with training_precision(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with training_precision(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before


def test_an_epoch_trains_with_that_precision(monkeypatch):
    trainer, seen = make_trainer(epochs=1), []

    @contextlib.contextmanager
    def follow(device):
        seen.append(device)
        yield

    monkeypatch.setattr(training, "training_precision", follow)
    run(trainer)
    assert seen == [trainer.device]
