"""The search space of a sweep: grid points in seeded random order, and the continuous space around them.

Settings are kept in independent blocks. A block is one setting, or several that belong together (a simplex, or settings
that a constraint ties); the grid is the product of the blocks' feasible points, and is never written out.

    key: [values]                        grid values; floats are refined between the smallest and the largest
    key: {low: 0, high: 1, log: false}   no grid values, refinement only
    "alpha, beta": {simplex: 0.1}        all pairs in steps of 0.1 with alpha + beta <= 1
    "alpha, beta": {simplex: 0.1, given: {alpha: 0.3}}    the same with one share given
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmemf.errors import InputError, nearest
from sweeps.search.constraints import Constraint

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SHUFFLED_WHOLE = 200_000
"""Grids up to this size are shuffled as a whole; larger ones are drawn point by point without repetition."""
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

    def to_internal(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's parameters of these settings; empty where a grid point leaves a range open.

        Raises:
            KeyError: a setting is missing that is not a range.
        """
        if self.kind == "fixed" or (not self.points and self.keys[0] not in values):
            return {}
        point: tuple[Any, ...] = tuple(
            tuple(value) if isinstance(value := values[key], list) else value for key in self.keys
        )
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
        for key, column in zip(self.keys, zip(*self.points)):
            present = list(dict.fromkeys(column))
            value = tuple(values[key]) if isinstance(values[key], list) else values[key]
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
        point: tuple[Any, ...] = tuple(
            tuple(value) if isinstance(value := values[key], list) else value for key in self.keys
        )
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


@dataclass(frozen=True)
class Space:
    """All blocks of a sweep.

    Attributes:
        blocks: see `Block`.
        dropped_by: constraint text (or the simplex) -> how many combinations of its block it dropped.
    """

    blocks: tuple[Block, ...]
    dropped_by: dict[str, int] = field(default_factory=dict)

    @cached_property
    def grid_blocks(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.points)

    @property
    def size(self) -> int:
        """Number of feasible grid points; 1 where everything is fixed or a range."""
        return math.prod(len(block.points) for block in self.grid_blocks)

    @property
    def full_size(self) -> int:
        """Grid points before constraints dropped any."""
        return math.prod(block.size for block in self.grid_blocks)

    @property
    def dropped(self) -> int:
        return self.full_size - self.size

    @property
    def varied_keys(self) -> tuple[str, ...]:
        """Settings that differ between trials."""
        return tuple(
            key for block in self.blocks if block.kind != "fixed" for key in block.keys if not _same(block, key)
        )

    @property
    def ranges(self) -> tuple[str, ...]:
        """Settings without grid values."""
        return tuple(key for block in self.blocks if not block.points for key in block.keys)

    @property
    def continuous(self) -> bool:
        """Whether there is anything between the grid points to refine."""
        return any(block.continuous for block in self.blocks)

    def point(self, index: int) -> dict[str, Any]:
        """Settings of one feasible grid point (ranges are left out)."""
        values: dict[str, Any] = {}
        for block in reversed(self.grid_blocks):
            index, remainder = divmod(index, len(block.points))
            values.update(zip(block.keys, block.points[remainder]))
        return {key: values[key] for block in self.grid_blocks for key in block.keys}

    def identity(self, settings: Mapping[str, Any]) -> tuple:
        """What makes two grid points the same; ranges are drawn anew each time and do not count."""
        keys = [key for block in self.grid_blocks if block.kind != "fixed" for key in block.keys]
        return tuple(repr(list(value) if isinstance(value := settings.get(key), tuple) else value) for key in keys)

    def snapped(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """These settings as the search would propose them, so that equal points look equal; see `Block.snapped`.

        Raises:
            InputError: they lie outside of the space.
            KeyError: a setting is missing.
        """
        return {key: value for block in self.blocks for key, value in block.snapped(values).items()}

    def trained_as(self, settings: Mapping[str, Any]) -> tuple:
        """What makes two trials the same: every setting, ranges included."""
        return tuple(
            repr(list(value) if isinstance(value := settings.get(key), tuple) else value)
            for block in self.blocks
            for key in block.keys
        )

    def fresh(
        self,
        seed: int,
        known: Iterable[Mapping[str, Any]],
        count: int,
        accepts: Callable[[Mapping[str, Any]], bool] = lambda point: True,
    ) -> list[dict[str, Any]]:
        """The next grid points of the seeded order, without those that have been run.

        Args:
            known: configurations of earlier trials.
            count: how many are wanted; fewer are given where the grid ends.
            accepts: whether a point may run.
        """
        seen = {self.identity(config) for config in known}
        new = (point for point in self.shuffled(seed) if self.identity(point) not in seen and accepts(point))
        return list(itertools.islice(new, max(0, count)))

    def shuffled(self, seed: int) -> Iterator[dict[str, Any]]:
        """Every grid point exactly once in seeded random order; lazily, so that huge grids cost nothing."""
        return (self.point(index) for index in random_order(self.size, seed))

    @property
    def places(self) -> int:
        return sum(block.places for block in self.blocks)

    def at(self, places: Sequence[float]) -> dict[str, Any]:
        """Settings at numbers between 0 and 1, `places` of them; uniform numbers give uniform settings."""
        settings: dict[str, Any] = {}
        start = 0
        for block in self.blocks:
            settings |= block.at(places[start : start + block.places])
            start += block.places
        return settings

    def coordinates(self, settings: Mapping[str, Any]) -> list[float]:
        """Where settings lie, as a model sees them: equal numbers for equal settings, near ones for near settings."""
        return [place for block in self.blocks for place in block.coordinates(settings)]

    def distributions(self) -> dict[str, BaseDistribution]:
        return {name: value for block in self.blocks for name, value in block.distributions().items()}

    def to_internal(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for block in self.blocks for name, value in block.to_internal(values).items()}

    def from_internal(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for block in self.blocks for key, value in block.from_internal(parameters).items()}


def _same(block: Block, key: str) -> bool:
    column = block.keys.index(key)
    return bool(block.points) and all(point[column] == block.points[0][column] for point in block.points)


def random_order(size: int, seed: int) -> Iterator[int]:
    """`0 .. size-1` in a seeded random order; its start does not depend on how much of it is used."""
    rng = random.Random(seed)
    if size <= SHUFFLED_WHOLE:
        order = list(range(size))
        rng.shuffle(order)
        yield from order
        return
    seen: set[int] = set()
    while len(seen) < size:
        index = rng.randrange(size)
        if index not in seen:
            seen.add(index)
            yield index


def build_space(entries: Mapping[str, Any], constraints: Sequence[str] = ()) -> Space:
    """Read the `space` section of a scenario file.

    Args:
        entries: key -> list of values, one value, a range, or a simplex; see the module's docstring.
        constraints: comparisons over numeric settings of the space.

    Raises:
        InputError: an entry cannot be read, a constraint names an unknown setting or leaves no point.
    """
    blocks = _read_entries(entries)
    rules = [Constraint.parse(text) for text in constraints]
    known = [key for block in blocks for key in block.keys]
    for rule in rules:
        for key in rule.keys:
            if key not in known:
                raise InputError(
                    f"constraint {rule.text!r} names {key!r}, which the space does not have: {nearest(key, known)}"
                )
    dropped: dict[str, int] = {}
    tied: list[Block] = []
    for block in blocks:
        if block.kind == "simplex" and block.size > len(block.points):
            dropped[" + ".join(block.keys) + " <= 1"] = block.size - len(block.points)
        tied.append(block)
    for rule in rules:
        touched = [block for block in tied if set(block.keys) & set(rule.keys)]
        tied = [block for block in tied if block not in touched] + _tie(touched, rule, dropped)
    order = {key: place for place, key in enumerate(known)}
    return Space(tuple(sorted(tied, key=lambda block: order[block.keys[0]])), dropped)


def _tie(blocks: list[Block], rule: Constraint, dropped: dict[str, int]) -> list[Block]:
    """One block out of those that a constraint touches, without the points that violate it."""
    for block in blocks:
        if not block.points:
            raise InputError(f"constraint {rule.text!r}: {block.keys[0]} is a range; give it a list of values")
    keys = tuple(key for block in blocks for key in block.keys)
    combinations = [sum(parts, ()) for parts in itertools.product(*(block.points for block in blocks))]
    kept = tuple(point for point in combinations if rule.holds(dict(zip(keys, point))))
    if not kept:
        raise InputError(f"constraint {rule.text!r} leaves no grid point")
    if len(kept) == len(combinations):
        return blocks
    dropped[rule.text] = len(combinations) - len(kept)
    size = math.prod(block.size for block in blocks)
    if len(keys) == 1:
        return [replace(list_block(keys[0], [point[0] for point in kept]), size=size)]
    return [Block(keys, kept, "fixed" if len(kept) == 1 else "choice", size)]


def without_points(block: Block, bad: set[tuple[Any, ...]]) -> Block:
    """The block without some of its points; settings that belong together are then refined over the rest only."""
    kept = tuple(point for point in block.points if point not in bad)
    if len(block.keys) == 1:
        return replace(list_block(block.keys[0], [point[0] for point in kept]), size=block.size)
    return replace(block, points=kept, kind="fixed" if len(kept) == 1 else "choice")


def _read_entries(entries: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for name, entry in entries.items():
        keys = tuple(part.strip() for part in str(name).split(","))
        if isinstance(entry, Mapping) and "simplex" in entry:
            if set(entry) - {"simplex", "given"}:
                raise InputError(
                    f"space: {name!r} = {dict(entry)}: only simplex and given are understood beside each other"
                )
            blocks += _simplex(keys, entry["simplex"], entry.get("given") or {})
            continue
        if len(keys) != 1:
            raise InputError(f"space: {name!r}: several settings belong together only as {{simplex: STEP}}")
        blocks.append(_range(keys[0], entry) if isinstance(entry, Mapping) else list_block(keys[0], entry))
    names = [key for block in blocks for key in block.keys]
    twice = sorted({key for key in names if names.count(key) > 1})
    if twice:
        raise InputError(f"space: {twice[0]!r} stands there twice")
    return blocks


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


def _range(key: str, entry: Mapping[str, Any]) -> Block:
    unknown = sorted(set(entry) - {"low", "high", "log"})
    if unknown or not {"low", "high"} <= set(entry):
        raise InputError(f"space: {key} = {dict(entry)}: write a list of values, or {{low: 0, high: 1, log: false}}")
    try:
        low, high = float(entry["low"]), float(entry["high"])
    except (TypeError, ValueError):
        raise InputError(f"space: {key} = {dict(entry)}: low and high must be numbers") from None
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"space: {key} = {dict(entry)}: log must be true or false")
    if not low < high or (log and low <= 0):
        raise InputError(
            f"space: {key} = {dict(entry)}: low must be below high" + (", and above 0 with log" if log else "")
        )
    return Block((key,), (), "float", 1, low, high, log)


def _simplex(keys: tuple[str, ...], step: Any, given: Mapping[str, Any]) -> list[Block]:
    where = f"space: {', '.join(keys)}"
    if len(keys) != 2:
        raise InputError(f"{where}: a simplex needs two settings (the third share is what they leave)")
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step <= 1:
        raise InputError(f"{where}: simplex = {step!r}: the step must lie above 0 and not above 1")
    count = round(1 / step)
    if abs(count * step - 1) > 1e-9:
        raise InputError(f"{where}: simplex = {step}: the step must divide 1")
    ticks = [round(index / count, 10) for index in range(count + 1)]
    columns = [_column(key, given[key]) if key in given else ticks for key in keys]
    pairs = list(itertools.product(*columns))
    kept = tuple(pair for pair in pairs if sum(pair) <= 1 + 1e-9)
    if not kept:
        raise InputError(f"{' + '.join(keys)} is above 1 for {dict(given)}: lower one of them")
    if not given:
        return [Block(keys, kept, "simplex", len(pairs))]
    fixed = [len(set(column)) == 1 for column in zip(*kept)]
    if any(fixed):
        # One share is given: the other is an ordinary setting between its smallest and largest feasible value.
        return [list_block(key, sorted(set(column))) for key, column in zip(keys, zip(*kept))]
    return [Block(keys, kept, "choice", len(pairs))]


def _column(key: str, value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise InputError(f"{key} = {number!r}: a share between 0 and 1 is expected")
    return [float(number) for number in values]
