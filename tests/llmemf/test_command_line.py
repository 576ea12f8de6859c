"""Commands in messages are those that can be typed where the user stands."""

import sys

import pytest

from llmemf.command_line import command_line


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a Python without console command beside it, and a folder of commands on the path."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "llmemf")])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def write(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_the_console_command_that_was_started_from_the_path_is_named_alone(place):
    write(place / "bin" / "llmemf")
    write(place / "llmemf")
    assert command_line("sweep") == "llmemf sweep", "as `pip install --user` leaves it, away from its Python"


def test_another_console_command_on_the_path_is_not_named(place, monkeypatch):
    write(place / "bin" / "llmemf")
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert command_line("sweep") == f"{place / 'python3'} -m sweeps sweep"
    write(place / "llmemf")
    assert command_line("sweep") == f"{place / 'llmemf'} sweep"


def test_without_any_console_command_the_module_is_named(place):
    assert command_line("sweep", "--name", "a b") == f"{place / 'python3'} -m sweeps sweep --name 'a b'"
