"""The servers of MLflow's pages and models end with the command that started them."""

from __future__ import annotations

import os
import signal

import pytest

from sweeps.tracking.pages import end_on_signals


def test_a_second_signal_does_not_break_off_the_end() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.getsignal(number) for number in numbers}
    try:
        end_on_signals()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        for number in numbers:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
