import io
import sys

from sweeps.core.console import CommandConsole


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_spinner_leaves_the_output_alone(monkeypatch):
    """A library that is imported meanwhile would keep whatever stood in its place."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with CommandConsole().status("starting") as status:
        assert sys.stdout is terminal
        status.update("loading")
    assert "loading" in terminal.getvalue()
