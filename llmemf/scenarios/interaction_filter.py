"""Which interactions stay: one per user and item, and users and items with enough of them."""

from __future__ import annotations

import numpy as np

from llmemf.errors import InputError
from llmemf.scenarios.interactions import Interactions
from llmemf.scenarios.reader_options import Filter, Repeats


def drop_repeats(interactions: Interactions, keep: Repeats = "first") -> tuple[Interactions, np.ndarray, np.ndarray]:
    """Keep one interaction per user and item: published windows repeat none.

    Args:
        interactions: in the order of the files.
        keep: the earliest or the latest of them.

    Returns:
        The rest in its old order, and two counts (X, Y): dropped with the same time as another interaction of that
        user and item that stands before (doubles of one review), and dropped with a time of their own.
    """
    order = np.lexsort((interactions.times, interactions.items, interactions.users))
    users, items, times = interactions.users[order], interactions.items[order], interactions.times[order]
    same_pair = (users[1:] == users[:-1]) & (items[1:] == items[:-1])
    later = np.concatenate([[False], same_pair])
    double = np.concatenate([[False], same_pair & (times[1:] == times[:-1])])
    drop = later if keep == "first" else np.concatenate([same_pair, [False]])
    staying = np.zeros(len(order), dtype=bool)
    staying[order[~drop]] = True
    in_y = (items >= interactions.num_x).astype(np.int64)
    doubles = np.bincount(in_y[double], minlength=2)
    return interactions.where(staying), doubles, np.bincount(in_y[later], minlength=2) - doubles


def enough_interactions(
    interactions: Interactions,
    min_user: int = 10,
    min_item: int = 10,
    kind: Filter = "core",
) -> tuple[Interactions, int]:
    """Keep users and items that have enough interactions, and users of both domains.

    A user's interactions count over both domains, an item's over the users who are active in both. `core` repeats
    the filter until nothing changes, so that what is promised holds for what is left; `once` counts a single time
    (users and items at once) and then only sees to it that users keep both domains.

    Returns:
        The rest, and the number of rounds.

    Raises:
        InputError: nothing is left.
    """
    num_users, num_items = len(interactions.user_names), len(interactions.item_names)
    rounds = 0
    while True:
        in_y = interactions.items >= interactions.num_x
        of_user = np.bincount(interactions.users, minlength=num_users)
        of_user_in_y = np.bincount(interactions.users[in_y], minlength=num_users)
        of_item = np.bincount(interactions.items, minlength=num_items)
        good_user = (of_user_in_y > 0) & (of_user > of_user_in_y)
        good_item = np.ones(num_items, dtype=bool)
        if kind == "core" or rounds == 0:
            good_user &= of_user >= min_user
            good_item = of_item >= min_item
        staying = good_user[interactions.users] & good_item[interactions.items]
        if not staying.any():
            raise InputError(
                f"no interaction is left of users with {min_user} and items with {min_item} interactions or more in "
                f"round {rounds + 1} ({len(interactions):,} before it): lower --min-user and --min-item, or --filter once"
            )
        rounds += 1
        if staying.all():
            return interactions, rounds
        interactions = interactions.where(staying)
