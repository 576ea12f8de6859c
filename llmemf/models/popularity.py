"""Popularity: every user is offered what occurs most often in training; the floor of every comparison.

    score(u, i) = log(n_i + 1)

n_i counts the training interactions with i; the softmax of a row is then an item's share of its domain, smoothed by one.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from llmemf.batches import Batch, TrialData
from llmemf.config import TrialConfig
from llmemf.models.next_item import domain_items
from llmemf.models.recommender import Recommender


class PopularityConfig(TrialConfig):
    """Settings of popularity. It is counted, not trained: learning rate, epochs and the like have no effect."""

    count: Literal["interactions", "users"] = "interactions"
    """What n_i counts: all training interactions, or each user once."""


class Popularity(Recommender):
    """The same list for everybody."""

    config_class = PopularityConfig
    config: PopularityConfig
    closed_form = True
    status = "floor"
    source = "Counts of the training interactions"
    search_space: ClassVar = {"count": ["interactions", "users"]}

    scores: Tensor

    def __init__(self, config: PopularityConfig, data: TrialData) -> None:
        super().__init__(config, data)
        items = data.train.items
        if config.count == "users":
            users = data.train.users_by_item.astype(np.int64)
            items = np.unique(users * data.num_items + items) % data.num_items
        counts = torch.from_numpy(np.bincount(items, minlength=data.num_items))
        self.register_buffer("scores", torch.log(counts.float() + 1), persistent=False)

    def training_loss(self, batch: Batch) -> Tensor:
        """Zero: nothing is trained."""
        return self.scores.new_zeros(())

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) log counts, the same in every row."""
        return self.scores[domain_items(domain, self.num_x, self.num_items)].repeat(len(batch), 1)
