import os
import signal

import pytest

from sweeps.interrupt import Interrupted, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_the_second_leaves(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.reason == "interrupted"
        with pytest.raises(Interrupted):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


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
