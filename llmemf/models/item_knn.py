"""ItemKNN: two items are alike if they occur in the same sequences; a candidate is worth its likeness to the history.

With R the binary (sequences x items) matrix of the training data, both domains' columns together, and n_i the number of
sequences with item i:

    co = R^T R without its diagonal
    cosine:       s_ij = co_ij / (sqrt(n_i) sqrt(n_j) + shrink + 1e-6)
    regularised:  s_ij = co_ij / ((n_i + lambda)^a (n_j + lambda)^(1 - a))
    score(c)    = sum over the history's items i of decay^age(i) s_ic

of which every item keeps its nearest `neighbours`. Cross-domain co-occurrence lets the history of one domain speak for the
items of the other, and users without training sequences are scored like all others. Most candidates score exactly 0, so
how ties are ranked (`ties`) matters more here than anywhere else; nothing random is added.

Shapes: B batch, L length, N items, n items of one domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from llmemf.batches import Batch, TrialData
from llmemf.config import TrialConfig
from llmemf.models.recommender import Recommender

BLOCK_ITEMS = 8192
"""Rows of the similarity that are held before all but the nearest neighbours are dropped."""
GATHERED_ELEMENTS = 2**23
"""Neighbours that are read at once in scoring."""


class ItemKNNConfig(TrialConfig):
    """Settings of ItemKNN. It is counted, not trained: learning rate, epochs and the like have no effect.

    `max_length` limits the history that is scored, not the sequences that are counted.
    """

    similarity: Literal["cosine", "regularised"] = "cosine"
    """Cosine with shrinkage (RecBole), or the regularised form of GRU4Rec's baselines, which pi-Net's authors used."""
    neighbours: int = Field(100, ge=1)
    """Nearest items that each item keeps, of both domains together (100 in both sources)."""
    neighbours_of: Literal["history", "candidate"] = "history"
    """Whose neighbours are kept: a history item speaks for its nearest items, or a candidate hears its nearest items."""
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
    decay: float = Field(1.0, gt=0, le=1)
    """Weight of an item is decay^age, where the latest item that is read has age 0."""


class ItemKNN(Recommender):
    """Sparse item-to-item similarities; both domains out of one matrix."""

    config_class = ItemKNNConfig
    config: ItemKNNConfig
    closed_form = True
    source = "Item-based k-nearest neighbours in the forms of RecBole and of GRU4Rec's published baselines"

    bounds: Tensor
    neighbours: Tensor
    similarities: Tensor

    def __init__(self, config: ItemKNNConfig, data: TrialData) -> None:
        super().__init__(config, data)
        similar = nearest_neighbours(occurrences(data, config.unit), config)
        # A row's columns ascend, so that its neighbours of X come first: begin, first of Y, end.
        passed_x = np.concatenate([[0], np.cumsum(similar.indices < self.num_x)])
        first_y = similar.indptr[:-1] + np.diff(passed_x[similar.indptr])
        bounds = np.stack([similar.indptr[:-1], first_y, similar.indptr[1:]]).astype(np.int64)
        self.widest = int(np.diff(similar.indptr).max(initial=1))
        self.register_buffer("bounds", torch.from_numpy(bounds), persistent=False)
        self.register_buffer("neighbours", torch.from_numpy(similar.indices.astype(np.int32)), persistent=False)
        self.register_buffer("similarities", torch.from_numpy(similar.data), persistent=False)

    @classmethod
    def default_space(cls) -> Mapping[str, Any]:
        return {
            "neighbours": [20, 50, 100, 200],
            "shrink": [0.0, 10.0, 50.0],
            "history": ["both", "target_domain"],
            "decay": [1.0, 0.9, 0.7],
        }

    def training_loss(self, batch: Batch) -> Tensor:
        """Zero: nothing is trained."""
        return self.similarities.new_zeros(())

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) summed similarities; all 0 for an empty history."""
        view = batch.views["xy" if self.config.history == "both" else "xy"[domain]]
        items_BL = view.items[:, -1:] if self.config.profile == "last" else view.items
        scores = self.similarities.new_zeros(len(items_BL), (self.num_x, self.num_items - self.num_x)[domain])
        step = max(1, GATHERED_ELEMENTS // (items_BL.shape[1] * self.widest))
        for part, items in zip(scores.split(step), items_BL.split(step)):
            self._add_neighbours(part, items, domain)
        return scores

    def _add_neighbours(self, scores: Tensor, items_BL: Tensor, domain: int) -> None:
        """Add decay^age s_ic to the scores (B, n) for every history item i and each of its neighbours c in the domain."""
        rows, columns = (items_BL < self.num_items).nonzero(as_tuple=True)
        items = items_BL[rows, columns]
        begins = self.bounds[domain][items]
        lengths = self.bounds[domain + 1][items] - begins
        # P history items, each of which is repeated for its neighbours.
        owner = torch.repeat_interleave(lengths)
        within = torch.arange(len(owner), device=owner.device) - (lengths.cumsum(0) - lengths)[owner]
        place = begins[owner] + within
        weights = self.config.decay ** (items_BL.shape[1] - 1 - columns)
        cells = rows[owner] * scores.shape[1] + self.neighbours[place] - (self.num_x if domain else 0)
        scores.view(-1).index_add_(0, cells, self.similarities[place] * weights[owner])


def occurrences(data: TrialData, unit: Literal["sequence", "user"]) -> sparse.csr_array:
    """R: 1 where a training sequence, or a user's training sequences together, hold an item."""
    units = np.arange(len(data.train)) if unit == "sequence" else data.train.users
    rows = np.repeat(units.astype(np.int64), data.train.lengths)
    shape = (int(rows.max(initial=0)) + 1, data.num_items)
    matrix = sparse.coo_array((np.ones(len(rows), np.float32), (rows, data.train.items)), shape=shape).tocsr()
    matrix.data[:] = 1
    return matrix


def nearest_neighbours(matrix: sparse.csr_array, config: ItemKNNConfig) -> sparse.csr_array:
    """S (N, N), row of a history item, column of a candidate, with the nearest neighbours kept.

    Args:
        matrix: R.
    """
    counts = matrix.sum(0).astype(np.float64)
    transposed = matrix.T.tocsr()
    by_candidate = config.neighbours_of == "candidate"
    blocks = []
    for start in range(0, len(counts), BLOCK_ITEMS):
        block = (transposed[start : start + BLOCK_ITEMS] @ matrix).tocoo()
        rows, columns = block.coords
        rows = rows + start
        apart = rows != columns
        rows, columns, shared = rows[apart], columns[apart], block.data[apart].astype(np.float64)
        # co is symmetric: the rows of a block stand for history items, or for candidates.
        history, candidates = (columns, rows) if by_candidate else (rows, columns)
        values = shared / _denominator(counts[history], counts[candidates], config)
        kept = _largest_in_row(rows, columns, values, config.neighbours)
        blocks.append((history[kept], candidates[kept], values[kept]))
    history, candidates, values = (np.concatenate(parts) for parts in zip(*blocks))
    shape = (len(counts), len(counts))
    similar = sparse.coo_array((values.astype(np.float32), (history, candidates)), shape=shape).tocsr()
    similar.sort_indices()
    return similar


def _denominator(history: np.ndarray, candidates: np.ndarray, config: ItemKNNConfig) -> np.ndarray:
    if config.similarity == "cosine":
        return np.sqrt(history) * np.sqrt(candidates) + config.shrink + 1e-6
    lambda_, a = config.regularisation, config.exponent
    return (history + lambda_) ** a * (candidates + lambda_) ** (1 - a)


def _largest_in_row(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values of every row; of equal ones those with the smaller column."""
    order = np.lexsort((columns, -values, rows))
    sorted_rows = rows[order]
    starts = np.flatnonzero(np.diff(sorted_rows, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return order[place < count]
