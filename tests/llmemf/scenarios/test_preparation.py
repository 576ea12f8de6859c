"""From many generated interactions to a scenario: filter and split against plain loops, and no leak whatever the options."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from llmemf.errors import InputError
from llmemf.scenarios.audit import audit
from llmemf.scenarios.interaction_filter import drop_repeats, enough_interactions
from llmemf.scenarios.interactions import InteractionCollector, Interactions
from llmemf.scenarios.preparation import PreparationReport, prepare
from llmemf.scenarios.reader_options import PreparationOptions, WindowLimits
from llmemf.scenarios.splits import TEST, TRAIN, VALID, split_windows

DAY = 86400
BASE = {"min_user": 5, "min_item": 3, "candidates": 20}


def generated(seed: int, count: int = 20_000) -> Interactions:
    """Popular and rare items, busy and idle users, bursts in time, repeats and doubles."""
    rng = np.random.default_rng(seed)
    users = rng.zipf(1.3, size=count) % 400
    items = rng.zipf(1.2, size=count) % 300
    times = 10**9 + (users * 37 % 900 + rng.integers(0, 4, size=count) * 200 + rng.integers(0, 25, size=count)) * DAY
    names = np.array([f"u{number}" for number in range(400)], dtype=object)
    item_names = np.array([f"i{number}" for number in range(300)], dtype=object)
    return Interactions(users.astype(np.int32), items.astype(np.int32), times, names, item_names, 120)


def prepared(interactions: Interactions, **options):
    report = PreparationReport()
    with InteractionCollector() as collector:
        for domain in (0, 1):
            rows = np.flatnonzero((interactions.items >= interactions.num_x) == domain)
            for part in np.array_split(rows, 7):
                users = pa.array(interactions.user_names[interactions.users[part]], pa.string())
                items = pa.array(interactions.item_names[interactions.items[part]], pa.string())
                collector.add(domain, users, items, interactions.times[part])
        scenario = prepare(
            collector,
            lambda names: [{}, {}],
            "made",
            ("film", "book"),
            PreparationOptions(**(BASE | options)),
            report,
            "test",
        )
    scenario.validate()
    return scenario, report


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split": "timeline"},
        {"tie_break": "file"},
        {"tie_break": "drop"},
        {"repeats": "last"},
        {"filter": "once"},
        vars(WindowLimits(1, 3, 30, None)) | {"split": "timeline", "eval_share": 0.25},
        vars(WindowLimits(0, 2, 5, 7)),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(2))
def test_no_leak_and_nothing_lost(options, seed):
    scenario, report = prepared(generated(seed), **options)
    facts = audit(scenario)
    assert facts.leaks == [] and facts.leak_facts["test"].repeats == 0
    dropped = np.sum(list(report.dropped.values()), axis=0)
    assert (np.add(dropped, report.left) == report.read).all() and sum(report.read) == 20_000
    in_splits = sum(len(scenario.split(name).items) for name in ("train", "valid", "test"))
    if options.get("tie_break") == "drop":
        assert report.facts["cases_dropped_as_ties"] > 0
    else:
        assert in_splits == sum(report.left)
        held = np.unique(np.concatenate([scenario.split(name).items for name in ("train", "valid", "test")]))
        assert len(held) == scenario.num_items, "every item is in a window"


def test_interactions_of_a_scenario_are_those_that_were_read():
    interactions = generated(3)
    scenario, _ = prepared(interactions)
    read = set(
        zip(
            interactions.user_names[interactions.users],
            interactions.item_names[interactions.items],
            interactions.times.tolist(),
        )
    )
    names = scenario.items.external_id.to_numpy()
    for name in ("train", "valid", "test"):
        part = scenario.split(name)
        users = scenario.user_ids[np.repeat(part.users, part.lengths)]
        assert set(zip(users, names[part.items], part.times.tolist())) <= read
        assert all((np.diff(part.times[a:b]) >= 0).all() for a, b in zip(part.offsets[:-1], part.offsets[1:]))
    in_x = [int(name[1:]) < 120 for name in names]
    assert in_x == [index < scenario.num_x for index in range(len(names))]


@pytest.mark.parametrize("kind", ["core", "once"])
def test_filter_equals_a_plain_loop(kind):
    interactions, _, _ = drop_repeats(generated(4))
    kept, rounds = enough_interactions(interactions, 12, 9, kind)
    rows = list(zip(interactions.users.tolist(), interactions.items.tolist()))
    loops = 0
    while True:
        of_user, of_item = Counter(user for user, _ in rows), Counter(item for _, item in rows)
        both = {u for u, i in rows if i < 120} & {u for u, i in rows if i >= 120}
        count_again = kind == "core" or loops == 0
        fewer = [(u, i) for u, i in rows if u in both and (not count_again or (of_user[u] >= 12 and of_item[i] >= 9))]
        loops += 1
        if fewer == rows:
            break
        rows = fewer
    assert list(zip(kept.users.tolist(), kept.items.tolist())) == rows and rounds == loops
    if kind == "core":
        assert min(of_user.values()) >= 12 and min(of_item.values()) >= 9 and loops > 2


@pytest.mark.parametrize(("keep", "wanted"), [("first", [0, 2, 4]), ("last", [2, 3, 4])])
def test_repeats(keep, wanted):
    """User 0 takes item 1 at 5, at 9, and at 5 again; rows keep their order."""
    users, items, times = np.array([0, 0, 0, 0, 1]), np.array([1, 1, 2, 1, 1]), np.array([5, 5, 7, 9, 5])
    names = np.array(["a", "b", "c"], dtype=object)
    kept, doubles, repeats = drop_repeats(Interactions(users, items, times, names, names, 2), keep)
    assert list(zip(kept.users, kept.items, kept.times)) == [(users[i], items[i], times[i]) for i in wanted]
    assert doubles.tolist() == [1, 0] and repeats.tolist() == [1, 0]


def test_latest_windows_are_evaluated_one_per_user():
    users = np.repeat(np.arange(101), 3)
    parts = split_windows(users, np.zeros(303), "latest", seed=1)
    assert (parts.reshape(101, 3)[:, :2] == TRAIN).all()
    latest = parts.reshape(101, 3)[:, 2]
    assert ((latest == VALID).sum(), (latest == TEST).sum()) == (50, 51)
    assert not np.array_equal(split_windows(users, np.zeros(303), "latest", seed=2), parts)


def test_timeline_is_a_line():
    ends = np.random.default_rng(0).integers(0, 500, size=1000)
    parts = split_windows(np.zeros(1000), ends, "timeline", 0.1)
    assert ends[parts == TRAIN].max() < ends[parts == VALID].min()
    assert ends[parts == VALID].max() < ends[parts == TEST].min()
    assert 100 <= (parts == TEST).sum() < 110 and 90 < (parts == VALID).sum() < 110


def test_an_empty_part_is_told():
    with pytest.raises(InputError, match="no window for training .only users with two windows"):
        split_windows(np.arange(5), np.arange(5), "latest")
    with pytest.raises(InputError, match="no window for training .change --eval-share"):
        split_windows(np.arange(2), np.arange(2), "timeline", 0.4)


def test_colliding_names_are_noticed(monkeypatch):
    """Were two names ever to share a key, the scenario would mix two users; here all users do."""
    import llmemf.scenarios.interactions as module

    real = pd.util.hash_array
    monkeypatch.setattr(
        module.pd.util,
        "hash_array",
        lambda values, **more: real(np.where([v[0] == "u" for v in values], "u", values).astype(object), **more),
    )
    with pytest.raises(InputError, match="share a 64-bit hash.*--hash-seed"):
        prepared(generated(0))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"filter": "most"}, "--filter 'most': choose one of core, once"),
        ({"tie_break": "none"}, "--tie-break"),
        ({"eval_share": 0.5}, "--eval-share 0.5"),
        ({"max_bad_lines": 1.0}, "--max-bad-lines"),
        ({"hash_seed": 1000}, "--hash-seed"),
    ],
)
def test_wrong_options_are_told(options, part):
    with pytest.raises(InputError, match=part):
        PreparationOptions(**options)


def test_no_window_is_told():
    with pytest.raises(InputError, match="hold no window of 90 to 99 items with 45 of each domain within 1 days"):
        prepared(generated(0), **vars(WindowLimits(45, 90, 99, 1)))
