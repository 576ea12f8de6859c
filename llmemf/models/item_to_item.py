"""Scores from a sparse (items x items) matrix: each item of a history speaks for the items that follow from it.

    score(c) = sum over the history's items i of decay^age(i) s_ic + w n_c / (interactions of c's domain)

n_c counts the training interactions with c; w orders the many candidates that no item of the history speaks for.

Shapes: B batch, L length, N items, n items of one domain.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from llmemf.batches import Batch, TrialData
from llmemf.config import TrialConfig
from llmemf.models.recommender import Recommender
from llmemf.scenarios.sequences import Sequences

GATHERED_ELEMENTS = 2**23
"""Neighbours that are read at once in scoring."""


class ItemToItemConfig(TrialConfig):
    """What such systems share. They are counted, not trained: learning rate, epochs and the like have no effect.

    `max_length` limits the history that is scored, not the sequences that are counted.
    """

    decay: float = Field(1.0, gt=0, le=1)
    """Weight of an item is decay^age, where the latest item that is read has age 0."""
    popularity: float = Field(0.0, ge=0)
    """w: weight of a candidate's share of its domain's training interactions. 0.001 only orders candidates that would tie; 3
    lets the popular ones compete."""


class ItemToItem(Recommender):
    """Scoring by the rows of a sparse matrix. Subclasses give the matrix and say which items of a history are read."""

    config: ItemToItemConfig
    closed_form = True

    bounds: Tensor
    neighbours: Tensor
    similarities: Tensor
    shares: Tensor

    def __init__(self, config: ItemToItemConfig, data: TrialData) -> None:
        super().__init__(config, data)
        similar = self.matrix(data)
        # A row's columns ascend, so that its neighbours of X come first: begin, first of Y, end.
        passed_x = np.concatenate([[0], np.cumsum(similar.indices < self.num_x)])
        first_y = similar.indptr[:-1] + np.diff(passed_x[similar.indptr])
        bounds = np.stack([similar.indptr[:-1], first_y, similar.indptr[1:]]).astype(np.int64)
        self.widest = int(np.diff(similar.indptr).max(initial=1))
        for name, values in (
            ("bounds", bounds),
            ("neighbours", similar.indices.astype(np.int32)),
            ("similarities", similar.data),
            ("shares", training_shares(data)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    @abstractmethod
    def matrix(self, data: TrialData) -> sparse.csr_array:
        """S (N, N) in fp32, row of a history item, column of a candidate, columns ascending within a row."""

    @abstractmethod
    def read(self, batch: Batch, domain: int) -> Tensor:
        """(B, L) the items of the histories that speak for items of a domain, left-padded, the latest one last."""

    def training_loss(self, batch: Batch) -> Tensor:
        """Zero: nothing is trained."""
        return self.similarities.new_zeros(())

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) summed similarities; popularity alone for an empty history."""
        items_BL = self.read(batch, domain)
        shares = self.shares[self.num_x :] if domain else self.shares[: self.num_x]
        scores = (self.config.popularity * shares).repeat(len(items_BL), 1)
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


def domain_members(items: np.ndarray, num_x: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the items of X and of Y."""
    return items < num_x, items >= num_x


def successors(train: Sequences, member: np.ndarray, distance: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Every item of the subsequences of `member`, and the item that stands `distance` places after it."""
    items, rows = train.items[member], train.rows[member]
    same = rows[distance:] == rows[:-distance]
    return items[:-distance][same], items[distance:][same]


def training_shares(data: TrialData) -> np.ndarray:
    """(N,) share of every item of its domain's training interactions, in fp32."""
    counts = np.bincount(data.train.items, minlength=data.num_items).astype(np.float32)
    for domain in (slice(None, data.num_x), slice(data.num_x, None)):
        counts[domain] /= max(1, counts[domain].sum())
    return counts
