"""Options that several commands share, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import chain
from typing import Any

Command = Callable[..., None]


def shared_options(**groups: Callable[..., Any]) -> Callable[[Command], Command]:
    """Give a command the options of other functions or dataclasses behind its own.

    `@shared_options(target=Target)` declares all fields of `Target` as options of the command, which receives one
    `Target` as its parameter `target`.

    Args:
        groups: parameter of the command -> what makes its value out of the options.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        shared = {name: inspect.signature(make, eval_str=True).parameters for name, make in groups.items()}
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in chain(own, *(options.values() for options in shared.values()))
            if parameter.name not in groups
        ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            for name, make in groups.items():
                values[name] = make(**{option: values.pop(option) for option in shared[name]})
            command(**values)

        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
