import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from sweeps.core.display import Display, time_left
from sweeps.state.trial_records import TrialRecord, best_of, ranked


def record(number, outcome, objective=None, epoch=0, seconds=0.0, **settings):
    values = settings or {"lr": 1e-3, "alpha": 0.3}
    return TrialRecord(
        number, values, 8, outcome=outcome, epoch=epoch, objective=objective, best_epoch=epoch, seconds=seconds
    )


RECORDS = [
    record(1, "completed", 0.0812, 8, 60.0),
    record(2, "pruned", 0.03, 2, 20.0),
    record(3, "failed", 0.99, 1, 5.0),
    record(4, "running", 0.05, 3, 30.0),
    record(5, "pending", seconds=2.0),
]
RECORDS[2].error = "NonFiniteLoss: loss is nan"


def shown(width, records=RECORDS, terminal=True):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    by_number = {item.number: item for item in records}
    display = Display(console, title="s1   llm_emf on sample, optuna", planned=12, slots=2, records=by_number)
    return display, console


def at(display, clock, seconds):
    """It is so many seconds after the start."""
    clock.now = 1000.0 + seconds
    return display


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("sweeps.core.display.time.monotonic", lambda: found.now)
    return found


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_table_shows_where_the_sweep_stands(width):
    display, console = shown(width)
    console.print(display.render())
    text = console.file.getvalue()
    assert "3 of 12 trials" in text and "about" in text and "elapsed" in text
    assert "1 running" in text and "1 starting" in text and "1 pruned" in text and "1 failed" in text
    assert "best 0.0812  t01, epoch 8" in text
    assert "t04" in text and "3/8" in text and "0.0500" in text
    assert max(map(len, text.splitlines())) <= width


def test_many_settings_fit_into_80_columns():
    many = dict.fromkeys(("lr", "l2", "alpha", "beta", "lambda1", "lambda2", "scale_init", "dropout"), 0.00354321)
    display, console = shown(80, [record(1, "running", 0.1, 1, **many)])
    console.print(display.render())
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in many)


def test_nothing_yet():
    display, console = shown(80, [])
    console.print(display.render())
    assert "0 of 12 trials" in console.file.getvalue() and "waiting" in console.file.getvalue()
    assert display.line() == "0/12 done, time left unknown"


def test_time_left_comes_from_finished_trials():
    display, _ = shown(80)
    mean = (60 + 20) / 2
    expected = ((mean - 30) + (mean - 2) + mean * (12 - 3 - 2)) / 2
    assert display.remaining() == pytest.approx(expected)


def test_time_left_foresees_the_repeats_of_the_best_trials():
    search = [record(1, "completed", 0.08, 8, 60.0), record(2, "pruned", 0.03, 2, 20.0)]
    # Repeats are not pruned: each of the three takes as long as the whole trial.
    assert time_left(search, planned=3, slots=1, repeats=3) == pytest.approx(40 + 3 * 60)
    again = replace(record(4, "running", seconds=15.0), repeats=1)
    assert time_left([*search, record(3, "failed"), again], planned=3, slots=1, repeats=3) == pytest.approx(45 + 2 * 60)
    display, _ = shown(80, [record(1, "running", 0.1, 1, 30.0)])
    assert display.remaining() is None
    display, _ = shown(80, [record(1, "pruned", 0.1, 1, 30.0), record(2, "running", 0.1, 4, 90.0)])
    assert display.remaining() == pytest.approx((30 + 90) / 2 * 10 / 2), "short trials finish first"


def test_plain_lines_per_ended_trial_and_per_interval(clock):
    display, console = shown(120, terminal=False)
    with display:
        at(display, clock, 5).update()
        at(display, clock, 6).update(RECORDS[3])
        at(display, clock, 7).update(RECORDS[1])
        del display._records[5]
        at(display, clock, 10).update()
        at(display, clock, 16).update()
        at(display, clock, 40).update()
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3
    assert "[0:05] 3/12 done, 1 running, 1 starting, 1 pruned, 1 failed, best 0.0812 (t01, epoch 8)" in lines[0]
    assert "[0:07] t02 pruned after epoch 2 (0:20), objective 0.0300  lr=1e-3 alpha=0.3" in lines[1]
    assert lines[2].startswith("[0:16]") and "starting" not in lines[2], "at 0:40 nothing had changed"


def test_a_long_sweep_tells_less_often(clock):
    display, console = shown(120, terminal=False)
    with display:
        for minute in range(600):
            display._records[4].epoch = minute
            display._records[4].seconds = minute
            at(display, clock, 60 * minute).update()
    display._records[4].epoch, display._records[4].seconds = 3, 30.0
    assert 100 < len(console.file.getvalue().splitlines()) < 200, "ten hours, a line every five minutes in the end"


def test_a_failed_trial_is_told_in_one_line_with_the_place_of_its_trace(clock):
    display, console = shown(120, [RECORDS[2]], terminal=False)
    display._last_line = 1000.0
    display.update(RECORDS[2])
    lines = console.file.getvalue().splitlines()
    assert lines == ["t03 failed: NonFiniteLoss: loss is nan", "    full trace: errors/t03.txt in the sweep's folder"]


def test_a_lost_trial_is_told_with_the_time(clock):
    display, console = shown(120, terminal=False)
    with display:
        at(display, clock, 65).tell("t04 was lost after epoch 3 and runs again (ActorDiedError: gone)")
    expected = "[1:05] t04 was lost after epoch 3 and runs again (ActorDiedError: gone)"
    assert console.file.getvalue().splitlines() == [expected]


def test_what_is_said_stays_until_the_end():
    for terminal in (False, True):
        display, console = shown(100, terminal=terminal)
        display.say("interrupted: saving the sweep")
        console.print(display.render())
        assert "interrupted: saving the sweep" in console.file.getvalue()


def test_a_server_that_does_not_answer_is_shown_while_it_does_not():
    display, console = shown(100)
    display.trouble = "tracking does not answer (no route); 3 writes wait"
    assert display.line().endswith("(tracking does not answer (no route); 3 writes wait)")
    console.print(display.render())
    assert "  tracking does not answer (no route); 3 writes wait" in console.file.getvalue()
    display.trouble = ""
    assert "tracking" not in display.line()


def test_new_trials_of_the_ledger_are_seen():
    display, _ = shown(80, [])
    display._records[1] = record(1, "running")
    assert display.line().startswith("0/12 done, 1 running")


def test_failed_trials_never_lead():
    assert [item.number for item in ranked(RECORDS)] == [1, 4, 2, 3, 5]
    assert best_of(RECORDS).number == 1
    assert best_of([RECORDS[2], RECORDS[4]]) is None


def test_time_of_earlier_parts_counts():
    display = Display(Console(), title="s1", planned=1, slots=1, records={}, earlier=100.0)
    assert 100 <= display.elapsed() < 105
