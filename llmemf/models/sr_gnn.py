"""SR-GNN: a session is a directed graph of its items, and a gated graph network updates its nodes (Wu et al., AAAI 2019).

Per step, for every node, with A_in and A_out the normalised incoming and outgoing edges:

    a  = [A_in (V W_in + c_in) + b_in ; A_out (V W_out + c_out) + b_out]
    h' = n + z (h - n),   r = sigmoid(.), z = sigmoid(.), n = tanh(a_n + r h_n)                 a GRU cell with input a

and then, with h_last the node of the latest item,

    alpha_i = q . sigmoid(W1 h_last + W2 h_i + c),   s_g = sum_i alpha_i h_i,   s = W3 [s_g; h_last],   score = s . e_i

The sum goes over visits: an item that is visited twice counts twice.

Shapes: S sessions, L length, V nodes, E edges, D width, N items, n items of one domain.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.attention import in_parts
from llmemf.models.next_item import NextItemConfig, next_item_nll, score_items, sum_at
from llmemf.models.recommender import SHORT_BUDGET, Recommender

CELLS_AT_ONCE = 2**18
"""Visits (sessions x columns) whose node states are held at once in training; above, parts are computed twice."""


class SRGNNConfig(NextItemConfig):
    """Settings of SR-GNN. The released code: width 100, batch 100, Adam at 1e-3 (a tenth after every 3 epochs), L2 1e-5."""

    lr: float = Field(1e-2, gt=0)
    """Learning rate. The source has 1e-3; on toy_game 1e-2 is ahead of 5e-3 after 3 epochs."""
    steps: int = Field(1, ge=1, le=8)
    """Propagation steps; the source has 1."""


class SRGNN(Recommender):
    """One model on the merged sequence for both domains; every prefix of a training sequence is a session (view V3)."""

    config_class = SRGNNConfig
    config: SRGNNConfig
    source = "Wu et al.: Session-based recommendation with graph neural networks (SR-GNN), AAAI 2019"
    search_space: ClassVar = {**SHORT_BUDGET, "steps": [1, 2]}

    def __init__(self, config: SRGNNConfig, data: TrialData) -> None:
        super().__init__(config, data)
        width = config.dim
        self.items = nn.Parameter(torch.empty(self.num_items, width))
        self.incoming, self.outgoing = nn.Linear(width, width), nn.Linear(width, width)
        self.incoming_bias, self.outgoing_bias = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.cell = nn.GRUCell(2 * width, width)
        self.from_last, self.from_node = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.attention = nn.Linear(width, 1, bias=False)
        self.combine = nn.Linear(2 * width, width, bias=False)
        bound = 1 / math.sqrt(width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def session_vectors(self, items_SL: Tensor) -> Tensor:
        """(S, D) vector of each session, a table padded with N on whichever side; zero for an empty session.

        The source has no dropout; here that of the settings is applied to the item vectors at the nodes.
        """
        graphs = session_graphs(items_SL, pad=self.num_items)
        nodes_VD = self.drop(F.embedding(graphs.items, self.items))
        for _ in range(self.config.steps):
            received = [
                (self.incoming, self.incoming_bias, graphs.source, graphs.target, graphs.in_share),
                (self.outgoing, self.outgoing_bias, graphs.target, graphs.source, graphs.out_share),
            ]
            parts = [
                sum_at(layer(nodes_VD)[sender] * share[:, None], receiver, len(nodes_VD)) + bias
                for layer, bias, sender, receiver, share in received
            ]
            nodes_VD = self.cell(torch.cat(parts, 1), nodes_VD)
        last_SD = sum_at(nodes_VD * graphs.last[:, None], graphs.session, len(items_SL))
        opened_VD = torch.sigmoid(self.from_last(last_SD)[graphs.session] + self.from_node(nodes_VD))
        weights_V1 = self.attention(opened_VD) * graphs.visits[:, None]
        whole_SD = sum_at(weights_V1 * nodes_VD, graphs.session, len(items_SL))
        return self.combine(torch.cat([whole_SD, last_SD], 1))

    def training_loss(self, batch: Batch) -> Tensor:
        """Mean over all prefixes of the negative log-probability of the next item."""
        view = batch.views["xy"]
        sessions_SL, targets = prefixes(view.items, view.next_merged, pad=self.num_items)
        step = max(1, CELLS_AT_ONCE // view.items.shape[1])
        vectors = in_parts(self.session_vectors, list(zip(sessions_SL.split(step))))
        return next_item_nll(self.config, vectors, targets, self.items, num_x=self.num_x, exact=view.items)

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) inner products of the session vectors with the domain's items."""
        return score_items(self.session_vectors(batch.views["xy"].items), self.items, domain, num_x=self.num_x)


class SessionGraphs(NamedTuple):
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
