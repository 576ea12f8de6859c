"""Cut users' histories into windows as the published data has them.

A published window holds 6 to 15 items, at least 3 of each domain, none of them twice, within 30 days (Movie-Book) or
365 days (Food-Kitchen). How they were cut is not published; here a window takes, from its first interaction on, all
that follow within the limits. If that is no legal window, its first interaction is given up and the next one tried;
if it is one, the next window begins behind it. So windows of a user do not overlap, and a legal window whose
neighbours are far away is found as it is.
"""

from __future__ import annotations

import numpy as np

from llmemf.scenarios.reader_options import WindowLimits

SECONDS_PER_DAY = 86400


def cut_windows(
    users: np.ndarray, in_y: np.ndarray, times: np.ndarray, limits: WindowLimits
) -> tuple[np.ndarray, np.ndarray]:
    """First interaction of every window, and the one behind its last.

    Args:
        users: (n,) sorted.
        in_y: (n,) bool, is it of domain Y?
        times: (n,) Unix seconds, sorted inside every user.
        limits: what is legal.

    Returns:
        starts, ends: (w,) int64 each; windows in the order of the interactions.
    """
    count = len(users)
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    index = np.arange(count)
    user_first = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]]))
    user_end = np.append(user_first[1:], count)[np.cumsum(np.isin(index, user_first)) - 1]
    ends = np.minimum(index + limits.max_length, user_end)
    if limits.max_days is not None:
        ends = np.minimum(ends, _ends_in_time(users, times, int(limits.max_days * SECONDS_PER_DAY)))
    before_y = np.concatenate([[0], np.cumsum(in_y)])
    num_y = before_y[ends] - before_y[index]
    num_x = ends - index - num_y
    legal = (ends - index >= limits.min_length) & (np.minimum(num_x, num_y) >= limits.min_per_domain)
    next_legal = np.append(np.where(legal, index, count), count)
    next_legal = np.minimum.accumulate(next_legal[::-1])[::-1].tolist()
    end_of = ends.tolist()
    found: list[int] = []
    start = next_legal[0]
    while start < count:
        found.append(start)
        start = next_legal[end_of[start]]
    starts = np.asarray(found, dtype=np.int64)
    return starts, ends[starts]


def _ends_in_time(users: np.ndarray, times: np.ndarray, seconds: int) -> np.ndarray:
    """(n,) index behind the last interaction of the same user that is at most `seconds` later."""
    # Users become far apart on one common axis of time, so that a single search serves all.
    relative = times - times.min()
    number = np.cumsum(np.concatenate([[0], users[1:] != users[:-1]]))
    axis = relative + number * (int(relative.max()) + seconds + 1)
    return np.searchsorted(axis, axis + seconds, side="right")
