"""GRU4Rec: a GRU reads the sequence, and its last state ranks the next item (Hidasi et al., ICLR 2016 and CIKM 2018).

    h_t = GRU(drop(E[s_t]), h_{t-1}),   r_i = q(h_t) . O_i + b_i

Three forms are in circulation under the name, and third-party ones have been found to lose most of the accuracy of the
authors' own. All three are here, as `variant`; in each the loss is taken at every step (view V1), which equals one sample
per prefix, as the authors' session-parallel batches and the ports' augmented prefixes have it.

Shapes: B batch, L length, D item width, H state width, N items, R rows with a target, K drawn negatives.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.columns import to_the_left
from llmemf.models.domain_views import Domains, evaluation_history, training_pairs
from llmemf.models.next_item import NextItemConfig, domain_items, embed_items, next_item_nll
from llmemf.models.recommender import SHORT_BUDGET, Recommender


class GRU4RecConfig(NextItemConfig):
    """Settings of GRU4Rec.

    Source values: `ce` width 64, states 128, dropout 0.3, Adam at 1e-3; `pinet` width and states 100, dropout 0.2,
    gradients cut at +-5; `official` states 64 to 512, batches 32 to 256, Adagrad at 0.01 to 0.25, 2048 drawn negatives.
    """

    lr: float = Field(1e-2, gt=0)
    """Learning rate. The `ce` and `pinet` sources have 1e-3; on toy_game 1e-2 is ahead of 5e-3 after 3 epochs."""
    variant: Literal["ce", "pinet", "official"] = "ce"
    """`ce` (RecBole): GRU without biases, a linear map to the item width, softmax over the item vectors. `pinet`: dropout
    on outputs too, an output matrix of its own with biases, softmax. `official`: item vectors on both sides with item
    biases ("constrained embedding"), `ranking_loss` on the batch's other targets and on drawn items; `objective` has no
    say there."""
    domains: Domains = "merged"
    """What is read: the merged sequence, or the target domain's own; one model for both domains either way."""
    layers: int = Field(1, ge=1, le=8)
    """GRU layers; every source has 1 by default."""
    ranking_loss: Literal["bpr_max", "cross_entropy"] = "bpr_max"
    """Loss of `official`."""
    bpreg: float = Field(1.0, ge=0)
    """Weight of the score regularisation in BPR-max; the authors search 0 to 2."""
    final_activation: Literal["elu-0.5", "elu-1", "linear"] = "elu-0.5"
    """Applied to scores inside BPR-max; it is monotone, so ranking goes without it."""
    support_power: float = Field(0.75, ge=0, le=1)
    """Negatives of `official` are drawn in proportion to support^alpha; this is alpha, which the authors search from 0 to 1."""

    @property
    def state_width(self) -> int:
        """H."""
        return 2 * self.dim if self.variant == "ce" else self.dim


class GRU4Rec(Recommender):
    """One GRU and one item table for both domains; X and Y items share the softmax only with `softmax_scope: all`."""

    config_class = GRU4RecConfig
    config: GRU4RecConfig
    status = "re-implementation"
    source = "Hidasi et al.: Session-based recommendations with recurrent neural networks (GRU4Rec), ICLR 2016"
    search_space: ClassVar = {**SHORT_BUDGET, "variant": ["ce", "pinet"]}

    cumulative_support: Tensor

    def __init__(self, config: GRU4RecConfig, data: TrialData) -> None:
        super().__init__(config, data)
        width, states = config.dim, config.state_width
        self.gru = nn.GRU(width, states, config.layers, bias=config.variant != "ce", batch_first=True)
        self.project = nn.Linear(states, width) if config.variant == "ce" else None
        # A bias is the last column of the table that gives the logits: no copy of the table in every step.
        self.items = _table(self.num_items, width, bias=config.variant == "official")
        self.output = _table(self.num_items, states, bias=True) if config.variant == "pinet" else None
        if config.variant == "official":
            support = np.bincount(data.train.items, minlength=self.num_items).astype(np.float64)
            weight = np.where(support > 0, support**config.support_power, 0)
            cumulative = torch.from_numpy(np.concatenate([[0], np.cumsum(weight)]))
            self.register_buffer("cumulative_support", cumulative, persistent=False)

    @property
    def table(self) -> Tensor:
        """(N, D) or, with biases as the last column, (N, D + 1): what a query is multiplied with."""
        return self.items if self.output is None else self.output

    def states(self, items_BL: Tensor) -> Tensor:
        """(B, L, H) states after each item; padding must be on the right."""
        inputs_BLD = self.drop(embed_items(items_BL, self.items)[..., : self.config.dim])
        states_BLH = self.gru(inputs_BLD)[0]
        return states_BLH if self.config.variant == "ce" else self.drop(states_BLH)

    def queries(self, states: Tensor) -> Tensor:
        """(..., D) or (..., D + 1) what meets the rows of `table`."""
        if self.project is not None:
            return self.project(states).to(self.items.dtype)
        return torch.cat([states, states.new_ones(*states.shape[:-1], 1)], -1).to(self.items.dtype)

    def training_loss(self, batch: Batch) -> Tensor:
        """Mean loss over all steps that have a next item."""
        pairs, pad = training_pairs(batch, self.config.domains, self.num_items), self.num_items
        items_BL, targets_BL = (to_the_left(table, pairs[0] < pad, pad) for table in pairs)
        states_BLH = self.states(items_BL)
        counted = targets_BL < self.num_items
        if self.config.variant == "official":
            queries = self.queries(states_BLH)
            with torch.autocast(items_BL.device.type, enabled=False):
                return self._ranking_loss(queries, targets_BL) / counted.sum().clamp(min=1)
        queries, targets = self.queries(states_BLH[counted]), targets_BL[counted]
        return next_item_nll(self.config, queries, targets, self.table, num_x=self.num_x, exact=items_BL)

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) logits of the last state; an empty history has the zero state."""
        history = evaluation_history(batch, self.config.domains, domain)
        items_BL = to_the_left(history, history < self.num_items, self.num_items)
        length = (items_BL < self.num_items).sum(1)
        states_BLH = self.states(items_BL)
        last = (length - 1).clamp(min=0)[:, None, None].expand(-1, 1, states_BLH.shape[2])
        state_BH = states_BLH.gather(1, last)[:, 0] * (length > 0)[:, None]
        return self.queries(state_BH) @ self.table[domain_items(domain, self.num_x, self.num_items)].T

    def _ranking_loss(self, queries_BLD: Tensor, targets_BL: Tensor) -> Tensor:
        """Sum over all rows of the authors' loss on shared negatives, each row against items of its target's domain.

        Negatives of a row are the other sequences' targets of the same step, and K items drawn once for all rows of a
        domain; its own target is none, whichever way it came in.
        """
        table, config = self.items, self.config
        targets_BLD = F.embedding(targets_BL.clamp(max=self.num_items - 1), table)
        in_step_LBB = queries_BLD.transpose(0, 1) @ targets_BLD.permute(1, 2, 0)
        own_BL = (queries_BLD * targets_BLD).sum(2)
        ranges = [(0, self.num_x), (self.num_x, self.num_items)]
        total = queries_BLD.sum() * 0
        for low, high in ranges if config.softmax_scope == "domain" else [(0, self.num_items)]:
            row, step = ((targets_BL >= low) & (targets_BL < high)).nonzero(as_tuple=True)
            if not len(row):
                continue
            drawn_K = self._draw(low, high, config.sampled_negatives)
            scores = torch.cat([in_step_LBB[step, row], queries_BLD[row, step] @ F.embedding(drawn_K, table).T], 1)
            ids = torch.cat([targets_BL.T[step], drawn_K.expand(len(row), -1)], 1)
            counted = (ids >= low) & (ids < high) & (ids != targets_BL[row, step, None])
            some = counted.any(1)
            loss = bpr_max if config.ranking_loss == "bpr_max" else sampled_cross_entropy
            total = total + loss(own_BL[row, step][some], scores[some], counted[some], config).sum()
        return total

    def _draw(self, low: int, high: int, count: int) -> Tensor:
        """(K,) items of a range, in proportion to support^alpha; never one that training does not have."""
        bounds = self.cumulative_support
        share = torch.rand(count, device=bounds.device, dtype=bounds.dtype)
        place = torch.lerp(bounds[low], bounds[high], share)
        return (torch.searchsorted(bounds, place, right=True) - 1).clamp(low, high - 1)


def _table(num_items: int, width: int, *, bias: bool) -> nn.Parameter:
    """Item vectors of about unit length: from much shorter ones the GRU's states hardly differ in the first epochs."""
    table = torch.empty(num_items, width + bias).normal_(0, width**-0.5)
    if bias:
        table[:, -1] = 0
    return nn.Parameter(table)


def bpr_max(own_R: Tensor, scores_RC: Tensor, counted_RC: Tensor, config: GRU4RecConfig) -> Tensor:
    """(R,) -log(sum_j w_j sigmoid(r_i - r_j)) + bpreg sum_j w_j r_j^2, w the softmax of the negatives' scores r_j."""
    if config.final_activation != "linear":
        alpha = float(config.final_activation.removeprefix("elu-"))
        own_R, scores_RC = (F.elu(values, alpha=alpha) for values in (own_R, scores_RC))
    log_weights = scores_RC.masked_fill(~counted_RC, -torch.inf).log_softmax(1)
    ranked = (log_weights + F.logsigmoid(own_R[:, None] - scores_RC)).logsumexp(1)
    return config.bpreg * (log_weights.exp() * scores_RC.square()).sum(1) - ranked


def sampled_cross_entropy(own_R: Tensor, scores_RC: Tensor, counted_RC: Tensor, config: GRU4RecConfig) -> Tensor:
    """(R,) -log softmax of the target among itself and the negatives, uncorrected for how these were drawn."""
    others_R = scores_RC.masked_fill(~counted_RC, -torch.inf).logsumexp(1)
    return torch.logaddexp(own_R, others_R) - own_R
