"""SASRec: causal self-attention over the history; the last state is matched with item vectors (Kang and McAuley, ICDM 2018).

    x = sqrt(D) E[s] + P;   per block  q = LN(x), x <- q + MHA(q, x, x), x <- LN(x), x <- x + W2 relu(W1 x);   score = x_last . e_i

The block is `attention.AttentionBlock`. Unlike the sources, positions count real items, so that padding changes nothing, and
padding is masked as a key instead of only being zero.

Shapes: B batch, L length, D width, N items, R rows with a target.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.attention import EncoderConfig, SequenceEncoder
from llmemf.models.domain_views import Domains, evaluation_history, training_pairs
from llmemf.models.next_item import NextItemConfig, binary_cross_entropy, embed_items, next_item_nll, score_items
from llmemf.models.recommender import SHORT_BUDGET, Recommender
from llmemf.models.unseen_items import UnseenItems


class SASRecConfig(NextItemConfig, EncoderConfig):
    """Settings of SASRec.

    Source values: 2 blocks, 1 head, width 50, 200 items (50 on sparse data), dropout 0.2 to 0.5, batch 128, Adam at 1e-3 with betas 0.9 and
    0.98; RecBole has width 64, 2 heads, dropout 0.5, cross entropy.
    """

    domains: Domains = "merged"
    """What is read: the merged sequence, or the target domain's own; one model for both domains either way."""
    loss: Literal["ce", "bce"] = "ce"
    """Softmax over items (`objective` and `softmax_scope` say which), or the paper's binary cross entropy with one negative per step that the
    user has not met in training. The choice changes results by a lot; C2DSR's encoders have `ce`."""


class SASRec(Recommender):
    """One encoder and one item table for both domains, on input and output alike."""

    config_class = SASRecConfig
    config: SASRecConfig
    source = "Kang and McAuley: Self-attentive sequential recommendation (SASRec), ICDM 2018"
    search_space: ClassVar = {**SHORT_BUDGET, "encoder_layers": [1, 2], "heads": [1, 2]}

    def __init__(self, config: SASRecConfig, data: TrialData) -> None:
        super().__init__(config, data)
        self.items = nn.Parameter(torch.empty(self.num_items, config.dim).normal_(0, 0.02))
        self.encoder = SequenceEncoder.of(config)
        self.unseen = UnseenItems(data, scope=config.softmax_scope) if config.loss == "bce" else None

    def states(self, items_BL: Tensor) -> Tensor:
        """(B, L, D) states after each item; zero at padding."""
        return self.encoder(embed_items(items_BL, self.items), items_BL < self.num_items)

    def training_loss(self, batch: Batch) -> Tensor:
        """Mean over all steps that have a next item."""
        items_BL, targets_BL = training_pairs(batch, self.config.domains, self.num_items)
        counted = targets_BL < self.num_items
        states, targets = self.states(items_BL)[counted], targets_BL[counted]
        if self.unseen is None:
            return next_item_nll(self.config, states, targets, self.items, num_x=self.num_x, exact=items_BL)
        with torch.autocast(states.device.type, enabled=False):
            # In `target_only` the rows of the users come twice: their X sequences, then their Y sequences.
            users = batch.users.repeat(len(items_BL) // len(batch))[:, None].expand_as(items_BL)[counted]
            pair = (targets, self.unseen.draw(users, targets)[:, 0])
            states = states.to(self.items.dtype)
            return binary_cross_entropy(torch.stack([(states * F.embedding(i, self.items)).sum(1) for i in pair]).T)

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) inner products of the last state with the domain's items; all 0 for an empty history."""
        states = self.states(evaluation_history(batch, self.config.domains, domain))[:, -1]
        return score_items(states, self.items, domain, num_x=self.num_x)
