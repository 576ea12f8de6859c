"""Encoders computed in groups, and a step of a fixed number of rows, against single encoders and real rows, in float64."""

import pytest
import torch
from tiny import make_data, make_model, make_sequences, whole
from torch.utils._python_dispatch import TorchDispatchMode

from llmemf.models.mixture import MixtureHead

CHOICES = [
    {},
    {"encoder": "bare", "positions": False},
    {"heads": 2, "encoder_layers": 1},
    {"share_encoders": "sequences"},
    {"layout": "aligned", "loss_positions": "last10"},
    {"empty_sequence": "learned"},
    {"empty_sequence": "learned", "next_target": "merged"},
    {"merged_softmax": "target_items", "empty_sequence": "learned"},
    {"loss_roles": "per_target", "modalities": ["id", "text"]},
    {"sequences": ["y", "xy"], "item_projection": "linear", "projection_dim": 6, "share_encoders": "modalities"},
]


@pytest.fixture(scope="module")
def data():
    return make_data()


def ids(options):
    return ",".join(f"{key}={value}" for key, value in options.items()) or "default"


def pair(data, options, **changes):
    """Two models of the same weights in float64; the second computes as a GPU would."""
    return [make_model(data, **options, **more).double() for more in ({}, {"group_encoders": "yes", **changes})]


def gradients(model, batch):
    loss = model.train().training_loss(batch)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", CHOICES, ids=ids)
def test_groups_and_padded_rows_give_what_single_encoders_and_real_rows_give(data, options, monkeypatch):
    monkeypatch.setattr("llmemf.models.tower.ROW_MULTIPLE", 3)
    single, grouped = pair(data, options)
    sequences = make_sequences(data, "train", config=single.config)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0))
    for tower in grouped.towers:
        tower.fix_row_counts(sequences, order, 16)
    for index in order.split(16):
        for model in (single, grouped):
            model.zero_grad()
        (expected, wanted), (loss, found) = (gradients(m, sequences.batch(index)) for m in (single, grouped))
        assert loss == pytest.approx(expected, rel=1e-13)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12, msg=name)
    cases = whole(make_sequences(data, "valid", config=single.config))
    for domain in (0, 1):
        torch.testing.assert_close(
            grouped.eval().score_all(cases, domain), single.eval().score_all(cases, domain), rtol=1e-12, atol=1e-12
        )


def test_rows_are_counted_for_the_largest_batch_and_never_shrink(data, monkeypatch):
    monkeypatch.setattr("llmemf.models.tower.ROW_MULTIPLE", 4)
    tower = make_model(data).towers[0]
    sequences = make_sequences(data, "train")
    counts = (sequences.views["xy"].next_merged < tower.num_items).sum(1)
    fewest_first, last = counts.argsort(), len(counts) % 16
    tower.fix_row_counts(sequences, fewest_first, 16)
    largest = int(counts.sort().values[-16 - last :].split(16)[0].sum())
    expected = max(largest, int(counts.sort().values[-last:].sum()))
    assert tower.row_counts["xy", 0] == -(-expected // 4) * 4
    before = dict(tower.row_counts)
    tower.fix_row_counts(sequences, fewest_first[:20], 16)
    assert tower.row_counts == before


def test_a_batch_of_more_rows_than_counted_is_not_lost_in_silence(data, monkeypatch):
    monkeypatch.setattr("llmemf.models.tower.ROW_MULTIPLE", 1)
    model = make_model(data).train()
    sequences = make_sequences(data, "train")
    model.towers[0].fix_row_counts(sequences, torch.arange(4), 2)
    assert model.training_loss(sequences.batch(torch.arange(2))).isfinite()
    assert model.training_loss(whole(sequences)).isnan()


class Waits(TorchDispatchMode):
    """Names of the operations for which the host would wait for a GPU: sizes or numbers that depend on values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        masks = [m for m in (args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ())]
        by_mask = any(m is not None and m.dtype == torch.bool for m in masks)
        if by_mask or name in ("_local_scalar_dense", "nonzero", "_unique2", "masked_select", "equal", "item"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"empty_sequence": "learned"}, {"merged_softmax": "target_items"}], ids=ids)
def test_a_step_as_on_a_gpu_waits_for_nothing(data, options, monkeypatch):
    def waits_of(**changes):
        model = make_model(data, dropout=0.2, objective_precision="fp16", **options, **changes).train()
        sequences = make_sequences(data, "train", config=model.config)
        if changes:
            model.towers[0].fix_row_counts(sequences, torch.arange(len(sequences)), 16)
        optimizer, batch = torch.optim.Adam(model.parameters(), fused=True), sequences.batch(torch.arange(16))
        with Waits() as waits:
            model.training_loss(batch).backward()
            optimizer.step()
        return waits.found

    # On a GPU these read no number of the present step, or nothing.
    monkeypatch.setattr(MixtureHead, "scale_bound", lambda head: 14.3)
    assert waits_of(group_encoders="yes") == []
    assert waits_of(), "the measurement sees a step that waits"


def test_dropout_in_groups_keeps_its_share(data):
    model = make_model(data, group_encoders="yes", dropout=0.5).train()
    batch = whole(make_sequences(data, "train"))
    losses = torch.stack([model.training_loss(batch) for _ in range(8)]).detach()
    assert losses.std() > 0
    model.eval()
    assert make_model(data, group_encoders="no").training_loss(batch).item() == pytest.approx(
        model.training_loss(batch).item(), rel=1e-5
    )


def test_bfloat16_arithmetic_in_groups_changes_the_loss_a_little(data):
    losses = []
    for choice in ("yes", "no"):
        model = make_model(data, scale_init=3.0, group_encoders=choice).train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.training_loss(whole(make_sequences(data, "train")))
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
