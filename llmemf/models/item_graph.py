"""Five relations between items, made from training sequences: a substitute for the knowledge graph of MIFN.

The authors' graph (Amazon's `related` lists and categories) is not public. Each of its relations has a stand-in here, and
each item the nearest few in every relation:

| relation | stand-in | strength |
|---|---|---|
| also_buy | both in one sequence, same domain | cosine of their occurrences |
| also_view | text features alike, same domain (recipe `cooc_text`; empty without) | cosine |
| buy_after_view | directed: the next item of the same domain in a sequence | count |
| bought_together | both in one sequence on one day (UTC), same domain; empty where the data has no times | cosine |
| adaptation | both in one sequence, across the domains | cosine |

Shapes: N items, R relations, T neighbours at most per item and relation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from llmemf.features.matrix import FeatureMatrix
from llmemf.models.item_knn import largest_in_row
from llmemf.scenarios.sequences import Sequences

RELATIONS = ("also_buy", "also_view", "buy_after_view", "bought_together", "adaptation")
BLOCK = 2048
"""Items whose neighbours are searched at once."""
DAY = 86_400


@dataclass(frozen=True)
class ItemGraph:
    """Neighbours of every item in every relation.

    Attributes:
        neighbours: (N + 1, R, T) int32 item ids, strongest first, padded with N; row N, of padding, has none.
        recipe: what it was made of, in words.
    """

    neighbours: np.ndarray
    recipe: str

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the neighbours."""
        digest = hashlib.sha256(repr(self.neighbours.shape).encode())
        digest.update(np.ascontiguousarray(self.neighbours, dtype="<i4").tobytes())
        return digest.hexdigest()


def build_item_graph(
    train: Sequences,
    *,
    num_x: int,
    num_items: int,
    top: int = 10,
    min_count: int = 2,
    text: FeatureMatrix | None = None,
) -> ItemGraph:
    """The graph of a training split.

    Args:
        train: training sequences alone.
        top: T, neighbours kept per item and relation; equal strengths go to the lower id.
        min_count: how often a pair must occur; does not apply to text.
        text: features of the items (rows of unit length) for `also_view`; without them that relation is empty.
    """
    row = train.rows
    together = _incidence(row, train.items, num_items)
    dated = train.times >= 0
    _, day = np.unique(np.stack([row[dated], train.times[dated] // DAY], 1), axis=0, return_inverse=True)
    same_day = _incidence(day.reshape(-1), train.items[dated], num_items)
    settings = {"num_x": num_x, "top": top, "min_count": min_count}
    tables = {
        "also_buy": _alike(together, across=False, **settings),
        "also_view": _similar_text(text, num_x, num_items, top),
        "buy_after_view": _following(row, train.items, num_x, num_items, top, min_count),
        "bought_together": _alike(same_day, across=False, **settings),
        "adaptation": _alike(together, across=True, **settings),
    }
    neighbours = np.full((num_items + 1, len(RELATIONS), top), num_items, dtype=np.int32)
    for number, relation in enumerate(RELATIONS):
        neighbours[:num_items, number] = tables[relation]
    kind = "cooc" if text is None else f"cooc_text ({text.encoder}, {text.hash()[:12]})"
    return ItemGraph(neighbours, f"{kind}, top {top}, min count {min_count}")


def _incidence(group: np.ndarray, items: np.ndarray, num_items: int) -> sparse.csr_matrix:
    """(groups, N) which items occur in which group, as ones."""
    shape = (int(group.max(initial=-1)) + 1, num_items)
    matrix = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (group, items)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _alike(incidence: sparse.csr_matrix, *, across: bool, num_x: int, top: int, min_count: int) -> np.ndarray:
    """(N, T) items that occur together most, co_ij / sqrt(n_i n_j), within the domains or across them."""
    num_items = incidence.shape[1]
    table = np.full((num_items, top), num_items, dtype=np.int32)
    occurrences = np.asarray(incidence.sum(0)).reshape(-1)
    by_item = incidence.T.tocsr()
    for start in range(0, num_items, BLOCK):
        counts = (by_item[start : start + BLOCK] @ incidence).tocoo()
        source, other = counts.row + start, counts.col
        kept = (counts.data >= min_count) & (source != other) & (((source < num_x) != (other < num_x)) == across)
        source, other = source[kept], other[kept]
        strength = counts.data[kept] / np.sqrt(occurrences[source] * occurrences[other])
        _fill(table, source, other, strength)
    return table


def _following(row: np.ndarray, items: np.ndarray, num_x: int, num_items: int, top: int, min_count: int) -> np.ndarray:
    """(N, T) items that most often come next in the same domain of a sequence."""
    counts = sparse.csr_matrix((num_items, num_items), dtype=np.int64)
    for member in (items < num_x, items >= num_x):
        of_row, of_domain = row[member], items[member]
        pair = (of_row[1:] == of_row[:-1]) & (of_domain[1:] != of_domain[:-1])
        source, other = of_domain[:-1][pair], of_domain[1:][pair]
        ones = np.ones(len(source), dtype=np.int64)
        counts = counts + sparse.csr_matrix((ones, (source, other)), shape=counts.shape)
    counts = counts.tocoo()
    kept = counts.data >= min_count
    table = np.full((num_items, top), num_items, dtype=np.int32)
    _fill(table, counts.row[kept], counts.col[kept], counts.data[kept])
    return table


def _similar_text(text: FeatureMatrix | None, num_x: int, num_items: int, top: int) -> np.ndarray:
    """(N, T) items of the same domain with the most similar text, by brute force in blocks."""
    table = np.full((num_items, top), num_items, dtype=np.int32)
    if text is None:
        return table
    for low, high in ((0, num_x), (num_x, num_items)):
        known = low + np.flatnonzero(text.has[low:high])
        rows = np.asarray(text.rows[known], dtype=np.float32)
        for start in range(0, len(known), BLOCK):
            cosine = rows[start : start + BLOCK] @ rows.T
            cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = -np.inf
            count = min(top, len(known) - 1)
            if not count:
                continue
            best = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
            source = np.repeat(known[start : start + BLOCK], count)
            _fill(table, source, known[best].reshape(-1), np.take_along_axis(cosine, best, 1).reshape(-1))
    return table


def _fill(table: np.ndarray, source: np.ndarray, other: np.ndarray, strength: np.ndarray) -> None:
    """Write the strongest of each source into its row; of equal ones the lower id."""
    kept, place = largest_in_row(source, other, strength, table.shape[1])
    table[source[kept], place] = other[kept]
