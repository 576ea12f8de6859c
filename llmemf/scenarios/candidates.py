"""The stored candidates of a scenario's cases: the negatives that every target is ranked against, by one of two protocols."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmemf.errors import InputError
from llmemf.scenarios.reader_options import CandidateOptions
from llmemf.scenarios.sequences import Sequences, distinct_items


def stored_candidates(
    splits: Mapping[str, Sequences], num_x: int, num_items: int, options: CandidateOptions
) -> dict[str, np.ndarray]:
    """Draw the negatives of all validation and test cases.

    Args:
        splits: train, valid and test.
        num_x: number of items of domain X.
        num_items: number of items of both domains.
        options: how many (where fewer items are left, all of them), the seed, and the way: `c2dsr`, with replacement out
            of all items of the target's domain but the target, the user's own included (`draw_candidates`);
            `distinct_unseen`, distinct ones that no split holds for the user (ABXI).

    Returns:
        for "valid" and "test" (cases, C) int32 global ids, rows with fewer than C end in -1.

    Raises:
        InputError: a case has nothing to be ranked against.
    """
    count, seed = options.candidates, options.candidate_seed
    if options.candidate_draw == "c2dsr":
        return {
            part: draw_candidates(splits[part].targets, num_x, num_items, count, seed, part)
            for part in ("valid", "test")
        }
    users = np.concatenate([part.users_by_item for part in splits.values()])
    items = np.concatenate([part.items for part in splits.values()])
    met = distinct_items(users, items, int(users.max()) + 1, num_items)
    return {
        part: _distinct_unseen(splits[part], met, num_x, num_items, count, seed, part) for part in ("valid", "test")
    }


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


def _distinct_unseen(
    cases: Sequences,
    met: tuple[np.ndarray, np.ndarray],
    num_x: int,
    num_items: int,
    count: int,
    seed: int,
    part: str,
) -> np.ndarray:
    offsets, items = met
    generator = np.random.default_rng([seed, *part.encode()])
    rows = []
    for user, target in zip(cases.users, cases.targets):
        first, size = (num_x, num_items - num_x) if target >= num_x else (0, num_x)
        own = items[offsets[user] : offsets[user + 1]] - first
        own = own[(own >= 0) & (own < size)]
        # So many distinct draws hold `count` others, or all there are.
        drawn = generator.choice(size, min(size, count + len(own)), replace=False)
        rows.append(drawn[~np.isin(drawn, own)][:count] + first)
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int32)
    for line, row in zip(table, rows):
        line[: len(row)] = row
    if not (table >= 0).any(axis=1).all():
        case = int((table >= 0).any(axis=1).argmin())
        raise InputError(
            f"the user of {part} case {case} has met every item of the target's domain: nothing is left for "
            "--candidate-draw distinct_unseen; take c2dsr"
        )
    return table
