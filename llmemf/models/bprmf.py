"""BPRMF: matrix factorisation trained so that a user's item outranks one that he has not met (Rendle et al., UAI 2009).

    x_ui = p_u . q_i + b_i
    loss = mean over (u, i, j) of -log sigmoid(x_ui - x_uj)

Both domains share p_u and stand in one table q. Users without training sequences are folded in (`user_item_pairs`): the mean
of q over their history, which is never trained on.

Shapes: B batch, R pairs, C negatives per pair, D width, N items, n items of one domain.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.next_item import score_items
from llmemf.models.recommender import SHORT_BUDGET, Recommender
from llmemf.models.unseen_items import UnseenItems
from llmemf.models.user_item_pairs import PairConfig, UserVectors, user_item_pairs


class BPRMFConfig(PairConfig):
    """Settings of BPRMF.

    Source values: width 64, Xavier normal, no bias (RecBole); width 100, item bias, uniform in +-0.05, plain SGD at 0.01, 10
    epochs, negatives from events, the user as the mean of his items (GRU4Rec's baselines).
    """

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of p_u in training (0 in the sources)."""


class BPRMF(Recommender):
    """One table of items, one of users, pairwise ranking."""

    config_class = BPRMFConfig
    config: BPRMFConfig
    source = "Rendle et al.: BPR, Bayesian personalized ranking from implicit feedback, UAI 2009"
    search_space: ClassVar = {"lr": SHORT_BUDGET["lr"], "user_mode": ["auto", "fold_in"]}

    def __init__(self, config: BPRMFConfig, data: TrialData) -> None:
        super().__init__(config, data)
        self.items = nn.Parameter(torch.empty(self.num_items, config.dim))
        self.bias = nn.Parameter(torch.zeros(self.num_items))
        self.users = UserVectors(config, data, config.dim)
        self.unseen = UnseenItems(data)
        for table in (self.items, self.users.rows):
            if table is not None:
                nn.init.xavier_normal_(table)

    def training_loss(self, batch: Batch) -> Tensor:
        """Mean over positives and their negatives."""
        pairs = user_item_pairs(batch, self.num_items)
        positives = pairs.items
        negatives_RC = self.unseen.draw(batch.users[pairs.rows], positives, self.config.negatives)
        user_RD = self.drop(self.users.of_pairs(batch.users, pairs, self.items))
        positive_RD, negative_RCD = F.embedding(positives, self.items), F.embedding(negatives_RC, self.items)
        difference_RC = ((positive_RD[:, None] - negative_RCD) * user_RD[:, None]).sum(2)
        return F.softplus(-(difference_RC + self.bias[positives][:, None] - self.bias[negatives_RC])).mean()

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) x_ui; the biases alone for a user without training sequences and history."""
        users = self.users.of_histories(batch, self.items)
        return score_items(users, self.items, domain, num_x=self.num_x, bias=self.bias)

    def batch_rows(self, batch: Batch) -> Tensor:
        return torch.cat([F.embedding(self.batch_items(batch), self.items), *self.users.touched(batch)])
