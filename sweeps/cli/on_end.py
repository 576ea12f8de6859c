"""Tell somebody that a sweep or group has ended: a command that is run, or an address that gets a request."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from llmemf.errors import InputError
from llmemf.text_format import json_text
from sweeps.core.console import CommandConsole

SECONDS = 60
"""A command or address that has not answered by then is left alone."""


@contextmanager
def on_end(hook: str | None, facts: Callable[[], dict[str, Any]], console: CommandConsole) -> Iterator[None]:
    """Around a run that ends with `typer.Exit`, an error, or an interruption.

    A hook that fails is said and changes nothing: the exit code of the command is that of the run.

    Args:
        hook: a command of the shell, which gets the facts as JSON on its standard input, and name, state and exit code as
            LLMEMF_NAME, LLMEMF_STATE and LLMEMF_EXIT_CODE; or http(s)://..., which gets the JSON as a POST request.
        facts: how it stands when it has ended.
    """
    code = 0
    try:
        yield
    except BaseException as error:
        if isinstance(error, typer.Exit):
            code = error.exit_code
        else:
            code = 2 if isinstance(error, InputError) else 130 if isinstance(error, KeyboardInterrupt) else 1
        raise
    finally:
        if hook:
            try:
                call(hook, {**facts(), "exit_code": code})
            except (OSError, InputError, ValueError, subprocess.SubprocessError) as error:
                console.print(f"--on-end {hook}: {' '.join(str(error).split())[:200]}", style="yellow", soft_wrap=True)


def call(hook: str, facts: dict[str, Any]) -> None:
    """Run the command, or send the request.

    Raises:
        OSError: the address does not answer, or answers with an error.
        subprocess.SubprocessError: the command fails or takes too long.
    """
    content = json_text(facts)
    if hook.startswith(("http://", "https://")):
        request = urllib.request.Request(hook, content.encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=SECONDS).close()
        return
    named = {f"LLMEMF_{key.upper()}": str(facts[key]) for key in ("name", "state", "exit_code")}
    # The user's own line, of the user's own shell.
    subprocess.run(hook, shell=True, check=True, timeout=SECONDS, input=content, text=True, env=os.environ | named)
