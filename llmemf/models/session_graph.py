"""Many sessions as one graph: nodes are the items of each session once, edges its steps; built by sorting, without a loop.

Shapes: S sessions, L columns, V nodes, E edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SessionGraphs:
    """Directed graphs of S sessions, end to end; no edge joins two of them.

    Attributes:
        items: (V,) item of each node.
        session: (V,) session of each node, ascending.
        visits: (V,) how often its session visits the item.
        source, target: (E,) nodes of each edge; an item that follows another several times has one edge.
        in_share: (E,) 1 over the number of edges that enter the edge's target: A_in[target, source].
        out_share: (E,) 1 over the number of edges that leave the edge's source: A_out[source, target].
        last: (V,) bool, the node is the last visit of its session.
    """

    items: Tensor
    session: Tensor
    visits: Tensor
    source: Tensor
    target: Tensor
    in_share: Tensor
    out_share: Tensor
    last: Tensor


def session_graphs(items_SL: Tensor, *, pad: int) -> SessionGraphs:
    """Graphs of the sessions in a table that is padded with `pad`, on whichever side; an empty session has no node."""
    session, column = (items_SL < pad).nonzero(as_tuple=True)
    visited = items_SL[session, column]
    # Sorted by session, then item; `node` says which node each visit is.
    keys, node, visits = torch.unique(session * pad + visited, return_inverse=True, return_counts=True)
    count = len(keys)
    follows = session[1:] == session[:-1]
    edges = torch.unique(node[:-1][follows] * count + node[1:][follows])
    source, target = edges // max(1, count), edges % max(1, count)
    is_last = torch.ones_like(session, dtype=torch.bool)
    is_last[:-1] = ~follows
    last = torch.zeros(count, dtype=torch.bool, device=node.device)
    last[node[is_last]] = True
    return SessionGraphs(
        items=keys % pad,
        session=keys // pad,
        visits=visits,
        source=source,
        target=target,
        in_share=1 / torch.bincount(target, minlength=count)[target],
        out_share=1 / torch.bincount(source, minlength=count)[source],
        last=last,
    )


def prefixes(items_BL: Tensor, targets_BL: Tensor, *, pad: int) -> tuple[Tensor, Tensor]:
    """View V3 of a shifted batch: (S, L) all that precedes each target, and the targets (S,)."""
    row, column = (targets_BL < pad).nonzero(as_tuple=True)
    later = torch.arange(items_BL.shape[1], device=items_BL.device) > column[:, None]
    return items_BL[row].masked_fill(later, pad), targets_BL[row, column]
