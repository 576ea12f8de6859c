"""What every system has to fulfil, whatever it is: one test per promise, run over all of `MODELS`."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_features_of_both_kinds, make_scenario, make_sequences, whole

from llmemf.batches import Batch, SequenceView
from llmemf.checkpoint import evaluate_checkpoint
from llmemf.config import build_config
from llmemf.models import MODELS, model_class
from llmemf.ranking import rank_cases, summarise
from llmemf.training import Trainer

SMALL = {"batch_size": 16, "eval_batch_size": 8, "epochs": 2, "max_length": 12, "device": "cpu", "lr": 0.01, "l2": 0.0}
WIDTHS = ("dim", "id_dim")
"""Settings by which systems call their width."""
OVERFIT = {"epochs": 200, "patience": 0, "dropout": 0.0}
OWN: dict[str, dict] = {
    # Only what a system needs to learn 32 sequences by heart within seconds.
    "llm_emf": {"lambda1": 1.0, "lambda2": 1.0},
    "bprmf": {"epochs": 40},
    "ncf_mlp": {"negatives": 20, "lr": 0.03, "epochs": 120},
    "mifn": {"epochs": 60, "lr": 0.03, "nodes": 8},
    "pi_net": {"epochs": 60, "lr": 0.03},
    "psjnet": {"epochs": 60, "lr": 0.03},
    "c2dsr": {"epochs": 60},
    "tri_cdr": {
        "dim": 32,
        "lr": 0.005,
        "epochs": 80,
        "num_negatives": 40,
        "triplet_weight": 0.0,
        "contrast_weight": 0.0,
    },
}
SKIPS_HISTORY = {"abxi", "bprmf", "ncf_mlp", "tri_cdr"}
"""Systems whose negatives leave out the sequence's own items: nothing tells them to rank these below the target."""


def configuration(name: str, **values):
    kind = model_class(name).config_class
    widths = {key: 16 for key in WIDTHS if key in kind.model_fields}
    given = {"model": name, **SMALL, **widths, **values}
    return build_config(kind, {key: value for key, value in given.items() if key in kind.model_fields})


@pytest.fixture(scope="module")
def scenario():
    return make_scenario()


@pytest.fixture(scope="module")
def data(scenario):
    return make_data(scenario, missing=False)


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def trained_models():
    return {}


@pytest.fixture
def first_epoch(name, data, trained_models, tmp_path_factory):
    """A trainer after its first epoch, what it reported, and its checkpoint."""
    if name not in trained_models:
        trainer, folder = Trainer(configuration(name), data), tmp_path_factory.mktemp(name)
        logged = next(trainer.epochs())
        trainer.save(folder)
        trainer.model.eval()
        trained_models[name] = trainer, logged, folder
    return trained_models[name]


@pytest.fixture
def trained(first_epoch):
    return first_epoch[0]


def scores(model, batch):
    with torch.no_grad():
        return [model.score_all(batch, domain) for domain in (0, 1)]


def history(rows, users=None, width=12):
    """A batch of given histories, built column by column."""
    views = {}
    for view, member in (("x", lambda i: i < NUM_X), ("y", lambda i: i >= NUM_X), ("xy", lambda i: True)):
        kept = [[item for item in row if member(item)][-width:] for row in rows]
        columns = max(1, *map(len, kept))
        items = torch.full((len(rows), columns), NUM_ITEMS)
        for number, row in enumerate(kept):
            if row:
                items[number, columns - len(row) :] = torch.tensor(row)
        none = torch.full_like(items, NUM_ITEMS)
        views[view] = SequenceView(items, none, none)
    return Batch(torch.tensor(users or [0] * len(rows)), views, None)


def test_scores_have_the_shape_of_the_domain_and_are_finite(name, trained, data):
    batch = whole(make_sequences(data, "valid", config=trained.config))
    for domain, result in enumerate(scores(trained.model, batch)):
        assert result.shape == (len(batch), (NUM_X, NUM_ITEMS - NUM_X)[domain])
        assert torch.isfinite(result).all()


def test_scoring_twice_gives_the_same(name, trained, data):
    batch = whole(make_sequences(data, "valid", config=trained.config))
    for first, second in zip(scores(trained.model, batch), scores(trained.model, batch)):
        assert torch.equal(first, second)


def test_a_case_is_scored_alike_alone_and_among_others(name, trained, data):
    sequences = make_sequences(data, "valid", config=trained.config)
    together = scores(trained.model, whole(sequences))
    for case in (0, 5, len(sequences) - 1):
        alone = scores(trained.model, sequences.batch(torch.tensor([case])))
        for one, all_of_them in zip(alone, together):
            torch.testing.assert_close(one[0], all_of_them[case], rtol=1e-3, atol=1e-4)


def test_padding_on_the_left_changes_nothing(name, trained):
    short = history([[3, 35, 8, 50]])
    padded = Batch(
        short.users,
        {
            key: SequenceView(*(torch.cat([table.new_full((1, 3), NUM_ITEMS), table], 1) for table in (v.items, v.next_same, v.next_merged)))
            for key, v in short.views.items()
        },
        None,
    )  # fmt: skip
    for before, after in zip(scores(trained.model, short), scores(trained.model, padded)):
        torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def test_the_target_is_never_read(name, trained, data):
    sequences = make_sequences(data, "valid", config=trained.config)
    batch = whole(sequences)
    changed = Batch(batch.users, batch.views, (batch.targets + 7) % NUM_ITEMS)
    for before, after in zip(scores(trained.model, batch), scores(trained.model, changed)):
        assert torch.equal(before, after)


def test_users_without_training_and_with_one_domain_are_scored(name, trained, data):
    unknown = int(data.num_users - 1)
    batch = history([[2], [40], [1, 2, 3], [31, 33, 60]], users=[unknown, unknown, 0, 1])
    for result in scores(trained.model, batch):
        assert torch.isfinite(result).all()


def test_a_training_batch_of_one_and_of_one_domain(name, data):
    trainer = Trainer(configuration(name), data)
    if trainer.model.closed_form:
        pytest.skip("takes no step")
    lengths = np.array([len(set(row < NUM_X)) for row in map(data.train.row, range(len(data.train)))])
    for index in (0, int(np.flatnonzero(lengths == 1)[0])):
        loss = trainer.model.training_loss(trainer.train_sequences.batch(torch.tensor([index])))
        assert torch.isfinite(loss) and loss.ndim == 0
        if loss.requires_grad:
            loss.backward()


def test_training_leaves_frozen_matrices_alone(name, trained, data):
    untouched = make_data(missing=False)
    for kind in ("text", "image"):
        assert np.array_equal(getattr(data, kind).rows, getattr(untouched, kind).rows)


def test_every_parameter_is_trained_and_a_closed_form_has_none(name, trained, data):
    model = copy.deepcopy(trained.model).train()
    loss = model.training_loss(whole(trained.train_sequences))
    if model.closed_form:
        assert float(loss) == 0 and not list(model.parameters()) and not model.trainable_state()
        return
    loss.backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert not [key for key, grad in gradients.items() if grad is None or not grad.isfinite().all() or not grad.any()]


def test_steps_on_one_batch_lower_its_loss(name, data):
    trainer = Trainer(configuration(name, dropout=0.0), data)
    if trainer.model.closed_form:
        pytest.skip("takes no step")
    trainer.model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        losses = [trainer.step(torch.arange(16)).item() for _ in range(16)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_a_checkpoint_scores_what_was_logged(first_epoch, scenario):
    _, logged, folder = first_epoch
    features = make_features_of_both_kinds(scenario, missing=False)
    again = evaluate_checkpoint(folder, scenario, features, split="valid", device="cpu")
    for key, value in logged.items():
        if key.startswith(("val/film", "val_full/book")):
            assert again[key.replace("val", "valid", 1)] == pytest.approx(value, abs=1e-6), key


def test_a_resumed_trainer_equals_an_uninterrupted_one(name, data, first_epoch):
    straight = list(Trainer(configuration(name), data).epochs())
    second = Trainer(configuration(name), data)
    second.load(first_epoch[2])
    reports = [first_epoch[1], *second.epochs()]
    assert len(reports) == len(straight) == (1 if second.model.closed_form else SMALL["epochs"])
    for ours, theirs in zip(reports, straight):
        same = [
            key for key in theirs if key.startswith(("train/", "val")) or key in ("epoch", "objective", "best_epoch")
        ]
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


@pytest.mark.slow
def test_32_sequences_are_learned_by_heart(name):
    """Trained on what it is then asked: the last item after two others of each domain; no two sequences end alike."""
    if model_class(name).status == "floor":
        pytest.skip("reads no history")
    rng = np.random.default_rng(3)
    rows = []
    for target in rng.permutation(NUM_ITEMS)[:32]:
        pools = (np.arange(NUM_X), np.arange(NUM_X, NUM_ITEMS))
        others = np.concatenate([rng.choice(pool[pool != target], 2, replace=False) for pool in pools])
        rows.append([*map(int, rng.permutation(others)), int(target)])
    scenario = make_scenario(rows={"train": rows, "valid": rows})
    data = make_data(scenario, missing=False)
    trainer = Trainer(configuration(name, **{**OVERFIT, **OWN.get(name, {})}), data)
    trainer.valid_cases = np.arange(1)
    wanted, mrr = 0.3 if trainer.model.closed_form else 0.9, 0.0
    for result in trainer.epochs():
        if result["epoch"] % 10 == 0 or trainer.stopped or result["epoch"] == trainer.config.epochs:
            candidates = np.full((32, 1), -1, np.int32)
            ranks = rank_cases(trainer.model, trainer.valid_sequences, candidates, batch_size=32, ties="mean")
            mrr = np.mean(1 / ranks["unseen" if name in SKIPS_HISTORY else "full"])
        if mrr > wanted:
            break
    assert mrr > wanted, mrr


def test_validation_metrics_come_from_the_scores(name, trained, data):
    """The ranks of the trainer against a plain loop over the model's scores."""
    sequences = make_sequences(data, "valid", config=trained.config)
    found = rank_cases(trained.model, sequences, data.valid_candidates, batch_size=7)
    both = scores(trained.model, whole(sequences))
    for place, case in enumerate(found["case"]):
        target = int(data.valid.targets[case])
        own = both[int(target >= NUM_X)][case].numpy()
        value = own[target - (NUM_X if target >= NUM_X else 0)]
        others = np.delete(own, target - (NUM_X if target >= NUM_X else 0))
        low, high = 1 + (others > value + 1e-4).sum(), 1 + (others > value - 1e-4).sum()
        assert low <= found["full"][place] <= high
    assert 0 < summarise(found, data.domains, "val")["val/mrr"] <= 1


def test_it_says_where_it_comes_from(name):
    kind = model_class(name)
    assert kind.source and kind.status
    space = kind.search_space
    assert space and all(key in kind.config_class.model_fields for entry in space for key in entry.split(", "))
