"""Random problems for the objective, and eqs. 5-9 written out in probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F

ROWS, ITEMS, WIDTHS, WEIGHTS = 37, 501, (24, 48, 40), (0.5, 0.3, 0.2)


def softmax_over_present(logits, present):
    if present is None:
        return logits.softmax(1)
    exponentials = torch.exp(logits - logits.max(1, keepdim=True).values.detach()) * present
    return exponentials / exponentials.sum(1, keepdim=True).clamp(min=1e-300)


def naive_nll(queries, tables, targets, log_weights, scales, row_weights, present=None):
    """Eqs. 5-9 with the whole (rows x items) matrix: softmax per modality, mix, gather, -log; rows without
    probability are left out."""
    probability = 0
    for m, (query, table) in enumerate(zip(queries, tables)):
        softmax = softmax_over_present(scales[m] * query @ table.T, None if present is None else present[m])
        probability = probability + log_weights[:, m].exp() * softmax[torch.arange(len(targets)), targets]
    possible = probability > 0
    return -(row_weights[possible] * probability[possible].log()).sum()


def make_problem(dtype=torch.float64, *, rows=ROWS, items=ITEMS, widths=WIDTHS, weights=WEIGHTS, scale=14.0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(count, width):
        vectors = torch.randn(count, width, generator=generator, dtype=torch.float64)
        return F.normalize(vectors, dim=1).to(dtype).requires_grad_()

    return {
        "queries": [unit(rows, width) for width in widths],
        "tables": [unit(items, width) for width in widths],
        "targets": torch.randint(0, items, (rows,), generator=generator),
        "log_weights": torch.tensor(weights, dtype=dtype).log().repeat(rows, 1).requires_grad_(),
        "scales": torch.linspace(scale, scale * 1.3, len(widths), dtype=dtype).requires_grad_(),
        "row_weights": torch.rand(rows, generator=generator, dtype=torch.float64).add(0.5).to(dtype),
    }


def differentiated(problem, *more):
    tensors = {f"query {m}": q for m, q in enumerate(problem["queries"])}
    tensors |= {f"table {m}": t for m, t in enumerate(problem["tables"])}
    tensors |= {f"more {m}": t for m, t in enumerate(more)}
    return tensors | {name: problem[name] for name in ("log_weights", "scales")}


def relative(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-12))


def rounding_bound(problem):
    """Relative error that fp32 may make in losses and gradients, whatever the order in which a processor sums.

    Roundings of n terms add up to about sqrt(n) u, four times that with near certainty (u = 2^-24): the sums run over all items,
    and an exponential has the error of its logit, which is the scale times a sum over the width.
    """
    rounding, items = torch.finfo(torch.float32).eps / 2, len(problem["tables"][0])
    width, scale = max(table.shape[1] for table in problem["tables"]), problem["scales"].max().item()
    return 4 * rounding * (items**0.5 + scale * width**0.5)


def with_missing(problem, seed=3):
    """A third of the items lack modality 1, some lack 2, item 0 lacks all; the weights are renormalised."""
    generator = torch.Generator().manual_seed(seed)
    items = len(problem["tables"][0])
    present = [torch.rand(items, generator=generator) > share for share in (0.1, 0.35, 0.2)]
    for mask in present:
        mask[0] = False
    for m, mask in enumerate(present):
        problem["tables"][m] = (problem["tables"][m].detach() * mask[:, None]).requires_grad_()
    has = torch.stack(present, 1)[problem["targets"]]
    weights = problem["log_weights"].detach().exp() * has
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    problem["log_weights"] = weights.log().requires_grad_()
    return present
