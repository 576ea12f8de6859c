"""Stored evaluation candidates: the negatives that every target is ranked against."""

from __future__ import annotations

import numpy as np

from llmemf.errors import InputError


def draw_candidates(
    targets: np.ndarray, num_x: int, num_items: int, count: int = 999, seed: int = 0, split: str = "valid"
) -> np.ndarray:
    """Draw the negatives of every case from the domain of its target.

    The published protocol: uniform, with replacement, every item of the target's domain except the target itself;
    history items and duplicates are not excluded. A domain with at most `count` other items gives all of them, once
    each and in order. The draw depends on the arguments alone, so it can be repeated from the manifest.

    Args:
        targets: (S,) global item ids.
        num_x: number of items of domain X.
        num_items: number of items of both domains.
        count: negatives per case.
        seed: seed of the draw.
        split: name of the split; splits of one scenario get different draws from one seed.

    Returns:
        (S, C) int32 global ids; C is the larger of both domains' numbers of negatives, rows with fewer end in -1.

    Raises:
        InputError: `count` is below 1, or a target is the only item of its domain.
    """
    if count < 1:
        raise InputError(f"{count} candidates per case were asked for; at least 1 is needed (--candidates)")
    targets = np.asarray(targets, dtype=np.int64)
    generator = np.random.default_rng([seed, *split.encode()])
    domains = ((0, num_x), (num_x, num_items - num_x))
    width = max(min(count, size - 1) for _, size in domains)
    table = np.full((len(targets), width), -1, dtype=np.int32)
    for first, size in domains:
        rows = np.flatnonzero((targets >= first) & (targets < first + size))
        if not len(rows):
            continue
        if size < 2:
            raise InputError(f"item {first} is the only one of its domain: there is nothing to rank it against")
        local = (targets[rows] - first)[:, None]
        if size - 1 <= count:
            draws = np.broadcast_to(np.arange(size - 1), (len(rows), size - 1))
        else:
            draws = generator.integers(0, size - 1, size=(len(rows), count), dtype=np.int32)
        # Draws skip the target by moving everything from it on by one, which keeps the rest uniform.
        table[rows, : draws.shape[1]] = draws + (draws >= local) + first
    return table
