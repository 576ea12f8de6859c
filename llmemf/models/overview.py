"""What the settings of the systems are, as plain rows for a table."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic.fields import FieldInfo

from llmemf.config import TrialConfig

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""Bounds of a number, in the order in which they are shown."""


class Setting(NamedTuple):
    """One setting of a system.

    Attributes:
        default: as it is typed behind `--set key=`.
        valid: what it takes, in words.
        text: its docstring.
        shared: whether every system has it, with this default.
    """

    name: str
    default: str
    valid: str
    text: str
    shared: bool


def settings(config_class: type[TrialConfig], name: str) -> list[Setting]:
    """The settings of a system, its own before those that every system has."""
    rows = []
    for key, field in config_class.model_fields.items():
        common = TrialConfig.model_fields.get(key)
        default = name if key == "model" else typed(field.get_default(call_default_factory=True))
        shared = common is not None and (key == "model" or common.default == field.default)
        rows.append(Setting(key, default, valid_values(field), " ".join((field.description or "").split()), shared))
    return sorted(rows, key=lambda row: row.shared)


def typed(value: Any) -> str:
    """A value as `--set` reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(typed, value)) if isinstance(value, tuple | list) else str(value)


def valid_values(field: FieldInfo) -> str:
    """What a field takes: its choices, or its kind of number with the bounds."""
    limits = {sign: getattr(limit, sign) for limit in field.metadata for sign in SIGNS if hasattr(limit, sign)}
    bounds = ", ".join(f"{SIGNS[sign]} {limits[sign]:g}" for sign in SIGNS if sign in limits)
    kind, bar, null = _kind(field.annotation).partition(" | null")
    return f"{kind} {bounds}".strip() + bar + null


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(map(typed, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_kind, arguments))
    if origin in (tuple, list):
        return f"some of {_kind(arguments[0])}"
    words = {int: "integer", float: "number", bool: "true | false", str: "text", type(None): "null"}
    return words.get(annotation) or str(annotation)


def space_lines(space: Mapping[str, Any]) -> list[str]:
    """A search space, a line per key."""
    lines = []
    for key, values in space.items():
        if isinstance(values, Mapping):
            lines.append(f"{key}: " + ", ".join(f"{part} {typed(value)}" for part, value in values.items()))
        else:
            lines.append(f"{key}: " + ", ".join(map(typed, values)))
    return lines
