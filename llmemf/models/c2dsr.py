"""C2DSR: contrastive cross-domain sequential recommendation (Cao et al., CIKM 2022).

Item vectors smoothed over a graph of successors, causal self-attention over S^X, S^Y and S^{X+Y}, next-item losses of the
single and the shared states, and an infomax loss that ties a domain's user vector to the other domain's part of the
merged sequence. Both domains are scored by one model, as in the source.

Kept of the source: in training the states H and H_X are added at the same column, in scoring the last merged state is
added to the last state of the target's domain. Left out: padding as a key of the attention, the first Y item not being
seen as one of Y, corruptions that stay the same in all epochs. Sequences that lie in one domain, which the source
skips, take part in the softmax terms that they have and not in the infomax terms.

Shapes: B batch, L merged columns, D width, N items, n items of one domain, R rows with a target, K sampled columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn

from llmemf.batches import VIEWS, Batch, TrialData
from llmemf.models.attention import EncoderConfig, SequenceEncoder, dropout
from llmemf.models.columns import at_last
from llmemf.models.item_to_item import domain_members, successors
from llmemf.models.next_item import NextItemConfig, domain_items, plain_softmax
from llmemf.models.recommender import SHORT_BUDGET, Recommender
from llmemf.objective import SampledColumns, mixture_nll, sampled_columns


class C2DSRConfig(NextItemConfig, EncoderConfig):
    """Settings of C2DSR. The source has width 256, 2 blocks, 1 head, dropout 0.2 (code) or 0.3 (paper), lr 1e-3 and batches of 256."""

    layout: Literal["aligned"] = "aligned"
    """S^X and S^Y keep the merged columns, so that their states can be added to the merged ones."""
    softmax_scope: Literal["domain"] = "domain"
    """Each domain has its own output layer, so its softmax runs over its own items (and the class PAD)."""
    softmax_share: float = Field(0.7, ge=0, le=1)
    """lambda: weight of the four softmax terms; 1 - lambda goes to the two infomax terms (source 0.7)."""
    graph_layers: int = Field(1, ge=0, le=4)
    """Depth of the graph convolution (source 1; its paper tries 1 to 4); 0 leaves the item vectors as they are."""
    loss_columns: int = Field(10, ge=0)
    """Latest columns whose next items are trained (source 10, of 15); 0 takes all."""


class C2DSR(Recommender):
    """Graph-smoothed tables, three encoders, a softmax per domain, two bilinear discriminators."""

    config_class = C2DSRConfig
    config: C2DSRConfig
    source = "Cao et al.: Contrastive cross-domain sequential recommendation (C2DSR), CIKM 2022"
    search_space: ClassVar = {**SHORT_BUDGET, "softmax_share": [0.3, 0.7, 0.9], "graph_layers": [1, 2]}

    tables: Mapping[str, SmoothedTable]

    outputs: Sequence[nn.Linear]

    def __init__(self, config: C2DSRConfig, data: TrialData) -> None:
        super().__init__(config, data)
        merged, single = successor_graphs(data)
        graphs = {"xy": merged, "x": single, "y": single}
        self.tables = nn.ModuleDict({s: SmoothedTable(graphs[s], config) for s in VIEWS})  # type: ignore[assignment]  # a ModuleDict is a mapping to its modules
        self.encoders = nn.ModuleDict({s: SequenceEncoder.of(config) for s in VIEWS})
        sizes = (self.num_x, self.num_items - self.num_x)
        self.outputs = nn.ModuleList([nn.Linear(config.dim, size) for size in sizes])  # type: ignore[assignment]  # a ModuleList is a sequence of its modules
        self.output_pad = nn.Linear(config.dim, 1)
        self.discriminators = nn.ModuleList([Bilinear(config.dim) for _ in sizes])

    def states(self, sequence: str, items_BL: Tensor) -> Tensor:
        """(B, L, D) states of one sequence: positions sqrt(D) (G[i] + E[i]) + P[position] through its encoder."""
        real_BL = items_BL < self.num_items
        rows = self.tables[sequence](items_BL.clamp(max=self.num_items - 1))
        return self.encoders[sequence](rows * real_BL.unsqueeze(2), real_BL)

    def training_loss(self, batch: Batch) -> Tensor:
        """lambda (shared X + shared Y + specific X + specific Y) + (1 - lambda) (infomax X + infomax Y)."""
        merged = batch.views["xy"]
        length = merged.items.shape[1]
        # One pass for the merged sequence and for corr_X and corr_Y.
        sequences = [merged.items, *(self._corrupt(merged.items, domain) for domain in (0, 1))]
        true_BLD, *corrupted = self.states("xy", torch.cat(sequences)).chunk(3)
        own, following = [], []
        for name in "xy":
            view = batch.views[name]
            # All views end at the same column; a narrower one lacks columns on the left.
            gap = (length - view.items.shape[1], 0)
            own.append(self.states(name, F.pad(view.items, gap, value=self.num_items)))
            following.append(F.pad(view.next_same, gap, value=self.num_items))
        loss = true_BLD.new_zeros(())
        for domain in (0, 1):
            loss = loss + self._softmax_terms(domain, batch, true_BLD, own[domain], following[domain])
        loss = self.config.softmax_share * loss
        if self.config.softmax_share < 1:
            specific = [ids < self.num_items for ids in following]
            loss = loss + (1 - self.config.softmax_share) * self._infomax(true_BLD, own, corrupted, specific)
        return loss

    def _corrupt(self, items_BL: Tensor, domain: int) -> Tensor:
        """corr of a domain: its own items stay, each item of the other one becomes a random item of that other domain."""
        other = domain_items(1 - domain, self.num_x, self.num_items)
        drawn = torch.randint(other.start, other.stop, items_BL.shape, device=items_BL.device)
        return torch.where((items_BL >= other.start) & (items_BL < other.stop), drawn, items_BL)

    def _softmax_terms(
        self, domain: int, batch: Batch, true_BLD: Tensor, own_BLD: Tensor, following_BL: Tensor
    ) -> Tensor:
        """Shared and specific cross entropy of one domain, over the last columns.

        Shared: [lin(H); lin_PAD(H)] where the next merged item is of the domain. Specific: [lin(H + H_own); lin_PAD(H_own)]
        at the domain's own columns, against its next item. Both are sums over all cells divided by their number, B times
        the counted columns; PAD is a class of the denominator only.
        """
        config, merged = self.config, batch.views["xy"]
        columns = config.loss_columns or config.max_length
        items = domain_items(domain, self.num_x, self.num_items)
        recent_L = torch.arange(merged.items.shape[1], 0, -1, device=merged.items.device) <= columns
        shared = (merged.next_merged >= items.start) & (merged.next_merged < items.stop) & recent_L
        specific = (following_BL < self.num_items) & recent_L
        targets = torch.cat([merged.next_merged[shared], following_BL[specific]]) - items.start
        with torch.autocast(true_BLD.device.type, enabled=False):
            true_RD, mixed_RD, own_RD = true_BLD[shared].float(), true_BLD[specific].float(), own_BLD[specific].float()
            # lin_PAD(H_own) = lin_PAD(H + H_own) - w_PAD H: the last column of the queries and of the row PAD.
            apart = torch.cat([true_RD.new_zeros(len(true_RD)), mixed_RD @ self.output_pad.weight[0]])
            queries = torch.cat([true_RD, mixed_RD + own_RD])
            queries = torch.cat([queries, torch.ones_like(apart)[:, None], apart[:, None]], 1)
            return self._nll(domain, queries, targets, merged.items) / (len(batch) * columns)

    def _nll(self, domain: int, queries: Tensor, targets: Tensor, items_BL: Tensor) -> Tensor:
        """Sum of -log softmax over the domain's items and PAD, a scalar; `targets` are the domain's own numbers."""
        items = domain_items(domain, self.num_x, self.num_items)
        size, ones = items.stop - items.start, queries.new_ones(len(queries))
        pad_row = torch.cat([self.output_pad.weight[0], self.output_pad.bias, ones.new_full((1,), -1)])[None]
        settings = plain_softmax(queries)
        if self.config.objective == "full":
            return mixture_nll([queries], [torch.cat([self._output_rows(domain), pad_row])], targets, **settings)
        drawn = sampled_columns(0, size, self.config.sampled_negatives, items_BL - items.start)
        ids, expansion = torch.cat([drawn.ids, drawn.ids.new_full((1,), size)]), drawn.log_expansion
        with_pad = SampledColumns(ids, torch.cat([expansion, expansion.new_zeros(1)]))
        table = torch.cat([self._output_rows(domain, drawn.ids), pad_row])
        target_rows = [self._output_rows(domain, targets)]
        return mixture_nll([queries], [table], targets, target_rows=target_rows, sampled=with_pad, **settings)

    def _output_rows(self, domain: int, ids: Tensor | None = None) -> Tensor:
        """(K, D + 2) weight, bias and 0 of the given classes of a domain, or of all."""
        weight, bias = self.outputs[domain].weight, self.outputs[domain].bias[:, None]
        if ids is not None:
            weight, bias = F.embedding(ids, weight), F.embedding(ids, bias)
        return torch.cat([weight, bias, torch.zeros_like(bias)], 1)

    def _infomax(self, true_BLD: Tensor, own: list[Tensor], corrupted: list[Tensor], specific: list[Tensor]) -> Tensor:
        """Sum of both domains' terms: D_X(r_X, c_Y) is to be told from D_X(r_X, corrupted c_Y), and likewise for Y.

        r_X is the mean of H_X, c_X that of H, corrupted c_X that of corr_X's states, each over the columns with a specific
        X target.
        """
        both_B = specific[0].any(1) & specific[1].any(1)
        user = [_masked_mean(own[d], specific[d]) for d in (0, 1)]
        merged = [_masked_mean(true_BLD, specific[d]) for d in (0, 1)]
        false = [_masked_mean(corrupted[d], specific[d]) for d in (0, 1)]
        loss = true_BLD.new_zeros(len(true_BLD))
        for d in (0, 1):
            real = self.discriminators[d](user[d], merged[1 - d]).float()
            fake = self.discriminators[d](user[d], false[1 - d]).float()
            loss = loss + F.softplus(-real) + F.softplus(fake)
        return (loss * both_B).sum() / both_B.sum().clamp(min=1)

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) lin(H[last] + H_own[last of the domain]); a user without items of the domain has the first alone."""
        merged, own = (self._last_state(batch, name) for name in ("xy", "xy"[domain]))
        return self.outputs[domain]((merged + own).float())

    def _last_state(self, batch: Batch, sequence: str) -> Tensor:
        """(B, D) state at the last item of a sequence, zero where there is none."""
        items = batch.views[sequence].items
        return at_last(self.states(sequence, items), items < self.num_items)

    def batch_rows(self, batch: Batch) -> Tensor:
        ids = self.batch_items(batch)
        return torch.cat([F.embedding(ids, self.tables[s].rows) for s in VIEWS])


class Bilinear(nn.Module):
    """D(r, c) = r W c + b, a logit per row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, r_BD: Tensor, c_BD: Tensor) -> Tensor:
        return ((r_BD @ self.weight) * c_BD).sum(1) + self.bias


class SmoothedTable(nn.Module):
    """E and its graph convolution G without weight matrices, of which the encoders read the sum.

    Z_0 = E, Z_k = A drop(Z_{k-1}) + b_k, G = mean of Z_0 .. Z_depth; at depth 1: G = (E + (A drop(E) + b)) / 2.
    """

    def __init__(self, graph: SuccessorGraph, config: C2DSRConfig) -> None:
        super().__init__()
        self.graph, self.dropout = graph, config.dropout
        self.rows = nn.Parameter(torch.empty(graph.num_items, config.dim).normal_(0, 0.02))
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(config.dim)) for _ in range(config.graph_layers)])

    def forward(self, ids: Tensor) -> Tensor:
        """(..., D) G + E of the given items, made from the items within `depth` steps of them alone."""
        unique, inverse = ids.unique(return_inverse=True)
        reached = [unique]
        for _ in self.biases:
            reached.append(torch.cat([reached[-1], self.graph.edges(reached[-1])[0]]).unique())
        layer = total = gathered = F.embedding(reached[-1], self.rows)
        for bias, outer, inner in zip(self.biases, reached[:0:-1], reached[-2::-1]):
            following, offsets, weights = self.graph.edges(inner)
            dropped = dropout(layer, self.dropout, self.training)
            layer = bias + F.embedding_bag(
                torch.searchsorted(outer, following), dropped, offsets, mode="sum", per_sample_weights=weights
            )
            total = F.embedding(torch.searchsorted(outer, inner), total) + layer
        own = F.embedding(torch.searchsorted(reached[-1], unique), gathered)
        return F.embedding(inverse, total / (len(self.biases) + 1) + own)


class SuccessorGraph(nn.Module):
    """A: every item's mean over the items that follow it, each as often as it does.

    Args:
        previous, following: ids of the two ends of every edge, repeated as often as the edge occurs.
        num_items: N.
    """

    following: Tensor
    starts: Tensor
    weights: Tensor

    def __init__(self, previous: np.ndarray, following: np.ndarray, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        shape = (num_items, num_items)
        counts = sparse.coo_array((np.ones(len(previous), np.float32), (previous, following)), shape=shape).tocsr()
        weights = counts.data / np.repeat(counts.sum(1), np.diff(counts.indptr))
        for name, array in (("following", counts.indices), ("starts", counts.indptr)):
            self.register_buffer(name, torch.from_numpy(array.astype(np.int64)), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)

    def edges(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Successors of the items (n,), one after another, where each item's begin (n,), and their shares."""
        start = self.starts[ids]
        count = self.starts[ids + 1] - start
        offsets = count.cumsum(0) - count
        place = (start - offsets).repeat_interleave(count)
        place = place + torch.arange(len(place), device=ids.device)
        return self.following[place], offsets, self.weights[place]


def successor_graphs(data: TrialData) -> tuple[SuccessorGraph, SuccessorGraph]:
    """Graphs of what follows what in the training sequences: merged, and inside each domain."""
    items = data.train.items
    inside = [successors(data.train, member) for member in domain_members(items, data.num_x)]
    previous, following = (np.concatenate(ends) for ends in zip(*inside))
    merged = SuccessorGraph(*successors(data.train, items >= 0), data.num_items)
    return merged, SuccessorGraph(previous, following, data.num_items)


def _masked_mean(states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """(B, D) mean over the marked columns, zero where there is none."""
    total = (states_BLD * mask_BL.unsqueeze(2)).sum(1)
    return total / mask_BL.sum(1, keepdim=True).clamp(min=1)
