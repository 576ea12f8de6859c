"""Stacked trials: each learns what it learns alone, whoever comes and goes beside it."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import make_config, make_data

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.objective import mixture_nll, sampled_columns
from llmemf.stacked import tower
from llmemf.stacked.objective import stacked_mixture_nll
from llmemf.stacked.trainer import StackedTrainer, stack_key, stack_problem
from llmemf.training import NonFiniteLoss, Trainer, optimizer_of, parameter_groups

OWN = [
    {"lr": 0.01, "l2": 1e-3, "alpha": 0.4, "beta": 0.3, "lambda1": 0.3, "lambda2": 0.1, "seed": 0, "dropout": 0.3},
    {"lr": 0.001, "l2": 0.0, "alpha": 0.2, "beta": 0.5, "lambda1": 0.7, "lambda2": 0.9, "seed": 1, "dropout": 0.0},
    {"lr": 0.02, "l2": 1e-4, "alpha": 0.1, "beta": 0.1, "lambda1": 1.0, "lambda2": 0.3, "seed": 5, "dropout": 0.1},
]
VARIANTS = [
    {"encoder_layers": 2},
    {"objective": "sampled", "sampled_negatives": 11},
    {"modalities": ["id"], "scale_init": 20.0, "scale_max": 20.0},
    {"item_projection": "mlp", "projection_dim": 6, "missing": "learned", "heads": 2, "optimizer": "adagrad"},
    {"item_projection": "linear", "projection_dim": 5, "scale": "shared", "learn_weights": True, "layout": "aligned",
     "clip_norm": 0.5, "clip_value": 0.1, "l2_mode": "adamw"},
    {"encoder": "bare", "positions": False, "next_target": "merged", "merged_softmax": "target_items", "tied_ids": False,
     "scale": "fixed", "scale_init": 80.0, "loss_positions": "last10", "modalities": ["id", "text"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture
def double(monkeypatch):
    """Double precision throughout: rounding no longer hides behind Adam, which makes steps of any gradient's size."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)


def make_trainers(data, count=3, *, in_double=False, own=OWN, **values):
    trainers = []
    for settings in own[:count]:
        trainer = Trainer(
            make_config(**{"epochs": 9, "patience": 0, "valid_cases": 5, "encoder_layers": 1, **settings, **values}),
            data,
        )
        if in_double:
            trainer.model.double()
            decayed = [p for p in trainer.model.parameters() if p.requires_grad and p.ndim >= 2]
            other = [p for p in trainer.model.parameters() if p.requires_grad and p.ndim < 2]
            trainer.optimizer = optimizer_of(parameter_groups(decayed, other, trainer.config), trainer.config)
        trainers.append(trainer)
    return trainers


def train_alone(trainer):
    return next(trainer.epochs())


def assert_same(stacked, alone, bound=1e-6):
    """Same parameters and the same state of the optimiser, relative to the norm of each."""
    own = dict(stacked.model.named_parameters())
    for name, parameter in alone.model.named_parameters():
        pairs = [(own[name], parameter)]
        states = stacked.optimizer.state.get(own[name], {}), alone.optimizer.state.get(parameter, {})
        assert set(states[0]) == set(states[1]), name
        pairs += [(states[0][key], value) for key, value in states[1].items()]
        for one, other in pairs:
            assert one.shape == other.shape, name
            # The gradient of a key's bias is 0 but for rounding: softmax does not see it.
            floor = 1e-6 if name.endswith("key.bias") else 1e-30
            assert float((one - other).detach().norm()) <= bound * max(float(other.detach().norm()), floor), name


@pytest.mark.parametrize("values", VARIANTS, ids=str)
def test_each_member_learns_what_it_learns_alone(values, data, double):
    members, singles = (make_trainers(data, in_double=True, **values) for _ in range(2))
    stack = StackedTrainer(members)
    for _ in range(2):
        for found, single in zip(stack.run_epoch(), singles):
            expected = train_alone(single)
            assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-8)
            assert found["objective"] == pytest.approx(expected["objective"], rel=1e-8)
            assert set(found) == set(expected)
    for member in members:
        stack.remove(member)
    for member, single in zip(members, singles):
        assert_same(member, single)


def test_in_single_precision_the_difference_is_rounding(data):
    members, singles = (make_trainers(data) for _ in range(2))
    found = StackedTrainer(members).run_epoch()
    for member, single, metrics in zip(members, singles, found):
        assert metrics["train/loss"] == pytest.approx(train_alone(single)["train/loss"], rel=1e-5)
        vectors = [
            torch.cat([p.detach().flatten() for n, p in t.model.named_parameters() if not n.endswith("key.bias")])
            for t in (member, single)
        ]
        assert float((vectors[0] - vectors[1]).norm() / vectors[1].norm()) <= 1e-5


def test_members_come_and_go_and_checkpoints_move_between_both_ways(data, double, tmp_path):
    def load(number, folder):
        trainer = make_trainers(data, in_double=True)[number]
        trainer.load(folder)
        return trainer

    singles = make_trainers(data, in_double=True)
    expected = [[train_alone(single)["train/loss"] for _ in range(4)] for single in singles]
    first, second, third = make_trainers(data, in_double=True)
    stack = StackedTrainer([first, second])
    losses = [[found["train/loss"]] for found in stack.run_epoch()] + [[train_alone(third)["train/loss"]]]
    third.save(tmp_path / "alone")
    stack.save(first, tmp_path / "stacked")
    # The first goes on alone, out of the stack's checkpoint; the third joins later than the second, at the same epoch.
    stack.remove(first)
    first = load(0, tmp_path / "stacked")
    losses[0].append(train_alone(first)["train/loss"])
    losses[1].append(stack.run_epoch()[0]["train/loss"])
    stack.add(third := load(2, tmp_path / "alone"))
    for number, found in zip((1, 2), stack.run_epoch()):
        losses[number].append(found["train/loss"])
    # Now the first comes back, and the second ends as a single trial.
    stack.add(first)
    stack.remove(second)
    for _ in range(2):
        for number, found in zip((2, 0), stack.run_epoch()):
            losses[number].append(found["train/loss"])
    losses[1].append(train_alone(second)["train/loss"])
    for number in range(3):
        assert losses[number][:4] == pytest.approx(expected[number], rel=1e-8)
    assert third.epoch == 4
    stack.remove(first)
    assert_same(first, singles[0])


def test_checkpoint_of_a_member_is_that_of_a_single_trial(data, tmp_path):
    stack = StackedTrainer(make_trainers(data))
    stack.run_epoch()
    stack.save(stack.members[1], tmp_path / "stacked")
    single = make_trainers(data)[1]
    train_alone(single)
    single.save(tmp_path / "alone")
    one, other = (torch.load(tmp_path / kind / "state.pt", weights_only=True) for kind in ("stacked", "alone"))
    shapes = [
        {
            **{name: tensor.shape for name, tensor in state["model"].items()},
            **{(n, name): t.shape for n, own in state["optimizer"]["state"].items() for name, t in own.items()},
        }
        for state in (one, other)
    ]
    assert shapes[0] == shapes[1]
    assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
    sizes = [(tmp_path / kind / "state.pt").stat().st_size for kind in ("stacked", "alone")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02), "a checkpoint must not carry the other members"


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("values", [{}, {"encoder": "bare", "objective": "sampled"}], ids=str)
def test_a_member_that_diverges_does_not_touch_the_others(position, values, data):
    members, singles = (make_trainers(data, **values) for _ in range(2))
    own = [{**settings, "lr": 1e30, "dropout": 0.5} for settings in OWN]
    members[position] = make_trainers(data, own=own, **values)[position]
    found = StackedTrainer(members).run_epoch()
    assert isinstance(found[position], NonFiniteLoss) and "lr = 1e+30" in str(found[position])
    for number in {0, 1, 2} - {position}:
        assert found[number]["train/loss"] == pytest.approx(train_alone(singles[number])["train/loss"], rel=1e-5)


def test_each_on_its_own_where_a_chunk_would_hold_few_rows(data, double, monkeypatch):
    monkeypatch.setattr(tower, "FEWEST_ROWS", 10**9)
    for values in ({}, {"objective": "sampled", "sampled_negatives": 11}):
        members, singles = (make_trainers(data, in_double=True, **values) for _ in range(2))
        for found, single in zip(StackedTrainer(members).run_epoch(), singles):
            assert found["train/loss"] == pytest.approx(train_alone(single)["train/loss"], rel=1e-8)


@pytest.mark.parametrize("scale", [14.0, 90.0])
@pytest.mark.parametrize("sampled", [False, True])
def test_loss_and_gradients_are_those_of_the_single_objective(scale, sampled):
    torch.manual_seed(0)
    trials, rows, items, width, drawn = 3, 7, 29, 5, 11

    def make(*shape):
        return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)

    targets = torch.randint(0, items, (trials, rows))
    has = torch.rand(items) < 0.8
    columns = [sampled_columns(0, items, drawn, targets.new_tensor([4, 9])) for _ in range(trials)]
    queries = [make(trials, rows, width).requires_grad_() for _ in range(2)]
    own = make(trials, items, width).requires_grad_()
    shared = make(items, width)
    weights = torch.randn(trials, rows, 2, dtype=torch.float64).log_softmax(2).requires_grad_()
    scales = (torch.rand(trials, 2, dtype=torch.float64) * scale).requires_grad_()
    row_weights = torch.rand(trials, rows, dtype=torch.float64)
    at_targets = [torch.stack([own[k][targets[k]] for k in range(trials)]), shared[targets]]
    inputs = [*queries, own, weights, scales]
    expected = []
    for k in range(trials):
        ids = columns[k].ids if sampled else slice(None)
        expected.append(
            mixture_nll(
                [q[k] for q in queries], [own[k][ids], shared[ids]], targets[k], weights[k], scales[k], row_weights[k],
                present=[None, has[ids]], sampled=columns[k] if sampled else None,
                target_rows=[rows[k] for rows in at_targets] if sampled else None,
            )
        )  # fmt: skip
    ids = torch.stack([c.ids for c in columns])
    times = torch.stack([c.log_expansion.exp() for c in columns]).double()
    found = stacked_mixture_nll(
        queries,
        [torch.stack([own[k][ids[k]] for k in range(trials)]), shared[ids]] if sampled else [own, shared],
        at_targets,
        weights,
        scales,
        row_weights,
        counts=[times, times * has[ids]] if sampled else [None, has.double()],
        target_is_column=not sampled,
        hits=ids[:, None] == targets[:, :, None] if sampled else None,
        chunk_elements=3 * trials * items,
    )
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=0)
    upstream = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    gradients = [
        torch.autograd.grad(loss @ upstream, inputs, retain_graph=True) for loss in (found, torch.stack(expected))
    ]
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_stacked_is_refused(data):
    first = make_trainers(data)[0]
    cases = [
        ({"encoder_layers": 2}, "different shapes cannot be stacked: encoder_layers = 1 and 2"),
        ({"lambda2": 0.0}, "weights of 0 leave out modalities or sequences"),
        ({"alpha": 0.0}, "weights of 0 leave out modalities or sequences"),
        ({"mixture": "logit"}, "mixture = logit has no stacked form: it must be prob"),
        ({"l2_mode": "embedding_rows"}, "l2_mode = embedding_rows has no stacked form"),
    ]
    for values, message in cases:
        with pytest.raises(InputError, match=message):
            StackedTrainer([first, make_trainers(data, 1, own=[{**OWN[0], **values}])[0]])
    with pytest.raises(InputError, match="different data"):
        StackedTrainer([first, Trainer(first.config, make_data(missing=False))])
    sasrec = build_config(model_class("sasrec").config_class, {"model": "sasrec"})
    assert stack_problem(sasrec) == "model = sasrec has no stacked form; llm_emf has one"
    assert stack_problem(first.config) == ""


def test_shape_is_all_but_what_members_have_of_their_own():
    one, other = (make_config(**settings) for settings in OWN[:2])
    assert stack_key(one) == stack_key(other)
    assert stack_key(one) != stack_key(make_config(**OWN[0], batch_size=8))
    assert math.isclose(one.alpha, 0.4)
