import random

import pytest
from scipy.stats import ttest_ind

from sweeps.state.confirmation import (
    SEED_OFFSET,
    chances_above,
    chances_of_best,
    confirmed,
    next_repeats,
    sentence_of,
)
from sweeps.state.trial_records import TrialRecord, best_of, ranked, seed_values

EPOCHS = 4


def searched(*objectives, outcome="completed"):
    """Ended trials of a search."""
    return [
        TrialRecord(number, {"lr": number}, EPOCHS, {"lr": number}, outcome=outcome, epoch=EPOCHS, objective=value)
        for number, value in enumerate(objectives, start=1)
    ]


def again(records, record, seed, value=None, outcome="completed", epoch=EPOCHS):
    """A repeat of a trial, added to the records."""
    made = TrialRecord(
        len(records) + 1, record.varied, EPOCHS, {**record.config, "seed": seed}, outcome=outcome, epoch=epoch,
        objective=value, repeats=record.number,
    )  # fmt: skip
    records.append(made)
    record.repeated_by.append(made)
    return made


def repeats(records, budget=100, candidates=3):
    """Trial and seed of what runs next; seeds are counted from 1."""
    found = next_repeats(records, candidates=candidates, epochs=budget, seed=5)
    return [(record.number, seed - SEED_OFFSET - 5) for record, seed in found]


def play(records, value, **options):
    """The whole race: the rounds as lists of trials; `value` gives the objective of a repeat."""
    rounds = []
    while found := repeats(records, **options):
        rounds.append([number for number, _ in found])
        for number, seed in found:
            again(records, records[number - 1], 5 + SEED_OFFSET + seed, value(number, seed))
    return rounds


def test_the_best_that_completed_race_once_the_search_has_ended():
    records = searched(0.1, 0.5, 0.3, 0.4, 0.2)
    assert repeats(records) == [(2, 1), (4, 1), (3, 1)]
    records[3].outcome = "pruned"
    assert repeats(records) == [(2, 1), (3, 1), (5, 1)], "a pruned trial was not measured at its last epoch"
    for outcome in ("pending", "running", "interrupted"):
        records[0].outcome = outcome
        assert repeats(records) == [], "an unfinished trial may be the best"


def test_nothing_is_repeated_where_there_is_nothing_to_choose():
    assert repeats([]) == repeats(searched(0.5)) == repeats(searched(0.5, 0.4), candidates=0) == []
    assert repeats(searched(0.5, 0.4), budget=2 * EPOCHS - 1) == [], "one repeat alone tells nothing"


@pytest.mark.parametrize(("budget", "expected"), [(8, [2]), (12, [3]), (19, [3]), (20, [3, 2]), (24, [3, 3])])
def test_rounds_are_as_large_as_the_epochs_allow(budget, expected):
    noise = random.Random(1)
    rounds = play(searched(0.5, 0.49, 0.48, 0.1), lambda number, seed: noise.gauss(0.5, 0.1), budget=budget)
    assert [len(numbers) for numbers in rounds] == expected


def test_epochs_that_patience_saved_pay_for_further_repeats():
    records = searched(0.5, 0.4)
    for record in records[:2]:
        again(records, record, 5 + SEED_OFFSET + 1, 0.45 + record.number / 50, epoch=2)
    assert repeats(records, budget=11) == [] and repeats(records, budget=12) == [(1, 2), (2, 2)]


def test_who_is_clearly_behind_drops_out_and_the_rivals_get_the_seeds():
    means = {1: 0.50, 2: 0.30, 3: 0.501}
    records = searched(0.51, 0.51, 0.51)
    rounds = play(records, lambda number, seed: means[number] + 0.002 * (-1) ** seed, budget=40)
    assert rounds[0] == [1, 2, 3] and all(sorted(numbers) == [1, 3] for numbers in rounds[2:]) and len(rounds) >= 4


def test_the_race_ends_with_a_clear_winner():
    records = searched(0.52, 0.50)
    rounds = play(records, lambda number, seed: 0.52 + seed / 1000 if number == 1 else 0.1 + seed / 1000, budget=1000)
    assert len(rounds) < 10 and best_of(records).number == 1


def test_the_winner_has_the_best_mean_not_the_luckiest_seed():
    records = searched(0.60, 0.55, 0.54, 0.2)
    play(records, lambda number, seed: {1: 0.40, 2: 0.53, 3: 0.50}[number] + seed / 1000, budget=3 * EPOCHS)
    assert [record.number for record in ranked(records)] == [2, 3, 1, 4]
    assert [item.name for item in confirmed(records)] == ["t02", "t03", "t01"]


def test_a_trial_whose_repeat_failed_leaves_the_race_until_it_is_tried_again():
    records = searched(0.6, 0.5, 0.4)
    failed = again(records, records[0], 5 + SEED_OFFSET + 1, outcome="failed", epoch=1)
    for record in records[1:3]:
        again(records, record, 5 + SEED_OFFSET + 1, 0.45)
    assert [item.name for item in confirmed(records)] == ["t02", "t03"] and best_of(records).number == 2
    assert {number for number, _ in repeats(records)} == {2, 3}
    failed.try_again()
    assert repeats(records) == [], "it is waited for"
    failed.outcome, failed.objective, failed.epoch = "completed", 0.41, EPOCHS
    assert best_of(records).number == 1 and (1, 2) in repeats(records)


@pytest.mark.parametrize("known", [1, 2])
def test_a_driver_that_died_between_two_proposals_plans_the_rest_of_the_round(known):
    records = searched(0.5, 0.49, 0.48)
    expected = repeats(records, budget=3 * EPOCHS)
    for number, seed in expected[:known]:
        again(records, records[number - 1], 5 + SEED_OFFSET + seed, outcome="pending", epoch=0)
    assert repeats(records, budget=3 * EPOCHS) == expected[known:]


def test_a_seed_counts_once_all_its_repeats_have_ended():
    records = searched(0.5, 0.4)
    again(records, records[0], 11, 0.3)
    slow = again(records, records[1], 11, outcome="running")
    assert seed_values(records) == {} and best_of(records).number == 1
    slow.outcome, slow.objective = "completed", 0.45
    assert seed_values(records) == {1: [0.5, 0.3], 2: [0.4, 0.45]} and best_of(records).number == 2


def test_trials_of_an_extension_enter_the_race():
    records = searched(0.5, 0.4)
    play(records, lambda number, seed: 0.45 + seed / 100, budget=2 * EPOCHS, candidates=2)
    newcomer = TrialRecord(5, {}, EPOCHS, {"lr": 5}, outcome="completed", epoch=EPOCHS, objective=0.6)
    records.append(newcomer)
    assert repeats(records, budget=3 * EPOCHS, candidates=2) == [(5, 1)]
    assert repeats(records, budget=2 * EPOCHS, candidates=2) == [], "the epochs are spent"


def test_chances_are_those_of_a_t_test_with_one_variance():
    generator = random.Random(3)
    parts = [[generator.gauss(mean, 1) for _ in range(4)] for mean in (1, 0)]
    p = ttest_ind(*parts, alternative="greater").pvalue
    assert chances_above(parts, 0) == [0.5, pytest.approx(p)]
    assert chances_of_best(parts) == [pytest.approx(1 - p, abs=0.01), pytest.approx(p, abs=0.01)]
    assert chances_of_best(parts) == chances_of_best(parts), "the same in every process"


def test_values_without_any_spread_are_certain():
    assert chances_above([[1.0, 1.0], [0.5, 0.5], [1.0, 1.0]], 0) == [0.5, 0.0, 0.5]
    assert chances_of_best([[1.0, 1.0], [0.5, 0.5]]) == [1.0, 0.0]


def test_the_sentence_names_whom_it_cannot_tell_apart():
    records = searched(0.50, 0.49, 0.10)
    assert sentence_of(confirmed(records)) == ""
    play(records, lambda number, seed: records[number - 1].objective + 0.01, budget=3 * EPOCHS)
    found = confirmed(records)
    said = sentence_of(found)
    assert [item.is_behind for item in found] == [False, False, True]
    assert "t01" in said and "t02" in said and "t03" not in said and f"{100 * found[0].best:.0f} %" in said
    assert sum(item.best for item in found) == pytest.approx(1)
