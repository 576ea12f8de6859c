"""BPRMF: matrix factorisation trained so that a user's item outranks one that he has not met (Rendle et al., UAI 2009).

    x_ui = p_u . q_i + b_i
    loss = mean over (u, i, j) of -log sigmoid(x_ui - x_uj) + lambda (|p_u|^2 + |q_i|^2 + |q_j|^2)

Both domains share p_u and stand in one table q. Users without training sequences are folded in (`user_vectors`): the mean of
q over their history, which is never trained on.

Shapes: B batch, R pairs, C negatives per pair, D width, N items, n items of one domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.next_item import score_items
from llmemf.models.recommender import SHORT_BUDGET, Recommender
from llmemf.models.user_item_pairs import Negatives, PairConfig, user_item_pairs
from llmemf.models.user_vectors import UserVectors


class BPRMFConfig(PairConfig):
    """Settings of BPRMF.

    Source values: width 64, Xavier normal, no bias (RecBole); width 100, item bias, uniform in +-0.05, plain SGD at 0.01, 10
    epochs, negatives from events, the user as the mean of his items (GRU4Rec's baselines).
    """

    dim: int = Field(64, ge=1)
    """Width of user and item vectors (RecBole 64, GRU4Rec's baselines 100)."""
    item_bias: bool = True
    """b_i (GRU4Rec's baselines; RecBole has none)."""
    pair_l2: float = Field(0.0, ge=0)
    """lambda of the loss, on the vectors of each pair; beside `l2`, which is applied to whole tables."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of p_u in training (0 in the sources)."""


class BPRMF(Recommender):
    """One table of items, one of users, pairwise ranking."""

    config_class = BPRMFConfig
    config: BPRMFConfig
    source = "Rendle et al.: BPR, Bayesian personalized ranking from implicit feedback, UAI 2009"

    def __init__(self, config: BPRMFConfig, data: TrialData) -> None:
        super().__init__(config, data)
        self.items = nn.Parameter(torch.empty(self.num_items, config.dim))
        self.bias = nn.Parameter(torch.zeros(self.num_items)) if config.item_bias else None
        self.users = UserVectors(config, data, config.dim)
        self.negatives = Negatives(config, data)
        for table in (self.items, self.users.rows):
            if table is not None:
                nn.init.xavier_normal_(table)

    @classmethod
    def default_space(cls) -> Mapping[str, Any]:
        return {"lr": SHORT_BUDGET["lr"], "user_mode": ["auto", "fold_in"]}

    def training_loss(self, batch: Batch) -> Tensor:
        """Mean over positives and their negatives."""
        pairs = user_item_pairs(batch, pad=self.num_items, positives=self.config.positives)
        negatives = self.negatives.draw(batch.users[pairs.rows], pairs.items)
        user_RD = self.users.of_pairs(batch.users, pairs, self.items)
        return self._pair_loss(self.drop(user_RD), pairs.items, negatives)

    def _pair_loss(self, user_RD: Tensor, positives: Tensor, negatives_RC: Tensor) -> Tensor:
        positive_RD, negative_RCD = F.embedding(positives, self.items), F.embedding(negatives_RC, self.items)
        difference_RC = ((positive_RD[:, None] - negative_RCD) * user_RD[:, None]).sum(2)
        if self.bias is not None:
            difference_RC = difference_RC + self.bias[positives][:, None] - self.bias[negatives_RC]
        loss = F.softplus(-difference_RC).mean()
        if self.config.pair_l2:
            squares = (user_RD.square() + positive_RD.square()).sum(1).mean() + negative_RCD.square().sum(2).mean()
            loss = loss + self.config.pair_l2 * squares
        return loss

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) x_ui; the biases alone for a user without training sequences and history."""
        users = self.users.of_histories(batch, self.items)
        return score_items(users, self.items, domain, num_x=self.num_x, bias=self.bias)

    def batch_rows(self, batch: Batch) -> Tensor:
        items = F.embedding(self.batch_items(batch), self.items)
        return items if self.users.rows is None else torch.cat([items, self.users.rows[batch.users.unique()]])
