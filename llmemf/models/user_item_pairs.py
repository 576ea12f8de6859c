"""Training view V4: (user, item) pairs out of a batch of sequences, and negatives for them.

Shapes: B batch, L items of a sequence, R pairs, C negatives per pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.config import BaselineConfig
from llmemf.models.next_item import draw_in_domain
from llmemf.models.unseen_items import UnseenItems


class PairConfig(BaselineConfig):
    """Settings of models that are trained on pairs of a user and an item, in no order."""

    user_mode: Literal["auto", "id", "fold_in"] = "auto"
    """What a user's vector is: the mean of vectors of the history's items (`fold_in`), a row of a table by user (`id`; zero
    for a user without training sequences), or that row where there is one and else the mean (`auto`)."""
    fold_in_share: float = Field(0.5, ge=0, le=1)
    """With `auto`: probability that a training pair sees the mean of the sequence's other items in place of the row."""
    positives: Literal["all", "last"] = "all"
    """Every item of a training sequence is a positive, or its last one alone (what validation asks for)."""
    negatives: int = Field(1, ge=1)
    """Negatives per positive, of its domain."""
    negative_sampling: Literal["unseen", "any", "events"] = "unseen"
    """Uniform among the items that the user has in no training sequence, uniform among all but the positive, or an item of a
    random training interaction (popular ones often, nothing excluded)."""


@dataclass(frozen=True)
class Pairs:
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


def user_item_pairs(batch: Batch, *, pad: int, positives: Literal["all", "last"]) -> Pairs:
    """The pairs of a training batch.

    The item that two windows of one long sequence share is a pair in each of them.
    """
    view = batch.views["xy"]
    items_BL = torch.cat([view.items, view.next_merged[:, -1:]], 1)
    is_pair = items_BL < pad
    if positives == "last":
        is_pair = is_pair & (torch.arange(items_BL.shape[1], device=items_BL.device) == items_BL.shape[1] - 1)
    return Pairs(items_BL, *is_pair.nonzero(as_tuple=True))


class Negatives(nn.Module):
    """Draws of negatives from the domain of each positive."""

    events: Tensor

    def __init__(self, config: PairConfig, data: TrialData) -> None:
        super().__init__()
        self.config, self.num_x, self.num_items = config, data.num_x, data.num_items
        self.unseen = UnseenItems(data, scope="domain") if config.negative_sampling == "unseen" else None
        if config.negative_sampling == "events":
            events = np.sort(data.train.items)
            self.num_x_events = int(np.searchsorted(events, data.num_x))
            self.register_buffer("events", torch.from_numpy(events), persistent=False)

    def draw(self, users: Tensor, positives: Tensor) -> Tensor:
        """(R, C) item ids; any but the positive for a user who has met all items of the domain.

        Args:
            users: (R,).
            positives: (R,) item ids.
        """
        count = self.config.negatives
        if self.config.negative_sampling == "any":
            return draw_in_domain(positives, count, num_x=self.num_x, num_items=self.num_items)
        if self.unseen is not None:
            return self.unseen.draw(users, positives, count)
        in_y = (positives >= self.num_x)[:, None]
        size = torch.where(in_y, len(self.events) - self.num_x_events, self.num_x_events)
        share = torch.rand(len(positives), count, device=positives.device, dtype=torch.float64)
        return self.events[torch.where(in_y, self.num_x_events, 0) + (share * size).long()].long()
