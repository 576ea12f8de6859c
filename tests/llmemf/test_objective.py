"""The objective against eqs. 3 and 5-9 written out in probabilities, in float64."""

import itertools
import math

import pytest
import torch
from mixture_problem import (
    ITEMS,
    ROWS,
    WIDTHS,
    differentiated,
    make_problem,
    naive_nll,
    relative,
    rounding_bound,
    with_missing,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmemf.objective import SampledColumns, mixture_nll


def compare(problem, tolerance, expected_in=None, **options):
    """Loss and all gradients of `mixture_nll` and the naive formula; the latter on `expected_in` where given."""
    present = options.get("present")
    reference = expected_in or problem
    tensors, reference_tensors = differentiated(problem), differentiated(reference)
    loss = mixture_nll(**problem, **options)
    expected = naive_nll(**reference, present=present)
    assert math.isfinite(loss.item())
    assert abs(loss.item() - expected.item()) <= tolerance * abs(expected.item())
    gradients = torch.autograd.grad(loss * 1.7, list(tensors.values()))
    expected_gradients = torch.autograd.grad(expected * 1.7, list(reference_tensors.values()))
    for name, gradient, expected_gradient in zip(tensors, gradients, expected_gradients):
        assert relative(gradient, expected_gradient) <= tolerance, name


@pytest.mark.parametrize("chunk_elements", [1, ITEMS, 5 * ITEMS + 3, 2**23])
def test_loss_and_gradients_equal_the_naive_formula_for_every_chunk_size(chunk_elements):
    compare(make_problem(), 1e-11, chunk_elements=chunk_elements)


@pytest.mark.parametrize("modalities", [1, 2])
def test_fewer_modalities(modalities):
    compare(make_problem(widths=WIDTHS[:modalities], weights=(0.7, 0.3)[:modalities]), 1e-11, chunk_elements=2000)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_long_vectors_have_finite_losses(kind):
    problem = make_problem(kind)
    for name in ("queries", "tables"):
        problem[name] = [(5 * one.detach()).requires_grad_() for one in problem[name]]
    logits = problem["scales"][0] * problem["queries"][0] @ problem["tables"][0].T
    assert logits.max() > 100
    exact = {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in problem.items()
    }
    exact |= {name: [one.detach().double().requires_grad_() for one in problem[name]] for name in ("queries", "tables")}
    exact |= {name: problem[name].detach().double().requires_grad_() for name in ("log_weights", "scales")}
    compare(problem, 1e-11 if kind == torch.float64 else 1e-4, exact)


def test_duplicate_targets_add_up():
    problem = make_problem()
    problem["targets"] = problem["targets"] % 3
    compare(problem, 1e-11, chunk_elements=4 * ITEMS)


def test_a_modality_of_weight_zero_is_as_if_it_were_not_there():
    problem = make_problem()
    weights = torch.tensor([0.6, 0.0, 0.4], dtype=torch.float64).log().repeat(ROWS, 1)
    problem["log_weights"] = weights.requires_grad_()
    loss = mixture_nll(**problem)
    gradients = torch.autograd.grad(loss, [*problem["queries"], *problem["tables"], problem["scales"]])
    two = make_problem()
    kept = {name: [two[name][0], two[name][2]] for name in ("queries", "tables")}
    expected = naive_nll(**{**two, **kept, "log_weights": weights[:, [0, 2]].detach(), "scales": two["scales"][[0, 2]]})
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert gradients[1].abs().max() == 0 and gradients[4].abs().max() == 0 and gradients[-1][1] == 0
    wanted = torch.autograd.grad(expected, [*kept["queries"], *kept["tables"]])
    for actual, gradient in zip((gradients[0], gradients[2], gradients[3], gradients[5]), wanted):
        assert relative(actual, gradient) <= 1e-11


@pytest.mark.parametrize("chunk_elements", [1, 7 * ITEMS])
def test_items_that_lack_a_modality_stand_outside_its_softmax(chunk_elements):
    problem = make_problem()
    present = with_missing(problem)
    compare(problem, 1e-11, present=present, chunk_elements=chunk_elements)


def test_a_target_without_any_modality_counts_nothing():
    problem = make_problem()
    problem["targets"][[2, 5, 36]] = 0
    present = with_missing(problem)
    assert bool((problem["log_weights"][2] == -torch.inf).all())
    compare(problem, 1e-11, present=present, chunk_elements=3 * ITEMS)
    loss = mixture_nll(**problem, present=present)
    gradient = torch.autograd.grad(loss, problem["queries"][0])[0]
    assert gradient[[2, 5, 36]].abs().max() == 0


def test_a_modality_that_no_item_of_the_range_has_changes_nothing():
    problem = make_problem()
    problem["log_weights"] = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log().repeat(ROWS, 1).requires_grad_()
    present = [torch.ones(ITEMS, dtype=torch.bool)] * 2 + [torch.zeros(ITEMS, dtype=torch.bool)]
    compare(problem, 1e-11, present=present, chunk_elements=4 * ITEMS)


def test_not_a_number_in_a_query_reaches_the_loss():
    problem = make_problem(rows=5, items=11)
    with torch.no_grad():
        problem["queries"][0][3, 0] = torch.nan
    assert math.isnan(mixture_nll(**problem).item())


def test_row_weights_of_zero_leave_rows_out():
    problem = make_problem()
    problem["row_weights"][::2] = 0
    compare(problem, 1e-11)


def test_gradcheck():
    problem = make_problem(rows=4, items=7, widths=(2, 3), weights=(0.6, 0.4), scale=3.0)
    present = [None, torch.tensor([True] * 5 + [False] * 2)]
    problem["targets"] = torch.tensor([0, 4, 4, 2])

    def loss(log_weights, scales, q0, q1, e0, e1):
        tensors = {"queries": [q0, q1], "tables": [e0, e1], "log_weights": log_weights, "scales": scales}
        return mixture_nll(**{**problem, **tensors}, present=present, chunk_elements=14)

    inputs = (problem["log_weights"], problem["scales"], *problem["queries"], *problem["tables"])
    assert torch.autograd.gradcheck(loss, inputs)


def test_gradcheck_of_the_sampled_form():
    problem = make_problem(rows=4, items=5, widths=(2, 3), weights=(0.6, 0.4), scale=3.0)
    target_rows = make_problem(rows=4, items=5, widths=(2, 3), weights=(0.6, 0.4), seed=9)["queries"]
    problem["targets"] = torch.tensor([8, 11, 8, 3])
    sampled = SampledColumns(torch.tensor([3, 8, 9, 10, 10]), torch.full((5,), math.log(12 / 5), dtype=torch.float64))

    def loss(log_weights, scales, q0, q1, e0, e1, y0, y1):
        tensors = {"queries": [q0, q1], "tables": [e0, e1], "log_weights": log_weights, "scales": scales}
        return mixture_nll(**{**problem, **tensors}, target_rows=[y0, y1], sampled=sampled, chunk_elements=10)

    inputs = (problem["log_weights"], problem["scales"], *problem["queries"], *problem["tables"], *target_rows)
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("scale", [1.0, 14.0])
def test_single_precision_is_off_by_rounding_alone(scale):
    problem = make_problem(torch.float32, scale=scale)
    compare(problem, rounding_bound(problem), make_problem(torch.float64, scale=scale))


def test_a_scale_of_100_stays_finite_in_single_precision():
    problem = make_problem(torch.float32, scale=77.0)
    with torch.no_grad():
        problem["queries"][0][:5] = -problem["tables"][0][problem["targets"][:5]]
        problem["scales"].fill_(100.0)
    problem["log_weights"] = torch.tensor([1.0, 0.0, 0.0]).log().repeat(ROWS, 1).requires_grad_()
    double = {
        name: [v.detach().double().requires_grad_() for v in value]
        if isinstance(value, list)
        else value
        if name == "targets"
        else value.detach().double().requires_grad_()
        for name, value in problem.items()
    }
    compare(problem, rounding_bound(problem), double)


def test_catalogue_of_the_real_size():
    shape = {"rows": 16, "items": 100_782, "widths": (6, 8), "weights": (0.6, 0.4)}
    problem = make_problem(torch.float32, **shape)
    assert rounding_bound(problem) < 1e-4
    compare(problem, rounding_bound(problem), make_problem(torch.float64, **shape), chunk_elements=300_000)


def test_tables_that_need_no_gradient_get_none_and_queries_keep_theirs():
    problem = make_problem()
    expected = torch.autograd.grad(naive_nll(**problem), problem["queries"])
    problem["tables"] = [table.detach() for table in problem["tables"]]
    actual = torch.autograd.grad(mixture_nll(**problem), problem["queries"])
    assert all(relative(a, e) < 1e-11 for a, e in zip(actual, expected))


class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("items", [2_000, 20_000])
def test_no_tensor_is_larger_than_one_chunk_whatever_the_number_of_items(items):
    chunk, rows = 41_000, 64
    problem = make_problem(torch.float32, rows=rows, items=items, widths=(2, 2), weights=(0.6, 0.4))
    with Largest() as largest:
        mixture_nll(**problem, chunk_elements=chunk).backward()
    assert largest.elements <= max(chunk, items * 2)
    assert largest.elements < rows * items
    with Largest() as whole:
        naive_nll(**problem).backward()
    assert whole.elements >= rows * items, "the measurement sees whole matrices"


def sampled_probability(problem, target_rows, ids, expansion, row, m, present=None):
    """exp(s cos_y) over itself plus the expanded columns that are not the target, by a plain loop."""
    query, scale = problem["queries"][m][row], problem["scales"][m]
    own = torch.exp(scale * query @ target_rows[m][row])
    total = own
    for column, item in enumerate(ids.tolist()):
        if item != problem["targets"][row] and (present is None or present[m] is None or present[m][column]):
            total = total + expansion * torch.exp(scale * query @ problem["tables"][m][column])
    return own / total


@pytest.mark.parametrize("masked", [False, True])
def test_sampled_form_equals_the_formula_for_given_columns(masked):
    problem = make_problem(rows=6, items=9, widths=(3, 4), weights=(0.6, 0.4), scale=4.0)
    target_rows = make_problem(rows=6, items=9, widths=(3, 4), weights=(0.6, 0.4), seed=5)["queries"]
    ids = torch.tensor([20, 21, 22, 22, 24, 25, 26, 27, 28])
    problem["targets"] = torch.tensor([22, 20, 30, 22, 28, 31])
    present = [None, torch.tensor([True, False] * 4 + [True])] if masked else None
    options = {
        "target_rows": target_rows,
        "sampled": SampledColumns(ids, torch.full((len(ids),), math.log(3.5), dtype=torch.float64)),
        "present": present,
    }
    tensors = differentiated(problem, *target_rows)
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(6):
        mixed = sum(
            problem["log_weights"][row, m].exp() * sampled_probability(problem, target_rows, ids, 3.5, row, m, present)
            for m in range(2)
        )
        expected = expected - problem["row_weights"][row] * mixed.log()
    wanted = torch.autograd.grad(expected, list(tensors.values()))
    for chunk_elements in (1, 20, 2**20):
        loss = mixture_nll(**problem, **options, chunk_elements=chunk_elements)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        for name, a, e in zip(tensors, torch.autograd.grad(loss, list(tensors.values())), wanted):
            assert relative(a, e) <= 1e-11, name


def test_sampled_form_with_every_item_as_one_column_is_the_full_form():
    problem = make_problem(scale=5.0)
    expected = naive_nll(**problem)
    wanted = torch.autograd.grad(expected, problem["queries"])
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(1))
    columns = {**problem, "tables": [table[order] for table in problem["tables"]]}
    target_rows = [table[problem["targets"]] for table in problem["tables"]]
    loss = mixture_nll(**columns, target_rows=target_rows, sampled=SampledColumns(order, torch.zeros(len(order))))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for actual, gradient in zip(torch.autograd.grad(loss, problem["queries"]), wanted):
        assert relative(actual, gradient) <= 1e-11


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_sampled_normaliser_is_unbiased_over_all_draws(columns):
    """Every equally likely draw is enumerated: the mean of the normalisers is the full one, exactly."""
    items = 7
    problem = make_problem(rows=1, items=items, widths=(3,), weights=(1.0,), scale=4.0)
    query, table, scale = problem["queries"][0], problem["tables"][0], problem["scales"][0]
    own = scale * query @ table[problem["targets"][0]]
    normalisers = []
    for draw in itertools.product(range(items), repeat=columns):
        ids = torch.tensor(draw)
        loss = mixture_nll(
            **{**problem, "tables": [table[ids]], "row_weights": torch.ones(1, dtype=torch.float64)},
            target_rows=[table[problem["targets"]]],
            sampled=SampledColumns(ids, torch.full((len(ids),), math.log(items / columns), dtype=torch.float64)),
        )
        normalisers.append(math.exp(loss.item() + own.item()))
    full = torch.exp(scale * query @ table.T).sum().item()
    assert sum(normalisers) / len(normalisers) == pytest.approx(full, rel=1e-12)
