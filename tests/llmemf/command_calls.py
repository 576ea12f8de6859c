"""Commands as a user calls them: those that succeed, and those that end with one line of error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from typer.testing import CliRunner

from llmemf.__main__ import app, main


def call(*arguments, code=0, **more):
    """Run a command; returns what it printed."""
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False, **more)
    assert result.exit_code == code, result.output
    return result.output


def refuse(capsys, *arguments):
    """Run a command that must fail with exit code 2 and one line on stderr; returns the line."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def below(*words) -> tuple[Callable, Callable]:
    """`call` and `refuse` of the commands that begin with these words."""
    return partial(call, *words), lambda capsys, *arguments: refuse(capsys, *words, *arguments)
