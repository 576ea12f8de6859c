import os
import signal
import threading
import time

import pytest

from sweeps.core import interrupt
from sweeps.core.interrupt import Interrupted, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_the_second_leaves(number):
    before = signal.signal(number, signal.default_int_handler)  # the tests themselves may run under nohup
    try:
        with StopRequest() as stop:
            stop.check()
            os.kill(os.getpid(), number)
            assert stop.reason == "interrupted"
            with pytest.raises(Interrupted):
                stop.check()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_tune_is_told_once_and_only_when_asked():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        with StopRequest() as stop:
            assert not stop.forward()
            os.kill(os.getpid(), signal.SIGINT)
            assert [stop.forward(), stop.forward()] == [True, False]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [1]


def test_handlers_that_others_set_are_taken_back():
    with StopRequest() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason


def test_nohup_stays_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.reason
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_background_job_hears_an_interrupt():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.reason == "interrupted"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def waited_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def test_a_spent_time_budget_asks_to_stop_as_planned():
    with StopRequest(time_budget=0.02) as stop:
        assert not stop.planned
        assert waited_for(lambda: stop.reason)
        assert stop.reason == "the time budget is spent" and stop.planned
        with pytest.raises(Interrupted):
            stop.check()


def test_a_budget_that_is_spent_after_the_user_asked_changes_nothing():
    with StopRequest(time_budget=0.05) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        assert stop.reason == "interrupted" and not stop.planned


def test_a_budget_that_was_not_spent_is_forgotten():
    with StopRequest(time_budget=0.05) as stop:
        pass
    time.sleep(0.1)
    assert not stop.reason


def test_without_a_budget_no_clock_runs():
    before = threading.active_count()
    with StopRequest() as stop:
        assert threading.active_count() == before and not stop.reason


def test_a_sweep_that_does_not_end_after_a_signal_is_ended(monkeypatch):
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.02)
    called = []
    with StopRequest() as stop:
        stop.on_stuck = lambda: called.append(stop.reason)
        assert not called
        os.kill(os.getpid(), signal.SIGTERM)
        assert waited_for(lambda: called)
    assert called == ["interrupted"]


def test_one_that_ends_in_time_is_left_alone(monkeypatch):
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.05)
    called = []
    with StopRequest() as stop:
        stop.on_stuck = lambda: called.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    assert not called


def test_the_first_reason_stays():
    stop = StopRequest()
    stop.request("the disk is full")
    stop.request("another")
    assert stop.reason == "the disk is full" and not stop.planned
