"""Further components of LLM-EMF's score, counted or compared and never trained: what a model of few interactions forgets.

To the probability of eq. 11 they add, for every item i of the target's domain,

    w_pop n_i / sum of n                                              popularity, n_i training interactions
    w_next t_i / sum of t                                             transitions of the last items (`transitions`)
    w_near s_i / sum of s                                             likeness to the history's items (`item_knn`)
    w_text K_i / (1 + n_i / c),   K_i ~ sum_h d^age(h) exp(s cos(t_h, t_i))   likeness of texts to those of the history

so that the weights compare with 1, the weight of the target domain's own sequence. Cosines and over-trained softmaxes keep
little of popularity, and an item that was hardly seen has no id vector to speak of, but a text.

Shapes: B batch, H history items that are read, N items, n items of one domain, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.config import TrialConfig, build_config
from llmemf.features.matrix import FeatureMatrix
from llmemf.models.item_knn import ItemKNN, ItemKNNConfig
from llmemf.models.item_to_item import ItemToItem, training_shares
from llmemf.models.next_item import domain_items
from llmemf.models.transitions import Transitions, TransitionsConfig

ELEMENTS = 2**23
"""Cosines held at once."""


class BackOffConfig(TrialConfig):
    """Settings of the components; all of them are off by default."""

    popularity_weight: float = Field(0.0, ge=0)
    """w_pop: weight of an item's share of its domain's training interactions in the score."""
    transition_weight: float = Field(0.0, ge=0)
    """w_next: weight of what followed the last three items in training, in the score."""
    neighbour_weight: float = Field(0.0, ge=0)
    """w_near: weight of what occurs in the same training sequences as the history's items (ItemKNN, shrink 10), in the score."""
    text_weight: float = Field(0.0, ge=0)
    """w_text: weight of the likeness of an item's text to those of the history, in the score; needs text features."""
    text_trust: float = Field(3.0, gt=0)
    """c: an item seen so often in training has half of the text weight."""
    text_scale: float = Field(12.0, gt=0, le=60)
    """s: inverse temperature of the likeness of texts."""
    text_decay: float = Field(0.9, gt=0, le=1)
    """d: weight of a history item is d^age, the latest one having age 0."""
    text_items: int = Field(10, ge=1)
    """Latest items of a history whose texts are read."""

    def backs_off(self) -> bool:
        """Whether any component is on."""
        return any((self.popularity_weight, self.transition_weight, self.neighbour_weight, self.text_weight))


class BackOff(nn.Module):
    """The components that a configuration turns on.

    Args:
        text: (N, D) text features, rows of unit length; needed where `text_weight` is above 0.
    """

    shares: Tensor
    rows: Tensor
    text_share: Tensor
    has_text: Tensor

    def __init__(self, config: BackOffConfig, data: TrialData, text: FeatureMatrix | None) -> None:
        super().__init__()
        self.config, self.num_x, self.num_items = config, data.num_x, data.num_items
        self.register_buffer("shares", torch.from_numpy(training_shares(data)), persistent=False)
        # Systems without training, and their weights.
        systems: list[ItemToItem] = []
        self.weights: list[float] = []
        shared = {"max_length": config.max_length, "popularity": 0.0}
        if config.transition_weight:
            values = {"model": "transitions", **shared}
            systems.append(Transitions(build_config(TransitionsConfig, values), data))
            self.weights.append(config.transition_weight)
        if config.neighbour_weight:
            values = {"model": "item_knn", "shrink": 10.0, **shared}
            systems.append(ItemKNN(build_config(ItemKNNConfig, values), data))
            self.weights.append(config.neighbour_weight)
        self.systems: Sequence[ItemToItem] = nn.ModuleList(systems)  # type: ignore[assignment]  # a ModuleList is a sequence of its modules
        if config.text_weight:
            assert text is not None, "the caller checks that there are texts"
            counts = np.bincount(data.train.items, minlength=data.num_items)
            weights = np.where(text.has, config.text_weight / (1 + counts / config.text_trust), 0)
            self.register_buffer("rows", torch.from_numpy(np.array(text.rows, dtype=np.float32)), persistent=False)
            self.register_buffer("has_text", torch.from_numpy(np.any(text.rows, axis=1)), persistent=False)
            self.register_buffer("text_share", torch.from_numpy(weights.astype(np.float32)), persistent=False)

    def add_to(self, score: Tensor, batch: Batch, domain: int) -> None:
        """Add the components to the (B, n) probabilities of the items of a domain."""
        items = domain_items(domain, self.num_x, self.num_items)
        if self.config.popularity_weight:
            score += self.config.popularity_weight * self.shares[items]
        for system, weight in zip(self.systems, self.weights):
            found = system.score_all(batch, domain).to(score.dtype)
            score.addcdiv_(found, found.sum(1, keepdim=True).clamp(min=torch.finfo(score.dtype).tiny), value=weight)
        if self.config.text_weight:
            read_BH = batch.views["xy"].items[:, -self.config.text_items :]
            step = max(1, ELEMENTS // (read_BH.shape[1] * score.shape[1]))
            for part, ids in zip(score.split(step), read_BH.split(step)):
                part += self._likeness(ids, items) * self.text_share[items]

    def _likeness(self, read_BH: Tensor, items: slice) -> Tensor:
        """(B, n) K, which adds up to 1 over the items that have a text; 0 where no history item has one."""
        age = torch.arange(read_BH.shape[1] - 1, -1, -1, device=read_BH.device)
        ids = read_BH.clamp(max=self.num_items - 1)
        has_BH = (read_BH < self.num_items) & self.has_text[ids]
        weights_BH = self.config.text_decay**age * has_BH
        cosines = self.rows[ids].flatten(0, 1) @ self.rows[items].T
        near = (self.config.text_scale * (cosines - 1)).exp_().unflatten(0, read_BH.shape)
        like = torch.einsum("bh,bhn->bn", weights_BH, near) * self.has_text[items]
        return like / like.sum(1, keepdim=True).clamp(min=torch.finfo(like.dtype).tiny)
