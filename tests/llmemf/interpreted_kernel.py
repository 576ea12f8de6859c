"""The Triton kernels in Triton's interpreter; `test_objective_kernel.py` runs this file with TRITON_INTERPRET=1."""

import pytest
import torch
from mixture_problem import differentiated, make_problem, naive_nll, relative, with_missing
from tiny import make_data, make_model, make_sequences

from llmemf import objective_kernel
from llmemf.objective import mixture_nll
from llmemf.objective_half import HalfTable
from llmemf.objective_kernel import KernelPass, kernel_wins, splits_of, why_not

CPU = torch.device("cpu")


def kernel_nll(problem, present=None):
    def make_pass(tables, scales):
        return KernelPass([HalfTable(table, torch.float16) for table in tables], scales, present=present)

    return mixture_nll(**problem, present=present, make_pass=make_pass)


def errors(problem, reference, present=None):
    loss, expected = kernel_nll(problem, present), naive_nll(**reference, present=present)
    gradients = torch.autograd.grad(loss, list(differentiated(problem).values()))
    wanted = torch.autograd.grad(expected, list(differentiated(reference).values()))
    found = {name: relative(a, e) for name, a, e in zip(differentiated(problem), gradients, wanted)}
    return {"loss": abs(loss.item() / expected.item() - 1), **found}


@pytest.mark.parametrize(
    ("rows", "items", "widths", "scale"),
    [(37, 301, (16, 64, 32), 1.0), (150, 301, (16, 64, 32), 14.0), (1, 2, (16, 16, 16), 14.0), (5, 70, (256, 512, 512), 76.0)],
)  # fmt: skip
def test_loss_and_gradients_with_tails_of_rows_and_items(rows, items, widths, scale):
    shape = {"rows": rows, "items": items, "widths": widths, "scale": scale}
    found = errors(make_problem(torch.float32, **shape), make_problem(**shape))
    assert max(found.values()) <= (1e-3 if items > 100 else 5e-3), found


def test_missing_items_and_rows_of_weight_zero():
    problem, exact = (make_problem(dtype, items=130, widths=(16, 32, 16)) for dtype in (torch.float32, torch.float64))
    for case in (problem, exact):
        present = with_missing(case)
        case["row_weights"][::4] = 0
    found = errors(problem, exact, present)
    assert max(found.values()) <= 2e-3, found


def test_items_are_split_so_that_every_processor_has_work():
    for row_blocks, items in ((1, 1), (1, 100_000), (44, 100_782), (500, 36_845)):
        splits, per_split = splits_of(row_blocks, items, 64, CPU)
        assert per_split % 64 == 0 and (splits - 1) * per_split < items <= splits * per_split


def test_a_model_trains_by_the_kernels_as_by_the_plain_pass():
    data = make_data()
    shared = {"objective_precision": "fp16", "id_dim": 16, "item_projection": "linear", "projection_dim": 32}
    losses, gradients = [], []
    for kernel in ("plain", "triton"):
        model = make_model(data, objective_kernel=kernel, **shared).train()
        loss = model.training_loss(make_sequences(data, "train").batch(torch.arange(9)))
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, gradient in gradients[0].items():
        if not name.endswith("key.bias"):  # nothing but rounding
            assert relative(gradients[1][name], gradient) <= 2e-2, name


@pytest.mark.parametrize(
    ("seconds", "spoil", "words"),
    [((1.0, 2.0), None, None), ((2.0, 1.0), None, "takes 2000.0 ms"), ((1.0, 2.0), 1.1, "differs"), ((1.0, 2.0), "x", "fails")],
)  # fmt: skip
def test_the_kernels_are_taken_where_they_agree_and_are_faster_and_else_one_line_says_why(
    seconds, spoil, words, monkeypatch, caplog
):
    monkeypatch.setattr(objective_kernel, "_choices", {})
    monkeypatch.setattr(objective_kernel, "MEASURED_ROWS", 40)
    times = iter(seconds)
    monkeypatch.setattr(objective_kernel, "_seconds", lambda work, device: next(times))
    if spoil is not None:
        look = KernelPass.look

        def spoilt(self, m, part, query, y, keep):
            return look(self, m, part, query * spoil, y, keep)

        monkeypatch.setattr(KernelPass, "look", spoilt)
    halves = [HalfTable(torch.nn.functional.normalize(torch.randn(90, 16), dim=1), torch.float16) for _ in range(2)]
    for _ in range(2):
        assert kernel_wins(halves, torch.full((2,), 9.0), [True, False]) == (words is None)
    assert len(caplog.records) == (words is not None)
    assert words is None or ("without the Triton kernel" in caplog.text and words in caplog.text)


def test_where_the_kernels_cannot_run_the_reason_is_named():
    assert why_not(CPU) is None
    assert "no width of 48" in why_not(CPU, (16, 48))
