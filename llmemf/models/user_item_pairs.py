"""Training view V4: (user, item) pairs out of a batch of sequences, and the vectors of their users.

Two thirds of the users of published test splits have no training sequence, so that a table by user alone would rank their
items by chance. A folded-in user is the mean of vectors of the history's items, and training makes the model used to it:

    p_u = (1 - m) P[u] + m mean over the other items j of the sequence of V[j],   m ~ Bernoulli(1/2)

"Other" is what keeps the positive out of the vector that it is scored with.

Shapes: B batch, L items of a sequence, R pairs, D width, N items.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.config import BaselineConfig
from llmemf.models.next_item import embed_items

FOLD_IN_SHARE = 0.5
"""Probability that a training pair sees the mean of the sequence's other items in place of the user's row."""


class PairConfig(BaselineConfig):
    """Settings of models that are trained on pairs of a user and an item, in no order."""

    user_mode: Literal["auto", "id", "fold_in"] = "auto"
    """What a user's vector is: the mean of vectors of the history's items (`fold_in`), a row of a table by user (`id`; zero
    for a user without training sequences), or that row where there is one and else the mean (`auto`)."""
    negatives: int = Field(1, ge=1)
    """Negatives per positive: of its domain, and in no training sequence of the user."""


class Pairs(NamedTuple):
    """Positives of a batch.

    Attributes:
        items_BL: all items of the training sequences, the last one included, left-padded with N.
        rows: (R,) sequence of each pair.
        columns: (R,) its column in `items_BL`.
    """

    items_BL: Tensor
    rows: Tensor
    columns: Tensor

    @property
    def items(self) -> Tensor:
        """(R,) the positives."""
        return self.items_BL[self.rows, self.columns]


def user_item_pairs(batch: Batch, pad: int) -> Pairs:
    """The pairs of a training batch; the item that two windows of one long sequence share is a pair in each of them."""
    view = batch.views["xy"]
    items_BL = torch.cat([view.items, view.next_merged[:, -1:]], 1)
    return Pairs(items_BL, *(items_BL < pad).nonzero(as_tuple=True))


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
        if folding is None or self.config.user_mode == "id":
            return self._own(owners)
        vectors_BLD = embed_items(pairs.items_BL, folding)
        others = (pairs.items_BL < self.num_items).sum(1)[pairs.rows, None] - 1
        own = vectors_BLD[pairs.rows, pairs.columns]
        folded = (vectors_BLD.sum(1)[pairs.rows] - own) / others.clamp(min=1)
        if self.rows is None:
            return folded
        by_id = (torch.rand(others.shape, device=others.device) >= FOLD_IN_SHARE) | (others == 0)
        return torch.where(by_id, self._own(owners), folded)

    def of_histories(self, batch: Batch, folding: Tensor | None) -> Tensor:
        """(B, D) vectors in evaluation; zero for a user without training sequences and history."""
        known = self.known[batch.users][:, None]
        if folding is None or self.config.user_mode == "id":
            return self._own(batch.users) * known
        items_BL = batch.views["xy"].items
        count = (items_BL < self.num_items).sum(1, keepdim=True)
        folded = embed_items(items_BL, folding).sum(1) / count.clamp(min=1)
        return folded if self.rows is None else torch.where(known, self._own(batch.users), folded)

    def touched(self, batch: Batch) -> list[Tensor]:
        """The rows of P that a training batch reads."""
        return [] if self.rows is None else [self.rows[batch.users.unique()]]

    def _own(self, users: Tensor) -> Tensor:
        """(R, D) vectors that were learned for users."""
        assert self.rows is not None, "with `user_mode: fold_in` no user has a vector"
        return F.embedding(users, self.rows)
