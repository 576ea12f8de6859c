"""Windows: against a loop that follows the definition, the published facts, and the published windows themselves."""

from __future__ import annotations

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.scenarios.reader_options import WindowLimits
from llmemf.scenarios.window_cutter import SECONDS_PER_DAY, cut_windows
from llmemf.scenarios.windows import in_time_order, read_sequence_file

PUBLISHED = WindowLimits()


def generated(seed, num_users=60, day=SECONDS_PER_DAY):
    """Users with bursts of interactions, most in both domains, some times equal."""
    rng = np.random.default_rng(seed)
    users, in_y, times = [], [], []
    for user in range(num_users):
        count = int(rng.integers(1, 90))
        starts = rng.integers(0, 2000, size=4)
        days = np.sort(starts[rng.integers(0, 4, size=count)] + rng.integers(0, 40, size=count))
        users += [user] * count
        in_y += (rng.random(count) < rng.choice([0.1, 0.5, 0.7])).tolist()
        times += (10**9 + days * day).tolist()
    return np.array(users), np.array(in_y), np.array(times)


def by_definition(users, in_y, times, limits):
    """The docstring of `window_cutter`, word by word."""
    windows = []
    for user in np.unique(users):
        rest = [index for index in range(len(users)) if users[index] == user]
        while rest:
            window = [
                index
                for index in rest[: limits.max_length]
                if limits.max_days is None or times[index] - times[rest[0]] <= limits.max_days * SECONDS_PER_DAY
            ]
            num_y = sum(in_y[index] for index in window)
            if len(window) >= limits.min_length and min(num_y, len(window) - num_y) >= limits.min_per_domain:
                windows.append((window[0], window[-1] + 1))
                rest = rest[len(window) :]
            else:
                rest = rest[1:]
    return windows


@pytest.mark.parametrize(
    "limits",
    [
        PUBLISHED,
        WindowLimits(max_days=365),
        WindowLimits(max_days=None),
        WindowLimits(1, 2, 3, 0.5),
        WindowLimits(0, 4, 5, 10),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_windows_follow_their_definition(limits, seed):
    data = generated(seed)
    starts, ends = cut_windows(*data, limits)
    assert list(zip(starts.tolist(), ends.tolist())) == by_definition(*data, limits)
    assert len(starts) > 5


@pytest.mark.parametrize("seed", range(5))
def test_published_facts_hold(seed):
    """Structure of the published Movie-Book windows: 6 to 15 items, 3 of each domain, 30 days, in order, apart."""
    users, in_y, times = generated(seed, 300)
    starts, ends = cut_windows(users, in_y, times, PUBLISHED)
    assert len(starts) > 100
    assert (starts[1:] >= ends[:-1]).all()
    lengths = ends - starts
    assert lengths.min() >= 6 and lengths.max() <= 15
    for start, end in zip(starts, ends):
        assert len(set(users[start:end])) == 1
        assert 3 <= in_y[start:end].sum() <= end - start - 3
        assert times[end - 1] - times[start] <= 30 * SECONDS_PER_DAY


def test_no_interaction_no_window():
    nothing = np.zeros(0, dtype=np.int64)
    assert [len(part) for part in cut_windows(nothing, nothing.astype(bool), nothing, PUBLISHED)] == [0, 0]


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        ((3, 6, 5, 30), "cannot hold 6"),
        ((4, 2, 7, 30), "cannot hold 8"),
        ((0, 1, 5, 30), "--min-length 1"),
        ((-1, 2, 5, 30), "--min-per-domain"),
        ((1, 2, 5, -1.0), "--max-days -1.0"),
    ],
)
def test_impossible_limits_are_told(limits, part):
    with pytest.raises(InputError, match=part):
        WindowLimits(*limits)


@pytest.mark.data
def test_published_windows_are_found_as_they_are(real_data):
    """Every published window is what the cutter makes of its interactions, whatever their order inside a day."""
    folder = real_data / "movie_book"
    num_x = (folder / "items_x.txt").read_bytes().count(b"\n")
    for name, count in (("val_new.txt", 7644), ("test_new.txt", 7708)):
        windows = in_time_order(read_sequence_file(folder / name, 100_782))
        assert len(windows) == count == len(np.unique(windows.users))
        order = np.argsort(windows.users, kind="stable")
        rows = np.concatenate([np.arange(windows.offsets[i], windows.offsets[i + 1]) for i in order])
        users = np.repeat(windows.users[order], windows.lengths[order])
        starts, ends = cut_windows(users, windows.items[rows] >= num_x, windows.times[rows], PUBLISHED)
        assert np.array_equal(starts, np.cumsum(windows.lengths[order]) - windows.lengths[order])
        assert np.array_equal(ends - starts, windows.lengths[order])
