"""Six trials by hand: grace period 1 and reduction factor 2 over four epochs."""

from dataclasses import replace

import pytest

from sweeps.search.stopping import Place, full_epochs, stopping
from sweeps.state.trial_records import TrialRecord

CURVES = {
    1: [0.10, 0.20, 0.40, 0.41],
    2: [0.20, 0.30, 0.45, 0.50],
    3: [0.30, 0.35, 0.40, 0.42],
    4: [0.05],
    5: [0.16],
    6: [0.25, 0.28],
}


def records(curves=CURVES, epochs=4):
    found = []
    for number, values in curves.items():
        outcome = "completed" if len(values) == epochs else "pruned"
        found.append(
            TrialRecord(number, {}, epochs, outcome=outcome, epoch=len(values), objective=values[-1], values=values)
        )
    return found


def look(found):
    return stopping(found, [1, 2], 2)


def test_epochs_saved_and_the_place_of_the_winner_at_each_rung():
    found = look(records())
    assert (found.winner.name, found.trials, found.spent, found.saved) == ("t02", 6, 16, 8)
    assert found.places == [Place(1, 3, 6, 0), Place(2, 2, 4, 2)]


def test_what_other_rungs_would_have_done_to_the_winner():
    # Third of six after epoch 1. At epoch 3 t05 and t06 may have been above it, by the gains of t01: second or third of six.
    assert look(records()).fates == {
        (1, 2): 0, (1, 3): 1, (1, 4): 1, (2, 2): 0, (2, 3): 0, (2, 4): 0, (3, 2): 0, (3, 3): None, (3, 4): None,
    }  # fmt: skip


def test_a_late_winner_that_other_rungs_would_have_lost_for_certain():
    curves = {1: [0.1, 0.1, 0.1, 0.9], 2: [0.5, 0.6, 0.7, 0.8], 3: [0.4, 0.5, 0.6, 0.7], 4: [0.05]}
    assert look(records(curves)).fates[3, 2] == 3


def test_the_chance_that_a_stopped_trial_was_better():
    found = look(records())
    assert [(end.record.name, end.finished) for end in found.stopped] == [("t06", 3), ("t05", 3), ("t04", 3)]
    # Gains 0.21, 0.20, 0.07 after epoch 2 and 0.31, 0.30, 0.12 after epoch 1; the t distribution with two degrees of freedom
    # is 1/2 + t / (2 sqrt(2 + t^2)).
    assert [end.expected for end in found.stopped] == pytest.approx([0.44, 0.16 + 0.73 / 3, 0.05 + 0.73 / 3])
    assert [end.chance for end in found.stopped] == pytest.approx([0.28716, 0.25783, 0.11807], abs=1e-4)
    assert "3 of 6" in found.sentence and "8 of 24" in found.sentence and "29 %" in found.sentence


def test_too_few_finished_trials_say_nothing_of_the_stopped_ones():
    found = look([record for record in records() if record.number != 3])
    assert not found.stopped and [record.number for record in found.unknown] == [4, 5, 6]
    assert found.saved == 8 and "too few" in found.sentence


def test_repeats_and_trials_without_a_value_play_no_part():
    known = records()
    again = replace(known[1], number=7, repeats=2, values=[0.9] * 4)
    assert look([*known, again, TrialRecord(8, {}, 4, outcome="failed")]) == look(known)


def test_nothing_is_said_where_no_trial_was_stopped():
    assert look([record for record in records() if record.outcome == "completed"]) is None
    assert stopping(records(), [], 2) is None


def test_a_whole_trial_is_as_long_as_completed_ones_are():
    known = records()
    assert full_epochs(known) == 4
    known[0].epoch = 2
    assert full_epochs(known) == pytest.approx(10 / 3)
    assert full_epochs(known[3:]) == 4
