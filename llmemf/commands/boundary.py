"""Where a command begins and ends: output that never breaks it, `~` in its paths, a user's mistake as one line and exit code 2."""

from __future__ import annotations

import atexit
import difflib
import errno
import functools
import gc
import io
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from llmemf.command_line import DOORS, command_line
from llmemf.errors import STORAGE_FAULTS, InputError, StorageError

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of all mistakes on a command line; Typer does not export it, and has its own or Click's, by its version."""


NOT_OURS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, *STORAGE_FAULTS)
"""Error numbers of files that speak of the user's names, rights and disks, wherever they are met."""


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
    # Packages make a million objects that stay: to look for garbage among them takes seconds, and once more at the end.
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.freeze)
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is not None and getattr(sys, stream) is getattr(sys, f"__{stream}__"):
            setattr(sys, stream, Output(getattr(sys, stream)))
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=words, prog_name=name, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except UsageError as error:
        _refuse_usage(error, name, words)
    except typer.Abort:
        print("aborted", file=sys.stderr)
        sys.exit(1)
    except InputError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in NOT_OURS or not error.filename:
            raise
        _refuse(f"{error.filename}: {error.strerror}")


def _refuse_usage(error: Any, name: str, words: Sequence[str]) -> NoReturn:
    """Refuse a line that its command cannot read: with the value, the nearest name of an option, and where all of them stand."""
    context, problem = error.ctx, error.format_message()
    if problem.startswith("Usage:"):  # a group without a command: its help
        print(problem, file=sys.stderr)
        sys.exit(2)
    problem = problem.rstrip(".")
    path = context.command_path if context else " ".join([name, *itertools.takewhile(lambda w: w[:1] != "-", words)])
    params = context.command.params if context else []
    options = [name for each in params for name in (*each.opts, *each.secondary_opts) if name[:2] == "--"]
    param, option = getattr(error, "param", None), getattr(error, "option_name", "")
    extra = re.search(r"unexpected extra arguments? *\((.*)\)", problem.replace("(s)", "s"))
    if option and hasattr(error, "possibilities"):
        begin = [known for known in options if known[2] == option[1]]
        near = difflib.get_close_matches(option, options, 1) if option[:2] == "--" else begin[:3]
        problem = f"there is no option {option}" + (f": did you mean {' or '.join(near)}?" if near else "")
    elif option:
        problem = f"{option} {'needs a value behind it' if 'requires' in problem else 'takes no value'}"
    elif extra:
        stored = {"--resume", "--extend"} & {*words}  # what is named is then a sweep
        likely = "--name" if stored and "--name" in options else "--scenario"
        problem = f"{extra[1]}: what is it?" + f" Did you mean {likely} {extra[1]}?" * (likely in options)
    elif param and "Missing" not in problem and (given := _given(words, param.opts)):
        said = error.message.rstrip(".").removeprefix("Value error, ").split(", unable to")[0]
        problem = f"{given}: {said[:1].lower()}{said[1:]}"
    _refuse(f"{problem}{' ' if problem.endswith('?') else '; '}`{_help_command(name, path)}` says what it takes")


def _help_command(name: str, path: str) -> str:
    """The command that shows the help, as it can be typed here.

    Args:
        name: of the application.
        path: its name and that of a command of it.
    """
    words = path.removeprefix(name).split()
    scripts = {f"sweeps/{script}": command for command, script in DOORS.items()}
    if name in scripts:
        return command_line(scripts[name], *words, "--help")
    return command_line(*words, "--help") if name == "llmemf" else f"{path} --help"


def _given(words: Sequence[str], names: Sequence[str]) -> str:
    """An option as it was typed, with its value; "" where it was not."""
    for word, following in itertools.pairwise([*words, ""]):
        option, joined, value = word.partition("=")
        if option in names:
            return f"{option} {value if joined else following}"
    return ""


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
