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

import numpy as np
from scipy import sparse

from llmemf.features.matrix import FeatureMatrix
from llmemf.models.item_knn import BLOCK_ITEMS, incidence, largest_in_row, pairs_that_meet
from llmemf.models.item_to_item import domain_members, successors
from llmemf.scenarios.sequences import Sequences

RELATIONS = ("also_buy", "also_view", "buy_after_view", "bought_together", "adaptation")
DAY = 86_400


def build_item_graph(
    train: Sequences,
    *,
    num_x: int,
    num_items: int,
    top: int = 10,
    min_count: int = 2,
    text: FeatureMatrix | None = None,
) -> np.ndarray:
    """Neighbours of every item in every relation, out of a training split.

    Args:
        train: training sequences alone.
        top: T, neighbours kept per item and relation; equal strengths go to the lower id.
        min_count: how often a pair must occur; does not apply to text.
        text: features of the items (rows of unit length) for `also_view`; without them that relation is empty.

    Returns:
        (N + 1, R, T) int32 item ids, strongest first, padded with N; row N, of padding, has none.
    """
    together = incidence(train.rows, train.items, num_items)
    dated = train.times >= 0
    _, day = np.unique(np.stack([train.rows[dated], train.times[dated] // DAY], 1), axis=0, return_inverse=True)
    same_day = incidence(day.reshape(-1), train.items[dated], num_items)
    settings = {"num_x": num_x, "top": top, "min_count": min_count}
    tables = {
        "also_buy": _alike(together, across=False, **settings),
        "also_view": _similar_text(text, num_x, num_items, top),
        "buy_after_view": _following(train, num_x, num_items, top, min_count),
        "bought_together": _alike(same_day, across=False, **settings),
        "adaptation": _alike(together, across=True, **settings),
    }
    neighbours = np.full((num_items + 1, len(RELATIONS), top), num_items, dtype=np.int32)
    for number, relation in enumerate(RELATIONS):
        neighbours[:num_items, number] = tables[relation]
    return neighbours


def _alike(met: sparse.csr_array, *, across: bool, num_x: int, top: int, min_count: int) -> np.ndarray:
    """(N, T) items that occur together most, co_ij / sqrt(n_i n_j), within the domains or across them."""
    num_items = met.shape[1]
    table = np.full((num_items, top), num_items, dtype=np.int32)
    occurrences = np.asarray(met.sum(0)).reshape(-1)
    for source, other, counts in pairs_that_meet(met):
        kept = (counts >= min_count) & (((source < num_x) != (other < num_x)) == across)
        source, other = source[kept], other[kept]
        _fill(table, source, other, counts[kept] / np.sqrt(occurrences[source] * occurrences[other]))
    return table


def _following(train: Sequences, num_x: int, num_items: int, top: int, min_count: int) -> np.ndarray:
    """(N, T) items that most often come next in the same domain of a sequence."""
    parts = [successors(train, member) for member in domain_members(train.items, num_x)]
    pairs = np.concatenate([np.stack(part, 1) for part in parts])
    found, counts = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0, return_counts=True)
    kept = counts >= min_count
    table = np.full((num_items, top), num_items, dtype=np.int32)
    _fill(table, found[kept, 0], found[kept, 1], counts[kept])
    return table


def _similar_text(text: FeatureMatrix | None, num_x: int, num_items: int, top: int) -> np.ndarray:
    """(N, T) items of the same domain with the most similar text, by brute force in blocks."""
    table = np.full((num_items, top), num_items, dtype=np.int32)
    if text is None:
        return table
    for low, high in ((0, num_x), (num_x, num_items)):
        known = low + np.flatnonzero(text.has[low:high])
        rows = np.asarray(text.rows[known], dtype=np.float32)
        for start in range(0, len(known), BLOCK_ITEMS):
            cosine = rows[start : start + BLOCK_ITEMS] @ rows.T
            cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = -np.inf
            count = min(top, len(known) - 1)
            if not count:
                continue
            best = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
            source = np.repeat(known[start : start + BLOCK_ITEMS], count)
            _fill(table, source, known[best].reshape(-1), np.take_along_axis(cosine, best, 1).reshape(-1))
    return table


def _fill(table: np.ndarray, source: np.ndarray, other: np.ndarray, strength: np.ndarray) -> None:
    """Write the strongest of each source into its row; of equal ones the lower id."""
    kept, place = largest_in_row(source, other, strength, table.shape[1])
    table[source[kept], place] = other[kept]
