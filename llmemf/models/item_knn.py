"""ItemKNN: two items are alike if they occur in the same sequences; a candidate is worth its likeness to the history.

With R the binary (sequences x items) matrix of the training data, both domains' columns together, and n_i the number of
sequences with item i:

    co = R^T R without its diagonal
    cosine:       s_ij = co_ij / (sqrt(n_i) sqrt(n_j) + shrink + 1e-6)
    regularised:  s_ij = co_ij / ((n_i + lambda)^a (n_j + lambda)^(1 - a))

of which every item keeps its nearest `neighbours`; `item_to_item` has the score. Cross-domain co-occurrence lets the history of
one domain speak for the items of the other, and users without training sequences are scored like all others. Most
candidates score exactly 0 unless `popularity` orders them, so how ties are ranked (`ties`) matters more here than anywhere
else; nothing random is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from torch import Tensor

from llmemf.batches import Batch, TrialData
from llmemf.models.item_to_item import ItemToItem, ItemToItemConfig

BLOCK_ITEMS = 4096
"""Rows of the similarity that are held before all but the nearest neighbours are dropped."""


class ItemKNNConfig(ItemToItemConfig):
    """Settings of ItemKNN."""

    similarity: Literal["cosine", "regularised"] = "cosine"
    """Cosine with shrinkage (RecBole), or the regularised form of GRU4Rec's baselines, which pi-Net's authors used."""
    neighbours: int = Field(100, ge=1)
    """Nearest items that each item keeps and speaks for, of both domains together (100 in both sources)."""
    shrink: float = Field(0.0, ge=0)
    """Added to the denominator of the cosine (RecBole 0)."""
    regularisation: float = Field(20.0, ge=0)
    """lambda of the regularised form (source 20)."""
    exponent: float = Field(0.5, ge=0, le=1)
    """a of the regularised form: share of the history item's count in the denominator (source 0.5)."""
    unit: Literal["sequence", "user"] = "sequence"
    """Where two items must meet to be alike: in a sequence, or among all training sequences of a user."""
    history: Literal["both", "target_domain"] = "both"
    """Which items of the history are read: those of both domains, or those of the candidates' domain."""
    profile: Literal["all", "last"] = "all"
    """The whole history (RecBole), or its last item alone (GRU4Rec's baselines)."""


class ItemKNN(ItemToItem):
    """Sparse item-to-item similarities; both domains out of one matrix."""

    config_class = ItemKNNConfig
    config: ItemKNNConfig
    source = "Item-based k-nearest neighbours in the forms of RecBole and of GRU4Rec's published baselines"
    search_space: ClassVar = {
        "neighbours": [20, 50, 100, 200],
        "shrink": [0.0, 10.0, 50.0],
        "history": ["both", "target_domain"],
        "decay": [1.0, 0.9, 0.7],
        "popularity": [0.0, 0.001, 3.0],
    }

    def matrix(self, data: TrialData) -> sparse.csr_array:
        """S with the nearest neighbours kept."""
        config, train = self.config, data.train
        groups = train.rows if config.unit == "sequence" else train.users_by_item.astype(np.int64)
        met = incidence(groups, train.items, data.num_items)
        counts = met.sum(0).astype(np.float64)
        blocks = []
        for rows, columns, shared in pairs_that_meet(met):
            values = shared.astype(np.float64) / _denominator(counts[rows], counts[columns], config)
            kept, _ = largest_in_row(rows, columns, values, config.neighbours)
            blocks.append((rows[kept], columns[kept], values[kept]))
        rows, columns, values = (np.concatenate(parts) for parts in zip(*blocks))
        shape = (data.num_items, data.num_items)
        similar = sparse.coo_array((values.astype(np.float32), (rows, columns)), shape=shape).tocsr()
        similar.sort_indices()
        return similar

    def read(self, batch: Batch, domain: int) -> Tensor:
        """The whole history or its last item, of both domains or of the candidates' own."""
        items_BL = batch.views["xy" if self.config.history == "both" else "xy"[domain]].items
        return items_BL[:, -1:] if self.config.profile == "last" else items_BL


def _denominator(history: np.ndarray, candidates: np.ndarray, config: ItemKNNConfig) -> np.ndarray:
    if config.similarity == "cosine":
        return np.sqrt(history) * np.sqrt(candidates) + config.shrink + 1e-6
    lambda_, a = config.regularisation, config.exponent
    return (history + lambda_) ** a * (candidates + lambda_) ** (1 - a)


def incidence(group: np.ndarray, items: np.ndarray, num_items: int) -> sparse.csr_array:
    """R (groups, N): 1 where a group holds an item."""
    shape = (int(group.max(initial=0)) + 1, num_items)
    matrix = sparse.coo_array((np.ones(len(items), np.float32), (group, items)), shape=shape).tocsr()
    matrix.data[:] = 1
    return matrix


def pairs_that_meet(matrix: sparse.csr_array) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The entries of co: item, other item, how many groups hold both; a block of items at a time."""
    by_item = matrix.T.tocsr()
    for start in range(0, matrix.shape[1], BLOCK_ITEMS):
        block = (by_item[start : start + BLOCK_ITEMS] @ matrix).tocoo()
        rows, columns = block.coords
        apart = rows + start != columns
        yield rows[apart] + start, columns[apart], block.data[apart]


def largest_in_row(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the `count` largest values of every row, of equal ones those with the smaller column, and the place of each."""
    order = np.lexsort((columns, -values, rows))
    sorted_rows = rows[order]
    starts = np.flatnonzero(np.diff(sorted_rows, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return order[place < count], place[place < count]
