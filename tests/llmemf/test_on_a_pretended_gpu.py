"""Every system on a GPU that is not there: the CPU's numbers, checkpoints that travel, and few waits in a step."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretended_gpu import PretendedGPU
from tiny import make_data, make_scenario, random_rows

from llmemf.config import build_config
from llmemf.models import MODELS, attention, model_class
from llmemf.training import Trainer

SMALL = {"batch_size": 16, "eval_batch_size": 32, "epochs": 2, "max_length": 8, "lr": 0.01, "dropout": 0.2}
WIDTHS = ("dim", "id_dim")
VARIANTS = {
    **{name: {"model": name} for name in MODELS},
    "llm_emf of ids": {"model": "llm_emf", "modalities": ["id"], "encoder_layers": 1},
    "llm_emf sampled": {"model": "llm_emf", "objective": "sampled"},
    "llm_emf in fp32": {"model": "llm_emf", "objective_precision": "fp32"},
}
QUICK = ("bprmf", "popularity", "sasrec")
CLOSE = {"lecdsr": 1e-3}
"""Relative difference of its losses where its transforms round otherwise; 1e-6 elsewhere."""
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(VARIANTS)]


@pytest.fixture(scope="module")
def data():
    """Two batches of training sequences, and few cases to rank."""
    rng = np.random.default_rng(3)
    rows = {split: random_rows(rng, count, 7) for split, count in (("train", 28), ("valid", 10), ("test", 10))}
    return make_data(make_scenario(rows=rows), missing=False)


@pytest.fixture
def paths_of_a_gpu(monkeypatch):
    """The CPU takes the ways that are a GPU's: torch's own dropout, and all rows of a batch."""
    for name in MODELS:
        model_class(name)
    monkeypatch.setitem(attention.Layout.__init__.__kwdefaults__, "packed", False)
    own = attention.dropout
    for module in list(sys.modules.values()):
        if getattr(module, "dropout", None) is own:
            monkeypatch.setattr(module, "dropout", F.dropout)


def configuration(name, **values):
    given = VARIANTS[name]
    kind = model_class(given["model"]).config_class
    widths = {key: 8 for key in WIDTHS if key in kind.model_fields}
    settings = {**SMALL, **widths, **given, **values}
    return build_config(kind, {key: value for key, value in settings.items() if key in kind.model_fields})


def numbers(metrics):
    """All but times and sizes."""
    return {key: value for key, value in metrics.items() if "/" in key}


def assert_same(name, found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=CLOSE.get(name, 1e-6))


@pytest.mark.parametrize("name", CASES)
def test_it_trains_ranks_saves_and_continues_as_on_the_cpu(name, data, paths_of_a_gpu, tmp_path):
    expected = list(Trainer(configuration(name, device="cpu"), data).epochs())
    with PretendedGPU():
        trainer = Trainer(configuration(name, device="cuda"), data)
        assert {parameter.device.type for parameter in trainer.model.parameters()} <= {"cuda"}
        found = []
        for metrics in trainer.epochs():
            found.append(metrics)
            if metrics["epoch"] == 1:
                trainer.save(tmp_path)
        assert_same(name, found, expected)
        again = Trainer(configuration(name, device="auto"), data)
        assert again.device.type == "cuda"
        again.load(tmp_path)
        assert_same(name, list(again.epochs()), found[1:])
    on_cpu = Trainer(configuration(name, device="cpu"), data)
    on_cpu.load(tmp_path)
    assert_same(name, list(on_cpu.epochs()), expected[1:])


def waits_of_a_step(name, data, count, **values):
    """Waits of the second step of an epoch, by place and operation, on batches of `count` sequences."""
    with PretendedGPU() as gpu:
        trainer = Trainer(configuration(name, device="cuda", batch_size=count, **values), data)
        trainer.model.train()
        order = torch.arange(len(trainer.train_sequences), device=trainer.device)
        trainer.model.plan_epoch(trainer.train_sequences, order)
        for place in range(2):
            gpu.waits.clear()
            gpu.uploads.clear()
            trainer.step(order[place * count : (place + 1) * count])
        return Counter(gpu.waits), Counter(gpu.uploads)


MOST_WAITS = {"abxi": 14, "bprmf": 1, "c2dsr": 28, "gru4rec": 5, "lecdsr": 3, "llm_emf sampled": 8, "mifn": 2, "ncf_mlp": 11,
              "pi_net": 10, "psjnet": 12, "sasrec": 5, "sr_gnn": 11, "tri_cdr": 12}  # fmt: skip
"""The most waits of a training step, where a mask that becomes indices is one. LLM-EMF as the paper has it waits nowhere."""
TRAINED = sorted(name for name, given in VARIANTS.items() if not model_class(given["model"]).closed_form)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in (*QUICK, "llm_emf of ids") else pytest.mark.slow) for n in TRAINED]
)
def test_a_step_waits_for_the_gpu_no_oftener_for_a_larger_batch(name, data):
    few, uploads = waits_of_a_step(name, data, 6)
    many, more_uploads = waits_of_a_step(name, data, 14)
    assert sum(few.values()) == sum(many.values()) <= MOST_WAITS.get(name, 0), many
    assert sum(uploads.values()) == sum(more_uploads.values()) == 0, uploads


NO_PRODUCTS = ("bprmf",)
"""Systems that autocast does not touch."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "bprmf" else pytest.mark.slow) for n in TRAINED])
def test_half_precision_trains_to_nearly_the_same_loss(name, data):
    losses = {}
    for precision in ("fp32", "bf16"):
        with PretendedGPU():
            trainer = Trainer(configuration(name, device="cuda", precision=precision, dropout=0.0), data)
            losses[precision] = [metrics["train/loss"] for metrics in trainer.epochs()][-1]
    assert (losses["bf16"] == losses["fp32"]) == (name in NO_PRODUCTS)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


# The pretended GPU itself.


@pytest.fixture
def gpu():
    with PretendedGPU() as gpu:
        yield gpu


def test_tensors_of_both_devices_never_meet(gpu):
    ours, theirs = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(RuntimeError, match=r"cuda:0 and cpu \(3,\)"):
        ours + theirs
    assert (ours + torch.tensor(1.0)).tolist() == [2.0] * 3, "a number may"
    with pytest.raises(TypeError, match="cuda:0"):
        ours.numpy()


@pytest.mark.parametrize(
    ("waits", "action"),
    [
        (1, lambda t: t.sum().item()),
        (1, lambda t: t.cpu()),
        (1, lambda t: bool((t > 0).all())),
        (1, lambda t: (t > 0).nonzero()),
        (1, lambda t: t[t > 0]),
        (1, lambda t: t.unique()),
        (1, lambda t: torch.cuda.synchronize()),
        (0, lambda t: (t * 2).sum()),
        (0, lambda t: t[torch.zeros(2, dtype=torch.int64, device="cuda")]),
        (0, lambda t: t.where(t > 0, 0.0)),
    ],
)
def test_what_makes_the_processor_wait(gpu, waits, action):
    tensor = torch.arange(4.0, device="cuda")
    gpu.waits.clear()
    action(tensor)
    assert sum(gpu.waits.values()) == waits


def test_copies_to_the_gpu_count_unless_they_are_pinned(gpu):
    rows = torch.ones(3)
    rows.to("cuda")
    pinned = rows.pin_memory()
    assert pinned.is_pinned() and not rows.is_pinned()
    pinned.to("cuda", non_blocking=True)
    assert sum(gpu.uploads.values()) == 1


def test_operations_in_place_that_change_a_shape(gpu):
    tensor = torch.arange(6.0, device="cuda").reshape(2, 3)
    assert tensor.transpose_(0, 1).shape == (3, 2) and tensor.stride() == (1, 3)
    tensor.unsqueeze_(0).add_(1)
    assert tensor.tolist() == [[[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]]
    layer = torch.nn.GRU(3, 4, batch_first=True).to("cuda")
    states, last = layer(torch.ones(2, 5, 3, device="cuda"))
    assert states.shape == (2, 5, 4) and states[:, -1].tolist() == last[0].tolist()


def test_autocast_casts_products_and_leaves_sums(gpu):
    rows = torch.ones(2, 2, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        product = rows @ rows
        assert product.dtype == torch.bfloat16 and product.softmax(1).dtype == torch.float32
        with torch.autocast("cuda", enabled=False):
            assert (rows @ rows).dtype == torch.float32
    assert (rows @ rows).dtype == torch.float32


def test_gradients_and_the_fused_optimiser(gpu):
    weight = torch.nn.Parameter(torch.ones(2, device="cuda"))
    (weight * torch.tensor([1.0, -1.0], device="cuda")).sum().backward()
    assert weight.grad.device.type == "cuda" and weight.grad.tolist() == [1.0, -1.0]
    torch.optim.Adam([weight], lr=0.5, fused=True).step()
    assert weight.tolist() == pytest.approx([0.5, 1.5])


def test_queries_of_torch(gpu):
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert torch.cuda.get_device_capability() == (9, 0) and torch.cuda.max_memory_reserved() == 0
    assert torch.cuda.mem_get_info()[0] < torch.cuda.get_device_properties(0).total_memory
