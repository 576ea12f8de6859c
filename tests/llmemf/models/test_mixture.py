"""The mixture head: weights per item, scales, and agreement of loss, sampling and scores."""

import math

import numpy as np
import pytest
import torch
from tiny import NO_IMAGE, NO_TEXT, NUM_ITEMS, NUM_X, make_data

from llmemf.models.item_table import FrozenTable, IdTable
from llmemf.models.llm_emf_config import LLMEMFConfig
from llmemf.models.mixture import MixtureHead, Term

WEIGHTS = {"id": 0.5, "image": 0.3, "text": 0.2}
ROWS = 5
NOTHING = torch.zeros(0, dtype=torch.long)
SOME = torch.tensor([0, 3, 9, 9, NUM_ITEMS - 2, NUM_ITEMS])


def make_head(*, missing=True, modalities=("id", "image", "text"), weights=WEIGHTS, **options):
    torch.manual_seed(0)
    data = make_data(missing=missing)
    tables = {
        name: IdTable(NUM_ITEMS, 6)
        if name == "id"
        else FrozenTable(getattr(data, name), NUM_X, projection="none", width=1, missing="renormalise")
        for name in modalities
    }
    config = LLMEMFConfig.model_construct(**{"scale_init": 9.0, "chunk_elements": 2**20} | options)
    return MixtureHead(tables, {name: weights[name] for name in modalities}, config)


def make_queries(head, rows=ROWS):
    torch.manual_seed(1)
    return [torch.randn(rows, table.width) * 3 for table in head.tables.values()]


def step_rows(head, low, high):
    """What a step that reads every item has."""
    return head.step_rows(torch.arange(NUM_ITEMS + 1), [(low, high)])


def probabilities(head, low, high):
    """(ROWS, high - low) by `add_probabilities`, the softmax over the same range."""
    items = slice(low, high)
    total = torch.zeros(ROWS, high - low, dtype=head.scoring_type())
    head.add_probabilities(total, [Term(make_queries(head), items, torch.ones(ROWS, dtype=total.dtype))], items)
    return total


def test_weights_of_an_item_are_renormalised_over_what_it_has():
    weights = make_head().item_log_weights().exp().detach().numpy()
    assert weights.shape == (NUM_ITEMS, 3)
    for item in range(NUM_ITEMS):
        expected = np.array([0.5, 0.3 * (item not in NO_IMAGE), 0.2 * (item not in NO_TEXT)])
        np.testing.assert_allclose(weights[item], expected / expected.sum(), rtol=1e-6)


def test_an_item_without_anything_has_no_weight_and_learned_weights_have_finite_gradients():
    head = make_head(modalities=("image", "text"), learn_weights=True)
    weights = head.item_log_weights()
    assert bool((weights[3] == -torch.inf).all()) and bool((weights[NUM_X + 5] == -torch.inf).all())
    queries = make_queries(head)
    head.nll(
        queries, torch.tensor([3, 3, 0, 9, NUM_ITEMS - 1]), 0, NUM_ITEMS, step_rows(head, 0, NUM_ITEMS), NOTHING
    ).backward()
    assert bool(head.log_weights.grad.isfinite().all()) and bool(head.log_weights.grad.any())
    assert probabilities(head, 0, NUM_X)[:, 3].any() == 0


def test_scales_by_modality_shared_or_fixed():
    assert [make_head(scale=kind).log_scale.numel() for kind in ("learned", "shared", "fixed")] == [3, 1, 3]
    assert [make_head(scale=kind).log_scale.requires_grad for kind in ("learned", "shared", "fixed")] == [
        True,
        True,
        False,
    ]
    for kind in ("learned", "shared", "fixed"):
        torch.testing.assert_close(make_head(scale=kind).scales(), torch.full((3,), 9.0))
    torch.testing.assert_close(make_head(scale="fixed", scale_max=5.0).scales(), torch.full((3,), 9.0))
    torch.testing.assert_close(make_head(scale="learned", scale_max=5.0).scales(), torch.full((3,), 5.0))


@pytest.mark.parametrize("mixture", ["prob", "logit"])
@pytest.mark.parametrize("scale", [1.0, 9.0, 34.0, 36.0, 100.0])
def test_the_loss_is_minus_the_log_of_the_scored_probability(mixture, scale):
    head = make_head(mixture=mixture, scale_init=scale)
    for low, high in ((0, NUM_ITEMS), (0, NUM_X), (NUM_X, NUM_ITEMS)):
        targets = torch.linspace(low, high - 1, ROWS).long()
        loss = head.nll(make_queries(head), targets, low, high, step_rows(head, low, high), NOTHING)
        chosen = probabilities(head, low, high)[torch.arange(ROWS), targets - low]
        assert loss.item() == pytest.approx(-chosen.log().sum().item(), rel=1e-5)


@pytest.mark.parametrize("mixture", ["prob", "logit"])
def test_probabilities_are_positive_and_sum_to_one_where_nothing_is_missing(mixture):
    for scale in (1.0, 35.0, 100.0):
        head = make_head(missing=False, mixture=mixture, scale_init=scale)
        found = probabilities(head, 0, NUM_ITEMS)
        assert bool((found > 0).all())
        torch.testing.assert_close(found.sum(1), torch.ones(ROWS, dtype=found.dtype), rtol=1e-5, atol=0)


def test_scores_become_double_where_single_precision_ends():
    assert make_head(scale_init=34.9).scoring_type() == torch.float32
    assert make_head(scale_init=35.1).scoring_type() == torch.float64


def test_opposite_queries_at_the_largest_single_precision_scale_still_have_a_probability():
    head = make_head(missing=False, modalities=("id",), weights={"id": 1.0}, scale_init=34.9)
    with torch.no_grad():
        head.tables["id"].input[:] = torch.nn.functional.one_hot(torch.zeros(NUM_ITEMS).long(), 6).float()
        head.tables["id"].input[4] *= -1
    total = torch.zeros(1, NUM_ITEMS)
    every = slice(0, NUM_ITEMS)
    head.add_probabilities(total, [Term([head.tables["id"].input[:1]], every, torch.ones(1))], every)
    assert total[0, 4].log().item() == pytest.approx(-2 * 34.9 - math.log(NUM_ITEMS - 1), rel=1e-5)


def test_no_target_at_all_is_a_loss_of_zero_with_gradients():
    head = make_head()
    queries = [query[:0].requires_grad_() for query in make_queries(head)]
    loss = head.nll(queries, torch.zeros(0, dtype=torch.long), 0, NUM_X, step_rows(head, 0, NUM_X), NOTHING)
    loss.backward()
    assert loss.item() == 0 and queries[0].grad.shape == (0, 6)


@pytest.mark.parametrize("mixture", ["prob", "logit"])
@pytest.mark.parametrize("exact", [NOTHING, SOME])
def test_sampled_loss_approaches_the_full_one_within_its_range(mixture, exact):
    full = make_head(mixture=mixture, scale_init=3.0)
    sampled = make_head(mixture=mixture, scale_init=3.0, objective="sampled", sampled_negatives=200_000)
    for low, high in ((0, NUM_ITEMS), (NUM_X, NUM_ITEMS)):
        targets = torch.linspace(low, high - 1, ROWS).long()
        expected = full.nll(make_queries(full), targets, low, high, step_rows(full, low, high), NOTHING).item()
        actual = sampled.nll(make_queries(sampled), targets, low, high, step_rows(sampled, low, high), exact).item()
        assert actual == pytest.approx(expected, rel=2e-3) and actual != expected


@pytest.mark.parametrize("mixture", ["prob", "logit"])
def test_sampled_loss_is_the_full_one_where_every_item_is_exact(mixture):
    full, sampled = (make_head(mixture=mixture, objective=kind, sampled_negatives=5) for kind in ("full", "sampled"))
    targets = torch.arange(ROWS)
    expected = full.nll(make_queries(full), targets, 0, NUM_X, step_rows(full, 0, NUM_X), NOTHING).item()
    actual = sampled.nll(
        make_queries(sampled), targets, 0, NUM_X, step_rows(sampled, 0, NUM_X), torch.arange(NUM_ITEMS + 1)
    ).item()
    assert actual == pytest.approx(expected, rel=1e-5)


def test_chunks_change_nothing():
    losses = []
    for chunk_elements in (1, 100, 2**20):
        head = make_head(chunk_elements=chunk_elements)
        loss = head.nll(make_queries(head), torch.arange(ROWS), 0, NUM_X, step_rows(head, 0, NUM_X), NOTHING)
        losses.append((loss.item(), *torch.autograd.grad(loss, [head.log_scale, head.tables["id"].input])))
    for loss in losses[1:]:
        assert loss[0] == pytest.approx(losses[0][0], rel=1e-6)
        torch.testing.assert_close(loss[1:], losses[0][1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_rows_of_a_sampled_step_are_those_of_the_tables(tied):
    head = make_head(objective="sampled", sampled_negatives=4)
    head.tables["id"] = IdTable(NUM_ITEMS, 6, tied=tied)
    read = torch.tensor([[NUM_ITEMS, 3, 9], [0, 3, NUM_X + 5]])
    step = head.step_rows(read, [(0, NUM_X), (NUM_X, NUM_ITEMS)])
    for table, embedded, outputs in zip(head.tables.values(), step.embed(read), step.outputs):
        torch.testing.assert_close(embedded, table.input_rows(read))
        for (low, high), draws in step.draws.items():
            assert len(draws) == 4 and bool(((draws >= low) & (draws < high)).all())
            torch.testing.assert_close(outputs[step.place[draws]], table.output_rows(draws))
        assert len(outputs) <= 4 + 8, "only what the step reads"
