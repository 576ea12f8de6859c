"""The audit: every kind of leak is found, natural repeats are not, and counts equal plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmemf.scenarios.audit import Lengths, audit
from llmemf.scenarios.candidates import draw_candidates
from llmemf.scenarios.sample import make_sample
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

DAY = 86400
NUM_X, NUM_ITEMS = 20, 60


def build(train, valid, test, timed=True) -> Scenario:
    """A scenario of rows (user, [(item, day), ...])."""

    def sequences(rows) -> Sequences:
        times = [[day * DAY for _, day in row] for _, row in rows] if timed else None
        return Sequences.from_rows([user for user, _ in rows], [[item for item, _ in row] for _, row in rows], times)

    parts = {"train": sequences(train), "valid": sequences(valid), "test": sequences(test)}
    users = 1 + max(int(part.users.max()) for part in parts.values())
    return Scenario(
        name="tiny",
        domains=("movie", "book"),
        num_x=NUM_X,
        items=pd.DataFrame({c: [""] * NUM_ITEMS for c in ("external_id", "title", "description", "image")}),
        user_ids=np.arange(users).astype(str).astype(object),
        candidates={
            name: draw_candidates(parts[name].targets, NUM_X, NUM_ITEMS, 15, 0, name) for name in ("valid", "test")
        },
        **parts,
    )


def test_a_domain_that_no_history_holds_is_told():
    x, y = [(0, 1), (1, 2), (2, 3)], [(30, 1), (31, 2), (32, 3)]
    mixed = [(0, x), (1, y)]
    assert audit(build(mixed, mixed, mixed)).absent == []
    found = audit(build([(0, x)], mixed, [(0, x)])).absent
    assert [("training" in note, "test" in note, "book" in note) for note in found] == [
        (True, False, True),
        (False, True, True),
    ]


# Users 0 and 1 have a training window before their evaluation window, user 2 has none.
TRAIN = [(0, [(0, 1), (30, 2), (1, 3)]), (1, [(31, 1), (2, 2)])]
VALID = [(1, [(3, 10), (32, 11), (33, 11)])]
TEST = [(0, [(4, 10), (34, 11), (5, 20)]), (2, [(6, 1), (35, 2), (36, 9)])]


def test_a_clean_scenario_has_no_leak():
    facts = audit(build(TRAIN, VALID, TEST))
    assert facts.leaks == []
    assert facts.leak_facts["test"].later_training == 0


def test_the_held_out_interaction_in_training_is_found():
    facts = audit(build([*TRAIN, (0, [(7, 19), (5, 20)])], VALID, TEST))
    assert facts.leak_facts["test"].target_in_training == 1
    assert facts.leaks == ["1 of 2 test cases have their target in a training sequence of the same user"]


def test_the_same_item_taken_by_another_user_or_earlier_is_no_leak():
    facts = audit(build([*TRAIN, (1, [(7, 1), (5, 3)]), (0, [(7, 3), (5, 4)])], VALID, TEST))
    assert facts.leaks == []


def test_the_held_out_interaction_in_validation_is_found():
    facts = audit(build(TRAIN, [*VALID, (0, [(4, 10), (5, 20)])], TEST))
    assert facts.leaks == ["1 of 2 test cases have their target in a validation sequence of the same user"]


def test_training_that_goes_on_after_the_target_is_found():
    facts = audit(build([*TRAIN, (0, [(7, 19), (8, 21)]), (1, [(9, 5), (10, 12)])], VALID, TEST))
    assert (facts.leak_facts["valid"].later_training, facts.leak_facts["test"].later_training) == (1, 1)
    assert "1 of 2 test cases have a training sequence of the same user that is later than their target" in facts.leaks


def test_the_target_in_its_input_is_a_leak_only_where_training_repeats_nothing():
    test = [(0, [(4, 10), (5, 19), (5, 20)]), TEST[1]]
    facts = audit(build(TRAIN, VALID, test))
    assert len(facts.leaks) == 1 and "1 of 2 test cases have their target in their own model input" in facts.leaks[0]
    natural = audit(build([*TRAIN, (1, [(9, 1), (9, 2)])], VALID, test))
    assert natural.leaks == [] and natural.leak_facts["test"].repeats == 1


def leave_last_out(histories, timed=False) -> Scenario:
    rows = [(user, [(item, day) for day, item in enumerate(items)]) for user, items in enumerate(histories)]
    train, valid, test = ([(user, row[: len(row) - end]) for user, row in rows] for end in (2, 1, 0))
    return build(train, valid, test, timed)


@pytest.mark.parametrize("timed", [False, True])
def test_repeats_in_plain_histories_are_no_leak(timed):
    facts = audit(leave_last_out([[1, 30, 1, 2, 1], [5, 6, 5, 31, 31], [7, 8, 9, 10]], timed))
    assert facts.leaks == []
    assert facts.leak_facts["test"].repeats == 2 and facts.leak_facts["valid"].repeats == 0
    assert facts.leak_facts["test"].later_training == (0 if timed else None)


def test_without_times_an_occurrence_that_the_history_does_not_explain_is_a_leak():
    clean = leave_last_out([[1, 30, 1, 2, 1], [5, 6, 5, 31, 32]])
    leaking = build(
        [(0, [(1, 0), (30, 0), (1, 0), (2, 0), (1, 0)]), (1, [(5, 0), (6, 0), (5, 0)])],
        [(0, [(1, 0), (30, 0), (1, 0), (2, 0)]), (1, [(5, 0), (6, 0), (5, 0), (31, 0)])],
        [(0, [(1, 0), (30, 0), (1, 0), (2, 0), (1, 0)]), (1, [(5, 0), (6, 0), (5, 0), (31, 0), (32, 0)])],
        timed=False,
    )
    assert audit(clean).leaks == []
    facts = audit(leaking)
    assert facts.leak_facts["test"].target_in_training == 1 and facts.leak_facts["valid"].target_in_training == 1


def test_counts_of_domains_and_splits():
    facts = audit(build(TRAIN, VALID, TEST))
    movie, book = facts.domains["movie"], facts.domains["book"]
    assert (movie.items, book.items) == (20, 40)
    assert (movie.items_in_training, book.items_in_training) == (3, 2)
    assert (movie.users, book.users) == (3, 3)
    assert movie.interactions == {"train": 3, "valid": 1, "test": 3}
    assert movie.targets == {"valid": 0, "test": 1} and book.targets == {"valid": 1, "test": 1}
    assert movie.cold_targets == {"valid": 0, "test": 1} and book.cold_targets == {"valid": 1, "test": 1}
    test = facts.splits["test"]
    assert (test.sequences, test.users, test.interactions, test.cold_users) == (2, 2, 6, 1)
    assert test.lengths == Lengths(3, 3.0, 3.0, 3)
    assert test.domain_lengths == (Lengths(1, 1.5, 1.5, 2), Lengths(1, 1.5, 1.5, 2))
    assert (test.first_time, test.last_time, test.longest_days) == (DAY, 20 * DAY, 10.0)
    assert test.same_day_ends == 0.0 and facts.splits["valid"].same_day_ends == 1.0
    assert facts.splits["train"].lengths == Lengths(2, 2.5, 2.5, 3)


def test_without_times_nothing_is_said_of_days():
    split = audit(leave_last_out([[1, 30, 2, 3], [5, 6, 31, 32]])).splits["test"]
    assert split.first_time is split.last_time is split.longest_days is split.same_day_ends is None


def test_candidate_facts_equal_plain_loops():
    rng = np.random.default_rng(5)
    rows = [(user, [(int(item), 0) for item in rng.permutation(NUM_ITEMS)[:9]]) for user in range(50)]
    scenario = build(rows, rows, rows)
    facts = audit(scenario).candidates["test"]
    duplicates = history = 0
    for case, row in enumerate(scenario.candidates["test"].tolist()):
        duplicates += len(row) - len(set(row))
        history += sum(row.count(item) for item in set(scenario.test.row(case)[:-1].tolist()))
    assert (facts.width, facts.fewest) == (15, 15)
    assert facts.duplicates == pytest.approx(duplicates / 50) and duplicates > 0
    assert facts.history == pytest.approx(history / 50) and history > 0


def test_padding_of_a_small_domain_counts_neither_as_duplicate_nor_as_history():
    rows = [(0, [(59, 0), (0, 1), (19, 2)]), (1, [(0, 0), (59, 1), (58, 2)]), (2, [(1, 0), (2, 1), (0, 2)])]
    scenario = build(rows, rows, rows)
    full = {
        name: draw_candidates(scenario.split(name).targets, NUM_X, NUM_ITEMS, 999, 0, name)
        for name in ("valid", "test")
    }
    facts = audit(Scenario(**{**vars(scenario), "candidates": full})).candidates["test"]
    assert (facts.width, facts.fewest, facts.duplicates) == (39, 19, 0.0)
    # Histories by domain of the target: {0} of movies, {59} of books, {1, 2} of movies.
    assert facts.history == pytest.approx(4 / 3)


@pytest.mark.slow
def test_the_embedded_sample_is_clean_and_its_late_items_are_cold():
    facts = audit(make_sample()[0])
    assert facts.leaks == [] and facts.leak_facts["test"].later_training == 0
    assert facts.splits["valid"].first_time > facts.splits["train"].last_time
    assert facts.domains["movie"].cold_targets["test"] > 0 and facts.splits["test"].cold_users > 0


def test_features_are_listed(tmp_path):
    scenario = build(TRAIN, VALID, TEST)
    folder = scenario.save(tmp_path)
    (folder / "features" / "text.offline").mkdir(parents=True)
    (folder / "features" / "text.offline" / "manifest.json").write_text('{"items_with_feature": 12}')
    assert audit(scenario).features == {}
    assert audit(Scenario.load(folder)).features == {"text.offline": 12}
