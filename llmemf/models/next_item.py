"""Loss and scores of models that give one vector per position and rank items by inner products.

Shapes: R rows with a target, D width, N items, n items of one domain, B batch.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from llmemf.config import BaselineConfig
from llmemf.objective import mixture_nll, sampled_columns


class NextItemConfig(BaselineConfig):
    """Settings of models that are trained with a softmax over items."""

    objective: Literal["full", "sampled"] = "full"
    """The exact softmax, or an unbiased estimate of its normaliser from drawn items (large catalogues on CPU cores)."""
    sampled_negatives: int = Field(1024, ge=1)
    """Items drawn per step and domain by the sampled objective."""
    softmax_scope: Literal["domain", "all"] = "domain"
    """The softmax of a target runs over the items of its own domain (what is ranked), or over all items."""


def next_item_nll(
    config: NextItemConfig,
    states: Tensor,
    targets: Tensor,
    table: Tensor,
    *,
    num_x: int,
    exact: Tensor,
) -> Tensor:
    """Mean negative log-probability of the next items under a softmax over inner products, a scalar.

    Args:
        states: (R, D), of any precision.
        targets: (R,) global item ids.
        table: (N, D) item vectors.
        num_x: items of domain X; the first ones.
        exact: item ids that a sampled normaliser counts exactly (the inputs of the batch).
    """
    with torch.autocast(states.device.type, enabled=False):
        return _next_item_nll(config, states.to(table.dtype), targets, table, num_x, exact)


def _next_item_nll(
    config: NextItemConfig, states: Tensor, targets: Tensor, table: Tensor, num_x: int, exact: Tensor
) -> Tensor:
    ranges = [(0, num_x), (num_x, len(table))] if config.softmax_scope == "domain" else [(0, len(table))]
    parts = [(low, high, ((targets >= low) & (targets < high)).nonzero()[:, 0]) for low, high in ranges]
    parts = [part for part in parts if len(part[2])]
    if config.objective == "full":
        terms = [
            mixture_nll([states[rows]], [table[low:high]], targets[rows] - low, **plain_softmax(states[rows]))
            for low, high, rows in parts
        ]
    else:
        columns = [sampled_columns(low, high, config.sampled_negatives, exact) for low, high, _ in parts]
        # One look-up for all: each further one would be a further gradient of the table's size.
        ids = torch.cat([targets, *(drawn.ids for drawn in columns)])
        own, *vectors = F.embedding(ids, table).split([len(targets), *(len(drawn.ids) for drawn in columns)])
        terms = [
            mixture_nll(
                [states[rows]], [drawn_vectors], targets[rows],
                target_rows=[own[rows]], sampled=drawn, **plain_softmax(states[rows]),
            )
            for (_, _, rows), drawn, drawn_vectors in zip(parts, columns, vectors)
        ]  # fmt: skip
    return sum(terms, states.sum() * 0) / max(1, len(targets))


def plain_softmax(states: Tensor) -> dict[str, Any]:
    """A mixture of one softmax over inner products, rows counting alike."""
    ones = states.new_ones(len(states))
    return {"log_weights": ones.new_zeros(len(states), 1), "scales": ones.new_ones(1), "row_weights": ones}


def binary_cross_entropy(scores_RC: Tensor) -> Tensor:
    """Mean over the rows of -log sigmoid(s+) - mean of log(1 - sigmoid(s-)); column 0 is s+. Zero without any row."""
    loss_R = F.softplus(-scores_RC[:, 0]) + F.softplus(scores_RC[:, 1:]).mean(1)
    return loss_R.sum() / max(1, len(loss_R))


def sum_at(rows: Tensor, places: Tensor, count: int) -> Tensor:
    """(count, D) sums of the rows (R, D) that go to the same place (R,)."""
    return rows.new_zeros(count, rows.shape[1]).index_add(0, places, rows)


def embed_items(ids: Tensor, table: Tensor) -> Tensor:
    """(..., D) the rows of `table` (N, D); zero at padding, whose ids are N or more."""
    return F.embedding(ids.clamp(max=len(table) - 1), table) * (ids < len(table)).unsqueeze(-1)


def domain_items(domain: int, num_x: int, num_items: int) -> slice:
    """Global ids of the items of a domain (0 is X, 1 is Y)."""
    return slice(num_x, num_items) if domain else slice(0, num_x)


def score_items(states: Tensor, table: Tensor, domain: int, *, num_x: int, bias: Tensor | None = None) -> Tensor:
    """(B, n) inner products of the last states (B, D) with the items of a domain out of `table` (N, D)."""
    items = domain_items(domain, num_x, len(table))
    scores = states @ table[items].T
    return scores if bias is None else scores + bias[items]


def draw_in_domain(targets: Tensor, count: int, *, num_x: int, num_items: int) -> Tensor:
    """(R, count) uniform negatives, each from the domain of its row's target (R,) and never the target itself.

    A domain of one item has nothing else to draw: its rows get that item.
    """
    is_y = targets >= num_x
    low = torch.where(is_y, num_x, 0)[:, None]
    others = torch.where(is_y, num_items - num_x, num_x)[:, None] - 1
    draws = low + (torch.rand(len(targets), count, device=targets.device) * others).long()
    # Draws from one item fewer; those from the target on move up by one, so that it is never drawn.
    return draws + ((draws >= targets[:, None]) & (others > 0))
