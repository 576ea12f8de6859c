"""Chronological item sequences: the histories of one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmemf.io import bytes_hash


@dataclass(frozen=True)
class Sequences:
    """Chronological item sequences in compressed rows; row i is `items[offsets[i]:offsets[i+1]]`.

    In `valid` and `test` the last item of a row is the held-out target and the rest is its history.

    Attributes:
        users: (S,) int32 dense user id of each sequence.
        offsets: (S+1,) int64.
        items: (T,) int32 global item ids.
        times: (T,) int64 Unix seconds, -1 where the source has no times.
    """

    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray

    @classmethod
    def from_rows(
        cls, users: ArrayLike, rows: Sequence[ArrayLike], times: Sequence[ArrayLike] | None = None
    ) -> Sequences:
        """Build from one list of global item ids (and optionally Unix seconds) per sequence."""
        lengths = np.fromiter((np.size(row) for row in rows), dtype=np.int64, count=len(rows))
        items = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
        flat_times = (
            np.concatenate([np.asarray(row, dtype=np.int64) for row in times])
            if times is not None and len(times)
            else np.full(len(items), -1, dtype=np.int64)
        )
        return cls(np.asarray(users, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), items, flat_times)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """(S,) number of items of each sequence."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> np.ndarray:
        """(T,) number of the sequence of every item."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def users_by_item(self) -> np.ndarray:
        """(T,) dense user id of every item."""
        return np.repeat(self.users, self.lengths)

    @property
    def last_places(self) -> np.ndarray:
        """(S,) where in `items` and `times` the last item of every sequence stands."""
        return self.offsets[1:] - 1

    def row(self, index: int) -> np.ndarray:
        """Global item ids of one sequence, oldest first."""
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    @property
    def targets(self) -> np.ndarray:
        """(S,) last item of every sequence: the held-out target in `valid` and `test`."""
        return self.items[self.last_places]

    def hash(self) -> str:
        """SHA-256 over the content, independent of how it is stored."""
        columns = ((self.users, "<i4"), (self.offsets, "<i8"), (self.items, "<i4"), (self.times, "<i8"))
        return bytes_hash(*(np.ascontiguousarray(array, dtype=kind).tobytes() for array, kind in columns))


def distinct_items(
    owners: np.ndarray, items: np.ndarray, num_owners: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct items of each owner (a user, a sequence), ascending: offsets by owner, and items.

    Args:
        owners: (T,) owner of every item.
        items: (T,) ids below `num_items`.
    """
    pairs = np.unique(owners.astype(np.int64) * num_items + items)
    return np.searchsorted(pairs // num_items, np.arange(num_owners + 1)), pairs % num_items
