"""The search space of a sweep: grid points in seeded random order, and the continuous space around them.

Settings are kept in independent blocks. A block is one setting, or several that belong together (a simplex, or settings
that a constraint ties); the grid is the product of the blocks' feasible points, and is never written out.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from sweeps.search.block import Block

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SHUFFLED_WHOLE = 200_000
"""Grids up to this size are shuffled as a whole; larger ones are drawn point by point without repetition."""


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
    if size <= SHUFFLED_WHOLE:
        yield from _whole_order(size, seed)
        return
    rng = random.Random(seed)
    seen: set[int] = set()
    while len(seen) < size:
        index = rng.randrange(size)
        if index not in seen:
            seen.add(index)
            yield index


@lru_cache(maxsize=4)
def _whole_order(size: int, seed: int) -> list[int]:
    """Kept, because every plan goes through it several times."""
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order
