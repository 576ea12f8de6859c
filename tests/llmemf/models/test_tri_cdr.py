"""Tri-CDR against a twin in NumPy: one user, one step and one key at a time, without padding."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from reference import attention_block, layer_norm, linear, softmax, unit
from tiny import NUM_ITEMS, NUM_X, SMALL, make_data, make_scenario, random_model, whole

from llmemf.batches import device_sequences
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import tri_cdr
from llmemf.models.tri_cdr import TriCDRConfig
from llmemf.training import Trainer

WIDTH = 6
VIEWS = ("x", "y", "xy")
OPTIONS = [
    {},
    {"targets": "per_target"},
    {"num_negatives": 3, "scale": 2.0, "encoder_layers": 1, "heads": 2},
    {"contrast_weight": 4.0, "contrast_temperature": 0.5, "rho_mix_src": 1000.0, "rho_src_tgt": 3.0, "margin": 20.0},
    {"contrast_weight": 0.0, "margin": 0.5},
    {"triplet_weight": 0.0},
]


@pytest.fixture(scope="module")
def data():
    return make_data()


SETTINGS = {**{key: value for key, value in SMALL.items() if key != "id_dim"}, "model": "tri_cdr", "dim": WIDTH}


def make_config(**options):
    return build_config(TriCDRConfig, {**SETTINGS, **options})


def make_model(data, **options):
    return random_model(data, {**SETTINGS, **options}, 0.3, around_start=True, double=False)


def in_domain(item, domain):
    return (item >= NUM_X) == bool(domain)


def of_view(items, name):
    return [item for item in items if name == "xy" or in_domain(item, VIEWS.index(name))]


def sigmoid_loss(scores):
    """Positive first, then the negatives."""
    return np.logaddexp(0, -scores[0]) + np.mean(np.logaddexp(0, scores[1:]))


class Twin:
    """Scores and losses of sequences given as lists, oldest item first."""

    def __init__(self, model):
        self.config = model.config
        self.p = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}

    def encoder(self, domain):
        return f"encoders.{domain if self.config.targets == 'per_target' else 0}"

    def states(self, encoder, name, items):
        if not items:
            return np.zeros((0, WIDTH))
        x = np.sqrt(WIDTH) * self.p[f"{encoder}.tables.{name}"][items]
        x = x + self.p[f"{encoder}.encoders.{name}.positions"][: len(items)]
        for number in range(self.config.encoder_layers):
            x = attention_block(x, self.p, f"{encoder}.encoders.{name}.blocks.{number}", self.config.heads, False)
        return layer_norm(x, self.p, f"{encoder}.encoders.{name}.norm")

    def prelu(self, x, name):
        return np.where(x > 0, x, self.p[f"{name}.weight"] * x)

    def sums(self, domain, visible):
        """o_mix, o_src, o_tgt of the step that sees `visible` (merged items in their order)."""
        own, other = "xy"[domain], "xy"[1 - domain]
        keys = [self.states(self.encoder(domain), name, of_view(visible, name)) for name in ("xy", other, own)]
        query = keys[2][-1] if len(keys[2]) else np.zeros(WIDTH)
        mean, found = keys[0].mean(0), []
        for states in keys:
            logits = []
            for k in states:
                x = linear(np.concatenate([k, query, k * query, query - k, mean]), self.p, f"heads.{domain}.first")
                x = linear(self.prelu(x, f"heads.{domain}.rest.0"), self.p, f"heads.{domain}.rest.1")
                logits.append(linear(self.prelu(x, f"heads.{domain}.rest.2"), self.p, f"heads.{domain}.rest.3")[0])
            found.append(softmax(np.array(logits)) @ states if logits else np.zeros(WIDTH))
        return found

    def cosines(self, domain, sums, items):
        hidden = linear(np.concatenate(sums), self.p, f"heads.{domain}.fuse.0")
        fused = linear(np.where(hidden > 0, hidden, 0.01 * hidden), self.p, f"heads.{domain}.fuse.2")
        return self.config.scale * unit(self.p[f"{self.encoder(domain)}.tables.{'xy'[domain]}"][items]) @ unit(fused)

    def score(self, history, domain):
        items = np.arange(NUM_X, NUM_ITEMS) if domain else np.arange(NUM_X)
        return self.cosines(domain, self.sums(domain, history), items)

    def steps(self, sequence, domain):
        """Visible merged items and the target of every step of a domain."""
        where = [t for t, item in enumerate(sequence) if in_domain(item, domain)]
        return [(sequence[:after], sequence[after]) for after in where[1:]]

    def loss(self, sequences, drawn):
        """`drawn[domain]` has the negatives of every step, in the order of sequences and steps."""
        total = 0.0
        for domain in (0, 1):
            negatives, losses, last = iter(drawn[domain]), [], []
            for sequence in sequences:
                steps = self.steps(sequence, domain)
                for visible, target in steps:
                    sums = self.sums(domain, visible)
                    losses.append(sigmoid_loss(self.cosines(domain, sums, [target, *next(negatives)])))
                if steps and of_view(visible, "xy"[1 - domain]):
                    last.append(sums)
            total += np.mean(losses) + self.contrast(domain, last) + self.triplet(domain, last)
        return total

    def compared(self, domain, last):
        """What the heads make of the sums of every row: mix, src, tgt."""

        def head(role, number):
            x = np.stack([sums[number] for sums in last])
            name = f"heads.{domain}.contrast_heads.{role}"
            return linear(np.maximum(linear(x, self.p, f"{name}.0"), 0), self.p, f"{name}.2")

        return [head(role, number) for number, role in enumerate(("mix", "src", "tgt"))]

    def contrast(self, domain, last):
        seen, total = self.compared(domain, last), 0.0
        rho = [self.config.rho_mix_src, self.config.rho_mix_tgt, self.config.rho_src_tgt]
        for weight, (a, b) in zip(rho, ((0, 1), (0, 2), (1, 2))):
            rows = np.concatenate([seen[a], seen[b]])
            losses = []
            for i in range(len(rows)):
                partner = (i + len(last)) % len(rows)
                logits = [unit(rows[i]) @ unit(rows[j]) / self.config.contrast_temperature for j in range(len(rows))]
                others = [logit for j, logit in enumerate(logits) if j != i]
                losses.append(np.log(np.sum(np.exp(others))) - logits[partner])
            total += weight / sum(rho) * np.mean(losses)
        return self.config.contrast_weight * total

    def triplet(self, domain, last):
        rows = zip(*self.compared(domain, last))
        gaps = [np.linalg.norm(src - mix) - np.linalg.norm(src - tgt) for mix, src, tgt in rows]
        return self.config.triplet_weight * np.mean(np.maximum(0, np.array(gaps) + self.config.margin))

    def single_loss(self, sequences, drawn):
        """Every encoder as a SASRec of its own sequence."""
        total = 0.0
        for number in range(2 if self.config.targets == "per_target" else 1):
            for name in VIEWS:
                negatives, losses, table = iter(next(drawn)), [], self.p[f"encoders.{number}.tables.{name}"]
                for sequence in sequences:
                    own = of_view(sequence, name)
                    inputs = own if name != "xy" and not in_domain(sequence[-1], VIEWS.index(name)) else own[:-1]
                    states = self.states(f"encoders.{number}", name, inputs)
                    for column, target in enumerate(own[1:]):
                        losses.append(sigmoid_loss(table[[target, *next(negatives)]] @ states[column]))
                total += np.mean(losses)
        return total


def split(data, name, config):
    return device_sequences(config, data, name, torch.device("cpu"))


def histories(data):
    return [data.valid.row(number)[:-1].tolist() for number in range(len(data.valid))]


def train_rows(data):
    return [data.train.row(number).tolist() for number in range(len(data.train))]


def train_batch(data, model):
    return whole(split(data, "train", model.config))


def loss_and_negatives(model, batch):
    drawn, draw = [], model._negatives

    def remember(*arguments):
        drawn.append(draw(*arguments))
        return drawn[-1]

    model._negatives = remember
    loss = model.training_loss(batch)
    del model._negatives
    return loss, [negatives.tolist() for negatives in drawn]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_scores_and_loss_are_those_of_the_twin(data, options):
    model = make_model(data, **options)
    twin = Twin(model)
    valid = whole(split(data, "valid", model.config))
    with torch.no_grad():
        for domain in (0, 1):
            expected = np.stack([twin.score(history, domain) for history in histories(data)])
            np.testing.assert_allclose(model.score_all(valid, domain), expected, atol=1e-4)
        loss, drawn = loss_and_negatives(model, train_batch(data, model))
    assert loss.item() == pytest.approx(twin.loss(train_rows(data), drawn), rel=1e-4)


@pytest.mark.parametrize("targets", ["joint", "per_target"])
def test_the_first_epochs_train_each_encoder_alone(data, targets):
    model = make_model(data, targets=targets).train()
    loss, drawn = loss_and_negatives(model, train_batch(data, model))
    assert loss.item() == pytest.approx(Twin(model).single_loss(train_rows(data), iter(drawn)), rel=1e-4)
    loss.backward()
    assert not [name for name, p in model.named_parameters() if (p.grad is None) == name.startswith("encoders")]


def test_pretraining_lasts_its_epochs_and_goes_on_where_a_checkpoint_left_it(data, tmp_path):
    config = make_config(pretrain_epochs=2, epochs=4, patience=0)
    trainer, steps = Trainer(config, data), -(-len(split(data, "train", config)) // config.batch_size)
    heads, straight = [{k: v.clone() for k, v in trainer.model.heads.state_dict().items()}], []
    for metrics in trainer.epochs():
        straight.append(metrics)
        heads.append({k: v.clone() for k, v in trainer.model.heads.state_dict().items()})
        assert int(trainer.model.steps_taken) == metrics["epoch"] * steps
        if metrics["epoch"] in (1, 3):
            trainer.save(tmp_path / str(metrics["epoch"]))
    changed = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in pairwise(heads)]
    assert changed == [False, False, True, True]
    for epoch in (1, 3):
        again = Trainer(config, data)
        again.load(tmp_path / str(epoch))
        for ours, theirs in zip(again.epochs(), straight[epoch:], strict=True):
            assert (ours["train/loss"], ours["val/mrr"]) == (theirs["train/loss"], theirs["val/mrr"])


def test_windows_of_long_sequences_count_as_sequences_of_an_epoch(data):
    model = make_model(data, max_length=3, pretrain_epochs=5, epochs=6, batch_size=8)
    windows = len(split(data, "train", model.config))
    assert windows > len(data.train)
    assert model.pretrain_steps == 5 * -(-windows // 8)


def sums_of(model, rows, domain):
    data = make_data(make_scenario(rows={"train": rows}))
    batch = train_batch(data, model)
    states = model._encoder(domain)(batch)
    keys, visible = model._keys(batch, domain, states)
    return torch.stack(model.heads[domain].attend(states["xy"[domain]], keys, visible))


@pytest.mark.parametrize("domain", [0, 1])
def test_a_step_sees_what_stands_before_its_target_and_nothing_later(data, domain):
    """Target, source, target, source, ...: step t sees t + 1 items of each and predicts the next of the target."""
    model = make_model(data)
    target, source = (range(NUM_X), range(NUM_X, NUM_ITEMS))[:: -1 if domain else 1]
    row = [*[item for pair in zip(target, source) for item in pair][:8], target[9]]
    before = sums_of(model, [row], domain)
    for place in range(8):
        changed = [*row]
        changed[place] += 12
        after = sums_of(model, [changed], domain)
        moved = (after != before).any(-1)[:, 0]
        first, own = place // 2, 1 if place % 2 else 2
        assert not moved[:, :first].any()
        assert bool(moved[[0, own], first:].all()), "the mixed sequence and the item's own"


def test_the_last_item_is_a_target_alone(data):
    model = make_model(data)
    row = [1, 40, 2, 41, 3]
    first, second = (sums_of(model, [[*row[:-1], last]], 0) for last in (3, 9))
    assert torch.equal(first, second)


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[NUM_X, NUM_X + 3]], [[4, 44]], [[1, 40, 2], [3, 41, 5]]], ids=str)
def test_small_batches_have_finite_losses_and_gradients(data, rows):
    model = make_model(make_data(make_scenario(rows={"train": rows})))
    batch = train_batch(make_data(make_scenario(rows={"train": rows})), model)
    loss = model.training_loss(batch)
    loss.backward()
    assert bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_pairs_in_chunks_are_the_same_as_all_at_once(data, monkeypatch):
    found = []
    for size in (2**18, 7):
        monkeypatch.setattr(tri_cdr, "PAIRS_AT_ONCE", size)
        model = make_model(data)
        torch.manual_seed(0)
        loss = model.training_loss(train_batch(data, model))
        loss.backward()
        assert all(bool(p.grad.any()) for p in model.parameters())
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_negatives_are_of_the_targets_domain_and_unseen(data):
    seen = {}
    for user, row in zip(data.train.users.tolist(), train_rows(data)):
        seen.setdefault(user, set()).update(row)
    model = make_model(data, num_negatives=50)
    batch = train_batch(data, model)
    for domain, name in enumerate("xy"):
        following = batch.views[name].next_same
        counted = following < NUM_ITEMS
        drawn = model._negatives(batch, counted, following[counted])
        assert drawn.shape == (int(counted.sum()), 50)
        assert bool((drawn >= NUM_X).all() if domain else (drawn < NUM_X).all())
        users = batch.users[:, None].expand_as(counted)[counted].tolist()
        assert not any(item in seen[user] for user, row in zip(users, drawn.tolist()) for item in row)


def test_l2_of_embedding_rows_is_over_the_items_of_each_sequence(data):
    model = make_model(data, targets="per_target")
    rows = model.batch_rows(train_batch(make_data(make_scenario(rows={"train": [[3, 40, 3, 5]]})), model))
    read = {"x": [3], "y": [40], "xy": [3, 40]}
    assert torch.equal(rows, torch.cat([e.tables[name][read[name]] for e in model.encoders for name in VIEWS]))


def test_settings_that_cannot_be_are_refused():
    for values, words in (
        ({"heads": 4}, "heads = 4"),
        ({"rho_mix_src": 0.0, "rho_mix_tgt": 0.0, "rho_src_tgt": 0.0}, "contrast_weight"),
        ({"num_negatives": 0}, "num_negatives"),
    ):
        with pytest.raises(InputError, match=words):
            make_config(**values)
