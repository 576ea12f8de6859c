"""The generative process of the embedded sample: who takes what, when, and why.

Every item has four hidden traits, drawn independently of each other:

* theme: a main and a second one of 12; told by title and description only (`sample_texts`);
* style: one of 12; shown by the cover only (`sample_covers`);
* community: one of 24 circles of readers and viewers; visible nowhere, it only shows in who takes what together;
* successors: one item of each domain that people tend to take next; visible nowhere either.

Every user has a taste: a few favourite themes, styles and communities, with weights. A window (6 to 15 items of both
domains within some weeks, at least 3 of each) starts in a mood drawn from the taste: one theme, one style, one
community. Before every further item each part of the mood may be drawn anew from the taste, and the community may step
to the next one of a hidden cycle. The mood belongs to the user, not to a domain, while the domain comes in runs: after
a run the last items of the *other* domain know the mood better than the domain's own last ones. An item not yet taken
by the user is then drawn with probability proportional to

    popularity(item, time) * exp(THEME_PULL * theme match + STYLE_PULL * same style + COMMUNITY_PULL * same community
                                 + SUCCESSOR_PULL * is a successor of the item before)

Thus text, covers, co-occurrence and the other domain each tell something that the others do not. Popularity is
log-normal; three items in ten are released late, so that they are rare or absent in training and only their content
speaks for them.

A user has 0 to 5 training windows, then one validation window, then one test window. The three splits lie in three
consecutive periods: no training interaction of anybody is later than a validation target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmemf.scenarios.sample_covers import STYLES
from llmemf.scenarios.sample_texts import NUM_THEMES

NUM_USERS, NUM_FILMS, NUM_BOOKS = 2000, 700, 800
NUM_ITEMS = NUM_FILMS + NUM_BOOKS
NUM_COMMUNITIES = 24

THEME_PULL, SECOND_THEME, STYLE_PULL, COMMUNITY_PULL, SUCCESSOR_PULL = 3.8, 0.45, 3.6, 3.3, 5.3
"""Logarithms of how much likelier a match makes an item; `SECOND_THEME` scales the first for the second theme."""
FAVOURITES = (2, 2, 3)
"""How many themes, styles and communities a user prefers."""
REDRAW = (0.10, 0.10, 0.08)
"""Probability per item that the mood's theme, style and community are drawn anew."""
NEXT_COMMUNITY = 0.20
"""Probability per item that the mood's community moves on along the hidden cycle."""
STAY_IN_DOMAIN = 0.62
POPULARITY_SPREAD, LATE_ITEMS = 0.6, 0.3

TRAIN_WINDOWS = (0.08, 0.18, 0.22, 0.22, 0.18, 0.12)
"""Share of users with 0, 1, ... training windows."""
MIN_LENGTH, MAX_LENGTH, MIN_PER_DOMAIN = 6, 15, 3
START, DAY, NUM_DAYS = 1_609_459_200, 86_400, 730
"""The sample's time runs from 2021-01-01 (Unix seconds) over two years."""
PERIODS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


@dataclass(frozen=True)
class Traits:
    """What is hidden in the items; never written to disk.

    Attributes:
        theme, second_theme, style, community: (num_items,) int.
        successors: (num_items, 2) int global ids: one film, one book.
        popularity: (num_items,) float.
        release: (num_items,) float, as a share of the sample's time.
    """

    theme: np.ndarray
    second_theme: np.ndarray
    style: np.ndarray
    community: np.ndarray
    successors: np.ndarray
    popularity: np.ndarray
    release: np.ndarray


def draw_traits(seed: int = 0) -> Traits:
    """Draw the hidden traits of all items, balanced within each domain."""
    rng = np.random.default_rng([seed, 1])
    theme, style = _balanced(NUM_THEMES, rng), _balanced(len(STYLES), rng)
    late = rng.random(NUM_ITEMS) < LATE_ITEMS
    return Traits(
        theme=theme,
        second_theme=(theme + rng.integers(1, NUM_THEMES, NUM_ITEMS)) % NUM_THEMES,
        style=style,
        community=_balanced(NUM_COMMUNITIES, rng),
        successors=np.stack([_successors(0, NUM_FILMS, rng), _successors(NUM_FILMS, NUM_ITEMS, rng)], axis=1),
        popularity=np.exp(POPULARITY_SPREAD * rng.standard_normal(NUM_ITEMS)),
        release=np.where(late, rng.uniform(0.35, 0.85, NUM_ITEMS), 0.0),
    )


def _balanced(count: int, rng: np.random.Generator) -> np.ndarray:
    """(num_items,) labels 0..count-1, equally frequent in both domains, in random order."""
    return np.concatenate([rng.permutation(np.arange(size) % count) for size in (NUM_FILMS, NUM_BOOKS)])


def _successors(first: int, end: int, rng: np.random.Generator) -> np.ndarray:
    """(num_items,) for every item one item of `first..end-1`, never itself, each used about equally often."""
    chosen = np.resize(rng.permutation(np.arange(first, end)), NUM_ITEMS)[rng.permutation(NUM_ITEMS)]
    itself = chosen == np.arange(NUM_ITEMS)
    return np.where(itself, first + (chosen - first + 1) % (end - first), chosen)


@dataclass
class Windows:
    """All windows of the sample; row w is one window, its first `length[w]` columns are used.

    Attributes:
        user, slot: (W,) int; slot 0..4 are training windows, then `VALID_SLOT`, `TEST_SLOT`.
        length: (W,) int.
        domain, items: (W, MAX_LENGTH) int.
        times: (W, MAX_LENGTH) int Unix seconds, strictly increasing.
    """

    user: np.ndarray
    slot: np.ndarray
    length: np.ndarray
    domain: np.ndarray
    items: np.ndarray
    times: np.ndarray


VALID_SLOT = len(TRAIN_WINDOWS) - 1
TEST_SLOT = VALID_SLOT + 1


def draw_windows(traits: Traits, seed: int = 0) -> Windows:
    """Let every user live through all windows, slot by slot; the users of a slot advance in step."""
    rng = np.random.default_rng([seed, 2])
    windows = _plan(rng)
    tastes = [
        _tastes(count, favourites, rng)
        for count, favourites in zip((NUM_THEMES, len(STYLES), NUM_COMMUNITIES), FAVOURITES)
    ]
    pulls = _pulls(traits)
    taken = np.zeros((NUM_USERS, NUM_ITEMS), dtype=bool)
    for slot in range(TEST_SLOT + 1):
        rows = np.flatnonzero(windows.slot == slot)
        mood = _moods(tastes, windows.user[rows], rng)
        for step in range(MAX_LENGTH):
            still = windows.length[rows] > step
            rows, mood = rows[still], mood[still]
            if step:
                mood = _drift(mood, tastes, windows.user[rows], rng)
            for domain, (first, end) in enumerate(((0, NUM_FILMS), (NUM_FILMS, NUM_ITEMS))):
                of_domain = windows.domain[rows, step] == domain
                now, users = rows[of_domain], windows.user[rows[of_domain]]
                weights = _popularity(traits, windows.times[now, step], first, end)
                for pull, label in zip(pulls, mood[of_domain].T):
                    weights *= pull[label, first:end]
                if step:
                    following = traits.successors[windows.items[now, step - 1], domain] - first
                    weights[np.arange(len(now)), following] *= np.exp(SUCCESSOR_PULL)
                weights[taken[users, first:end]] = 0.0
                chosen = first + _draw(weights, rng)
                windows.items[now, step] = chosen
                taken[users, chosen] = True
    return windows


def _pulls(traits: Traits) -> list[np.ndarray]:
    """(labels, num_items) for theme, style, community: how much likelier an item is in a mood of that label."""
    every = np.arange(NUM_ITEMS)
    theme = np.ones((NUM_THEMES, NUM_ITEMS))
    theme[traits.theme, every] = np.exp(THEME_PULL)
    theme[traits.second_theme, every] = np.exp(THEME_PULL * SECOND_THEME)
    style = np.where(np.arange(len(STYLES))[:, None] == traits.style, np.exp(STYLE_PULL), 1.0)
    community = np.where(np.arange(NUM_COMMUNITIES)[:, None] == traits.community, np.exp(COMMUNITY_PULL), 1.0)
    return [theme, style, community]


def _plan(rng: np.random.Generator) -> Windows:
    """Who has which windows, how long they are, when each item is taken and of which domain it is."""
    counts = rng.choice(len(TRAIN_WINDOWS), size=NUM_USERS, p=TRAIN_WINDOWS)
    user, slot, begin = [], [], []
    for number, count in enumerate(counts):
        first, last = PERIODS["train"]
        share = (last - first) / max(count, 1)
        starts = [(index, first + share * index, share) for index in range(count)]
        for index, name in ((VALID_SLOT, "valid"), (TEST_SLOT, "test")):
            starts.append((index, PERIODS[name][0], PERIODS[name][1] - PERIODS[name][0]))
        for index, start, room in starts:
            user.append(number)
            slot.append(index)
            begin.append(START + NUM_DAYS * DAY * start + rng.random() * (NUM_DAYS * room - 32) * DAY)
    total = len(user)
    lengths = rng.choice(
        np.arange(MIN_LENGTH, MAX_LENGTH + 1), size=total, p=np.array([18, 17, 15, 13, 11, 9, 7, 5, 3, 2]) / 100
    )
    gaps = np.minimum(3600 + rng.exponential(1.2 * DAY, (total, MAX_LENGTH)), 2 * DAY).astype(np.int64)
    domain = np.zeros((total, MAX_LENGTH), dtype=np.int64)
    for row, length in enumerate(lengths):
        while True:
            switches = rng.random(length) >= STAY_IN_DOMAIN
            run = (np.cumsum(switches) + rng.integers(2)) % 2
            if MIN_PER_DOMAIN <= run.sum() <= length - MIN_PER_DOMAIN:
                break
        domain[row, :length] = run
    return Windows(
        user=np.array(user),
        slot=np.array(slot),
        length=lengths,
        domain=domain,
        items=np.full((total, MAX_LENGTH), -1),
        times=np.array(begin).astype(np.int64)[:, None] + np.cumsum(gaps, axis=1),
    )


def _tastes(count: int, favourites: int, rng: np.random.Generator) -> np.ndarray:
    """(num_users, count) cumulative probabilities: a few favourites hold nine tenths of the weight."""
    taste = np.full((NUM_USERS, count), 0.1 / count)
    strength = rng.dirichlet(np.full(favourites, 2.0), NUM_USERS)
    for user in range(NUM_USERS):
        taste[user, rng.permutation(count)[:favourites]] += 0.9 * strength[user]
    return np.cumsum(taste, axis=1)


def _moods(tastes: list[np.ndarray], users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(len(users), 3) one theme, style and community from each user's taste."""
    drawn = [(taste[users] < rng.random(len(users))[:, None]).sum(axis=1) for taste in tastes]
    return np.stack([np.minimum(part, taste.shape[1] - 1) for part, taste in zip(drawn, tastes)], axis=1)


def _drift(mood: np.ndarray, tastes: list[np.ndarray], users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    fresh = _moods(tastes, users, rng)
    redrawn = rng.random(mood.shape) < np.array(REDRAW)
    moved = mood.copy()
    moved[:, 2] = (mood[:, 2] + (rng.random(len(mood)) < NEXT_COMMUNITY)) % NUM_COMMUNITIES
    return np.where(redrawn, fresh, moved)


def _popularity(traits: Traits, times: np.ndarray, first: int, end: int) -> np.ndarray:
    """(len(times), end - first) popularity of a domain's items, zero before their release."""
    released = ((times - START) / (NUM_DAYS * DAY))[:, None] >= traits.release[first:end]
    return released * traits.popularity[first:end]


def _draw(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column per row, with probability proportional to the weights."""
    cumulative = np.cumsum(weights, axis=1)
    return (cumulative <= (rng.random(len(weights)) * cumulative[:, -1])[:, None]).sum(axis=1)
