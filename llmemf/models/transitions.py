"""Transitions: what followed the last items of a history in training, the nearest neighbours that know the order.

With o_ic(d) how often c came d places after i in a training sequence,

    t_ic     = sum over d = 1 .. reach of o_ic(d) / d
    s_ic     = t_ic / sum over all items c' of c's domain of t_ic'
    score(c) = sum over the last `last_items` items i of decay^age(i) s_ic

(`item_to_item` adds popularity). Distances are counted in the merged sequence, or among the items of each domain, where an item
then speaks for its own domain only.
"""

from __future__ import annotations

from itertools import product
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from torch import Tensor

from llmemf.batches import Batch, TrialData
from llmemf.models.item_to_item import ItemToItem, ItemToItemConfig, domain_members, successors


class TransitionsConfig(ItemToItemConfig):
    """Settings of transitions."""

    sequences: Literal["merged", "own"] = "merged"
    """Which sequences are counted and read: the merged ones, or those of the candidates' domain."""
    reach: int = Field(3, ge=1)
    """How many places ahead an item still counts as a successor; a successor d places ahead weighs 1/d."""
    last_items: int = Field(3, ge=1)
    """Latest items of a history that are read."""
    decay: float = Field(0.5, gt=0, le=1)
    """Weight of an item is decay^age, where the latest item has age 0."""
    popularity: float = Field(0.001, ge=0)
    """Weight of a candidate's share of its domain's training interactions; the default orders candidates that would tie."""


class Transitions(ItemToItem):
    """Sparse transition shares; both domains out of one matrix."""

    config_class = TransitionsConfig
    config: TransitionsConfig
    source = "Transition counts of the last items, the sequence-aware neighbour baseline"
    search_space: ClassVar = {
        "sequences": ["merged", "own"],
        "reach": [1, 3, 10],
        "last_items": [1, 3, 10],
        "decay": [0.3, 0.5, 0.8],
        "popularity": [0.0, 0.001, 1.0],
    }

    def matrix(self, data: TrialData) -> sparse.csr_array:
        """S: of every item the shares of its successors, which add up to 1 within each domain."""
        items = data.train.items
        members = [items >= 0] if self.config.sequences == "merged" else domain_members(items, self.num_x)
        parts = []
        for member, distance in product(members, range(1, self.config.reach + 1)):
            before, after = successors(data.train, member, distance)
            parts.append((before, after, np.full(len(before), 1 / distance)))
        before, after, weights = (np.concatenate(part) for part in zip(*parts))
        counts = sparse.coo_array((weights, (before, after)), shape=(data.num_items, data.num_items)).tocsr()
        in_y = counts.indices >= self.num_x
        row = np.repeat(np.arange(data.num_items), np.diff(counts.indptr))
        totals = np.bincount(2 * row + in_y, counts.data, minlength=2 * data.num_items)
        counts.data = (counts.data / totals[2 * row + in_y]).astype(np.float32)
        counts.sort_indices()
        return counts

    def read(self, batch: Batch, domain: int) -> Tensor:
        """The last items, of both domains or of the candidates' own."""
        view = batch.views["xy" if self.config.sequences == "merged" else "xy"[domain]]
        return view.items[:, -self.config.last_items :]
