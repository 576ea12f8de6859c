"""The stored candidates of a scenario's cases, by one of two protocols."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmemf.errors import InputError
from llmemf.scenarios.negatives import draw_candidates
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
            of all items of the target's domain but the target, the user's own included (`negatives.draw_candidates`);
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
