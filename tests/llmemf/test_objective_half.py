"""Half-precision operands against eqs. 3 and 5-9 in float64, of the rounded and of the unrounded vectors."""

import itertools
import math

import pytest
import torch
from mixture_problem import ITEMS, differentiated, make_problem, naive_nll, relative, with_missing
from tiny import NUM_X, make_data, make_model, make_sequences

from llmemf.models.item_table import FrozenTable
from llmemf.objective import mixture_nll
from llmemf.objective_half import CHUNK_ROWS, HalfPass, HalfTable, chunk_shape

SAME_ROUNDING, UNROUNDED = 1e-3, 5e-3
"""Largest relative errors against float64 on the rounded vectors, and on the vectors as they were."""


def half_nll(problem, *, present=None, **options):
    tables = [HalfTable.of(table) for table in problem["tables"]]
    table_pass = HalfPass(tables, problem["scales"], present=present, **options)
    return mixture_nll(**problem, present=present, table_pass=table_pass)


def rounded(problem):
    """The problem in float64 with the vectors that the first product sees; there the query carries the scale."""
    carried = [
        (query.detach() * scale).half().double() / scale.double()
        for query, scale in zip(problem["queries"], problem["scales"].detach())
    ]
    return {
        "queries": [query.requires_grad_() for query in carried],
        "tables": [table.detach().half().double().requires_grad_() for table in problem["tables"]],
        "targets": problem["targets"],
        "log_weights": problem["log_weights"].detach().double().requires_grad_(),
        "scales": problem["scales"].detach().double().requires_grad_(),
        "row_weights": problem["row_weights"].double(),
    }


def errors(problem, reference, **options):
    """Relative errors of the loss and of every gradient, by name."""
    loss, expected = half_nll(problem, **options), naive_nll(**reference, present=options.get("present"))
    gradients = torch.autograd.grad(loss, list(differentiated(problem).values()))
    wanted = torch.autograd.grad(expected, list(differentiated(reference).values()))
    found = {name: relative(a, e) for name, a, e in zip(differentiated(problem), gradients, wanted)}
    return {"loss": abs(loss.item() / expected.item() - 1), **found}


@pytest.mark.parametrize("scale", [1.0, 14.0])
def test_fp16_operands_are_within_a_thousandth_of_the_same_rounded_vectors(scale):
    problem = make_problem(torch.float32, scale=scale)
    assert max(errors(problem, rounded(problem)).values()) <= SAME_ROUNDING


@pytest.mark.parametrize("scale", [1.0, 14.0, 45.0, 76.0])
def test_half_operands_are_within_five_thousandths_of_the_vectors_as_they_were(scale):
    found = errors(make_problem(torch.float32, scale=scale), make_problem(scale=scale))
    assert max(found.values()) <= UNROUNDED, found


def test_blocks_of_rows_and_columns_change_nothing_but_the_order_of_sums():
    problem = make_problem(torch.float32)
    whole = half_nll(problem)
    expected = torch.autograd.grad(whole, list(differentiated(problem).values()))
    for chunk in ((1, ITEMS), (7, 100), (37, 256), (64, 1000)):
        loss = half_nll(problem, chunk=chunk)
        assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
        for actual, wanted in zip(torch.autograd.grad(loss, list(differentiated(problem).values())), expected):
            assert relative(actual, wanted) <= 1e-5


def test_missing_items_duplicate_targets_and_rows_of_weight_zero():
    problem, exact = make_problem(torch.float32), make_problem()
    present = with_missing(problem)
    with_missing(exact)
    for case in (problem, exact):
        case["targets"] = case["targets"] % 5
        case["row_weights"][::3] = 0
        has = torch.stack(present, 1)[case["targets"]]
        weights = torch.tensor((0.5, 0.3, 0.2), dtype=case["scales"].dtype) * has
        case["log_weights"] = (weights / weights.sum(1, keepdim=True).clamp(min=1e-30)).log().requires_grad_()
    found = errors(problem, exact, present=present, chunk=(10, 256))
    assert max(found.values()) <= UNROUNDED, found


def test_a_scale_of_100_neither_overflows_nor_vanishes():
    problem, exact = make_problem(torch.float32, scale=100 / 1.3), make_problem(scale=100 / 1.3)
    for case in (problem, exact):
        with torch.no_grad():  # rows on their target, and rows far from all but as near as chance allows
            case["queries"][0][:9] = case["tables"][0][case["targets"][:9]]
            case["queries"][1][9:18] = -case["tables"][1][case["targets"][9:18]]
    found = errors(problem, exact)
    assert max(found.values()) <= UNROUNDED, found


def test_what_is_left_of_a_table_gradient_where_targets_are_nearly_certain():
    problem, exact = (make_problem(dtype, items=3, rows=8, scale=9.0) for dtype in (torch.float32, torch.float64))
    for case in (problem, exact):
        with torch.no_grad():
            for query, table in zip(case["queries"], case["tables"]):
                query.copy_(table[case["targets"]] + 0.1 * query)
    found = errors(problem, exact)
    certain = naive_nll(**exact).item()
    assert certain < 2e-2
    assert max(error for name, error in found.items() if name.startswith("table")) <= 2e-2, found


def test_catalogue_of_the_real_size():
    shape = {"rows": 16, "items": 100_782, "widths": (6, 8), "weights": (0.6, 0.4)}
    found = errors(make_problem(torch.float32, **shape), make_problem(**shape))
    assert max(found.values()) <= UNROUNDED, found


def test_a_chunk_fits_the_cache_and_the_free_memory_and_never_vanishes():
    cpu = torch.device("cpu")
    for rows, columns in itertools.product((1, 40, 3000), (1, 300, 100_782, 50_000_000)):
        height, width = chunk_shape(rows, columns, cpu)
        assert 1 <= height <= min(rows, CHUNK_ROWS) and 1 <= width <= columns
        assert height == 1 or height * columns * 2 <= 2**30 // 8
        assert width <= 256 or height * width * 6 <= 2**25
    assert chunk_shape(500, 1000, cpu, 5000) == (5, 1000)


@pytest.mark.parametrize("items", [1, 63, 64, 500, 1024, 1100])
@pytest.mark.parametrize("width", [1, 100, 256, 5000])
def test_blocks_are_aligned_and_cover_every_item_once(items, width):
    table = HalfTable.of(torch.zeros(items, 2))
    blocks = HalfPass([table], torch.ones(1), chunk=(3, width))._blocks(3)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(items))
    assert all(block.start % 64 == 0 for block in blocks)
    assert all((block.stop - block.start) % 64 == 0 for block in blocks[:-1])
    assert all(block.stop - block.start <= max(64, -(-width // 64) * 64) for block in blocks)


def test_a_cpu_computes_in_fp32_until_told_otherwise():
    data = make_data()
    assert make_model(data).facts() == {}
    model = make_model(data, objective_precision="fp16")
    assert "fp16" in model.facts()["objective_precision"]
    batch = make_sequences(data, "train").batch(torch.arange(9))
    exact = make_model(data).train().training_loss(batch)
    half = model.train().training_loss(batch)
    assert exact.item() != half.item() and math.isclose(exact.item(), half.item(), rel_tol=1e-3)


def test_frozen_rows_are_copied_once_and_trained_ones_in_every_step():
    data = make_data()

    def make(**changes):
        return FrozenTable(data.image, NUM_X, **{"projection": "none", "width": 4, "missing": "renormalise", **changes})

    def copies(table):
        return [table.half_rows(table.output_rows()) for _ in range(2)]

    first, second = copies(make())
    assert first is second
    for trained in ({"missing": "learned"}, {"projection": "linear"}):
        one, other = copies(make(**trained))
        assert one is not other, trained
    rows = make().output_rows()
    torch.testing.assert_close(first.logits.float(), rows, atol=2**-11, rtol=0)
    torch.testing.assert_close(first.part(3, 9).values.float(), rows[3:9], atol=2**-8, rtol=0)
