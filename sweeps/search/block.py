"""A block of a search space: one setting, or several that are chosen together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmemf.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SHOWN_POINTS = 6
"""So many values of a setting are named in a message."""
LOG_RATIO = 10
"""Positive grid values that span at least this ratio are refined on a logarithmic scale."""


@dataclass(frozen=True)
class Block:
    """Settings that are chosen together, independently of all other blocks.

    Attributes:
        keys: the settings.
        points: the feasible grid values, one tuple per point; empty for a range.
        kind: how it is refined: `fixed` and `choice` keep to the points, `float` moves between `low` and `high`,
            `simplex` moves inside alpha, beta >= 0, alpha + beta <= 1.
        size: grid points before constraints dropped any.
    """

    keys: tuple[str, ...]
    points: tuple[tuple[Any, ...], ...]
    kind: str
    size: int
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @property
    def continuous(self) -> bool:
        return self.kind in ("float", "simplex")

    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna sees of this block."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        if self.kind == "fixed":
            return {}
        if self.kind == "float":
            return {self.keys[0]: FloatDistribution(self.low, self.high, log=self.log)}
        if self.kind == "simplex":
            return {name: FloatDistribution(0.0, 1.0) for name in self._simplex_names}
        return {"|".join(self.keys): CategoricalDistribution([_label(point) for point in self.points])}

    @property
    def _simplex_names(self) -> tuple[str, str]:
        stem = "|".join(self.keys)
        return f"{stem} u", f"{stem} v"

    def _point(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """These settings as they stand in `points`."""
        return tuple(tuple(value) if isinstance(value := values[key], list) else value for key in self.keys)

    def to_internal(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's parameters of these settings; empty where a grid point leaves a range open.

        Raises:
            KeyError: a setting is missing that is not a range.
        """
        if self.kind == "fixed" or (not self.points and self.keys[0] not in values):
            return {}
        point = self._point(values)
        if self.kind == "float":
            return {self.keys[0]: float(point[0])}
        if self.kind == "simplex":
            rest = 1 - point[0]
            return dict(zip(self._simplex_names, (rest * rest, min(1.0, point[1] / rest) if rest > 0 else 0.0)))
        return {"|".join(self.keys): _label(point)}

    def from_internal(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of Optuna's parameters, rounded to four digits (they are shown, typed and compared)."""
        if self.kind == "fixed":
            return dict(zip(self.keys, self.points[0]))
        if self.kind == "float":
            value = float(f"{parameters[self.keys[0]]:.4g}")
            return {self.keys[0]: min(max(value, self.low), self.high)}
        if self.kind == "simplex":
            # (1 - sqrt(u), sqrt(u) v) is uniform on the triangle when u and v are uniform on [0, 1].
            u, v = (parameters[name] for name in self._simplex_names)
            first = round(1 - math.sqrt(u), 4)
            second = min(math.floor(math.sqrt(u) * v * 1e4 + 1e-6) / 1e4, round(1 - first, 4))
            return dict(zip(self.keys, (first, second)))
        by_label = {_label(point): point for point in self.points}
        return dict(zip(self.keys, by_label[parameters["|".join(self.keys)]]))

    def coordinates(self, values: Mapping[str, Any]) -> list[float]:
        """Where these settings lie between 0 and 1: numbers by their rank or their place in the range, categories one by one."""
        if self.kind == "fixed":
            return []
        if self.kind == "simplex":
            return list(self.to_internal(values).values())
        if self.kind == "float":
            scale = math.log if self.log else float
            low, high = scale(self.low), scale(self.high)
            return [(scale(values[self.keys[0]]) - low) / (high - low)]
        found: list[float] = []
        for value, column in zip(self._point(values), zip(*self.points)):
            present = list(dict.fromkeys(column))
            if all(isinstance(item, int | float) and not isinstance(item, bool) for item in present):
                found.append(sorted(present).index(value) / max(1, len(present) - 1))
            else:
                found += [float(item == value) for item in present]
        return found

    def at(self, places: Sequence[float]) -> dict[str, Any]:
        """Settings at places between 0 and 1, as many as `places` says."""
        if self.kind == "float":
            scale = math.log if self.log else float
            low, high = scale(self.low), scale(self.high)
            value = low + places[0] * (high - low)
            return self.from_internal({self.keys[0]: math.exp(value) if self.log else value})
        if self.kind == "simplex":
            return self.from_internal(dict(zip(self._simplex_names, places)))
        chosen = self.points[min(int(places[0] * len(self.points)), len(self.points) - 1)] if places else self.points[0]
        return dict(zip(self.keys, chosen))

    @property
    def places(self) -> int:
        """How many numbers between 0 and 1 choose its settings."""
        return {"fixed": 0, "simplex": 2}.get(self.kind, 1)

    def snapped(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """These settings as the block would propose them: a grid value as it is, others with four digits.

        Raises:
            InputError: they lie outside.
        """
        point = self._point(values)
        if point in self.points:
            return {key: values[key] for key in self.keys}
        given = f"{', '.join(self.keys)} = {_label(point)}"
        if self.kind == "float":
            value = float(f"{point[0]:.4g}")
            if self.low <= value <= self.high:
                return {self.keys[0]: value}
            raise InputError(f"{given} lies outside of the space ({self.low} to {self.high})")
        if self.kind == "simplex":
            shares = [round(share, 4) for share in point]
            if min(shares) >= 0 and sum(shares) <= 1 + 1e-9:
                return dict(zip(self.keys, shares))
            raise InputError(f"{given}: shares of at least 0 with a sum of at most 1 are expected")
        known = [_label(point) for point in self.points[:SHOWN_POINTS]]
        more = ", ..." if len(self.points) > len(known) else ""
        raise InputError(f"{given} is not in the space ({'; '.join(known)}{more})")


def _label(point: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in point)


def with_points(block: Block, kept: Sequence[tuple[Any, ...]]) -> Block:
    """The block with some of its points; settings that belong together are then refined over these only."""
    if len(block.keys) == 1:
        return replace(list_block(block.keys[0], [point[0] for point in kept]), size=block.size)
    return replace(block, points=tuple(kept), kind="fixed" if len(kept) == 1 else "choice")


def list_block(key: str, values: Any) -> Block:
    """A setting by its grid values; duplicates are dropped, a single one is a fixed value."""
    values = values if isinstance(values, list) else [values]
    if not values:
        raise InputError(f"space: {key} has no values")
    points = tuple((tuple(value) if isinstance(value, list) else value,) for value in values)
    points = tuple(dict.fromkeys(points))
    if len(points) == 1:
        return Block((key,), points, "fixed", 1)
    numbers: list[Any] = [point[0] for point in points]
    if not all(isinstance(number, float) for number in numbers):
        return Block((key,), points, "choice", len(points))
    low, high = min(numbers), max(numbers)
    return Block((key,), points, "float", len(points), low, high, low > 0 and high / low >= LOG_RATIO)
