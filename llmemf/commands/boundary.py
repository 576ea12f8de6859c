"""Where a command begins and ends: output that never breaks it, `~` in its paths, a user's mistake as one line and exit code 2."""

from __future__ import annotations

import errno
import functools
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from llmemf.errors import InputError, StorageError


class App(typer.Typer):
    """An application or a part of one; all its commands understand and refuse the same values.

    `~` in a path is the user's home (`--data-root=~/data`, or a value of the environment, reaches them as it stands). Numbers are
    finite. Help is plain text: rich would take `[default: ...]` for markup and print nothing, and squeezes the texts at 80 columns.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(pretty_exceptions_enable=False, rich_markup_mode=None, **settings)

    def command(  # type: ignore[override]  # all settings are handed on
        self, name: str | None = None, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        register = super().command(name, **settings)

        def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_home(command))
            return command

        return decorate


def _with_home(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**values: Any) -> Any:
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"--{name.replace('_', '-')} {value}: a number is expected")
        return command(**{name: _at_home(value) for name, value in values.items()})

    return run


def _at_home(value: Any) -> Any:
    try:
        return value.expanduser() if isinstance(value, Path) else value
    except RuntimeError:  # the home of a user who does not exist: a folder may be called so
        return value


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command line application.

    Args:
        name: what help and usage call it.
        arguments: instead of those of the process.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is not None and getattr(sys, stream) is getattr(sys, f"__{stream}__"):
            setattr(sys, stream, Output(getattr(sys, stream)))
    try:
        app(args=None if arguments is None else list(arguments), prog_name=name)
    except InputError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _refuse(f"{error.strerror}: {error.filename}")


def _refuse(problem: str) -> NoReturn:
    print(f"error: {' '.join(problem.split())}", file=sys.stderr)
    sys.exit(2)


class Output(io.TextIOWrapper):
    """Standard output or standard error that ends no command.

    Characters that its encoding lacks are escaped. Where its reader has gone away (`| head`), all further text is dropped:
    a sweep continues to its end.
    """

    def __init__(self, stream: Any) -> None:
        stream.flush()
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self._name = str(stream.name).strip("<>")

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop_the_rest(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop_the_rest(error)

    def _drop_the_rest(self, error: OSError) -> None:
        """Let the text run into nothing from now on.

        Raises:
            StorageError: there is a reader, but the text could not be written (a full disk behind `> FILE`).
        """
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)
        if not isinstance(error, BrokenPipeError):
            raise StorageError.of(Path(self._name), error) from None
