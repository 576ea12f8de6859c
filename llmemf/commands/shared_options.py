"""Options that several commands share, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any, get_args

import typer

from llmemf.command_line import Option

Command = Callable[..., None]


def shared_options(**groups: Callable[..., Any]) -> Callable[[Command], Command]:
    """Give a command the options of other functions or dataclasses behind its own.

    `@shared_options(target=Target)` declares all fields of `Target` as options of the command, which receives one
    `Target` as its parameter `target`. A field with an `Option` of `command_line` brings its help and limits with it.

    Args:
        groups: parameter of the command -> what makes its value out of the options.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        shared = {name: _options_of(make) for name, make in groups.items()}
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


def _options_of(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    options = dict(inspect.signature(make, eval_str=True).parameters)
    for name, parameter in options.items():
        kind, *told = get_args(parameter.annotation)
        if told and isinstance(told[0], Option):
            text, least, most = told[0]
            option = typer.Option(f"--{name.replace('_', '-')}", help=text, min=least, max=most)
            options[name] = parameter.replace(annotation=Annotated[kind, option])
    return options
