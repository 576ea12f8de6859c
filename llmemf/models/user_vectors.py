"""User vectors p_u for users with and without training sequences (fold-in).

Two thirds of the users of published test splits have no training sequence, so that a table by user alone would rank their
items by chance. A folded-in user is the mean of vectors of the history's items, and training makes the model used to it:

    p_u = (1 - m) P[u] + m mean over the other items j of the sequence of V[j],   m ~ Bernoulli(fold_in_share)

"Other" is what keeps the positive out of the vector that it is scored with.

Shapes: B batch, L items of a sequence, R pairs, D width, N items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.next_item import embed_items
from llmemf.models.user_item_pairs import PairConfig, Pairs


class UserVectors(nn.Module):
    """P and the rule of what a user's vector is (`PairConfig.user_mode`); V is given with every call."""

    known: Tensor

    def __init__(self, config: PairConfig, data: TrialData, width: int) -> None:
        super().__init__()
        self.config, self.num_items = config, data.num_items
        self.rows = None if config.user_mode == "fold_in" else nn.Parameter(torch.empty(data.num_users, width))
        known = torch.zeros(data.num_users, dtype=torch.bool)
        known[torch.from_numpy(data.train.users).long()] = True
        self.register_buffer("known", known, persistent=False)

    def of_pairs(self, users: Tensor, pairs: Pairs, folding: Tensor | None) -> Tensor:
        """(R, D) vectors in training.

        Args:
            users: (B,).
            folding: V (N, D); None with `user_mode: id`.
        """
        owners = users[pairs.rows]
        if self.config.user_mode == "id":
            return self._own(owners)
        vectors_BLD = self._rows_of(pairs.items_BL, folding)
        others = (pairs.items_BL < self.num_items).sum(1)[pairs.rows, None] - 1
        own = vectors_BLD[pairs.rows, pairs.columns]
        folded = (vectors_BLD.sum(1)[pairs.rows] - own) / others.clamp(min=1)
        if self.rows is None:
            return folded
        by_id = (torch.rand(others.shape, device=others.device) >= self.config.fold_in_share) | (others == 0)
        return torch.where(by_id, F.embedding(owners, self.rows), folded)

    def of_histories(self, batch: Batch, folding: Tensor | None) -> Tensor:
        """(B, D) vectors in evaluation; zero for a user without training sequences and history."""
        known = self.known[batch.users][:, None]
        if self.config.user_mode == "id":
            return self._own(batch.users) * known
        items_BL = batch.views["xy"].items
        count = (items_BL < self.num_items).sum(1, keepdim=True)
        folded = self._rows_of(items_BL, folding).sum(1) / count.clamp(min=1)
        return folded if self.rows is None else torch.where(known, F.embedding(batch.users, self.rows), folded)

    def _own(self, users: Tensor) -> Tensor:
        """(R, D) vectors that were learned for users."""
        assert self.rows is not None, "with `user_mode: fold_in` no user has a vector"
        return F.embedding(users, self.rows)

    def _rows_of(self, items_BL: Tensor, folding: Tensor | None) -> Tensor:
        assert folding is not None, "only `user_mode: id` does without folding"
        return embed_items(items_BL, folding)
