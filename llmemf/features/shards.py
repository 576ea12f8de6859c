"""Encoded rows in shards, so that a killed run loses little, and rows of different origin are never mixed.

A shard holds the rows of a fixed range of items. It carries the identity of the run that made it (model, weights,
precision, pooling, source: all that decides about the rows) and the hash of every item's content. It counts as done only
while both are still the same. Several processes on several machines can write into one folder.

    features/.<kind>.<encoder>.shards/
        lock                     held while a command encodes into this folder
        00000.tries              one byte for each worker of a cluster that began with it
        00000.safetensors        rows (S, width) float32, has (S,) bool, digests (S, 32) uint8; identity, problems
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmemf.errors import InputError
from llmemf.features.item_sources import Source
from llmemf.io import atomic_file, bytes_hash, json_hash, storage_errors


@dataclass(frozen=True)
class Shard:
    """Rows of S neighbouring items.

    Attributes:
        rows: (S, width) float32, zero where `has` is False.
        has: (S,) bool.
        digests: (S, 32) uint8 SHA-256 of every item's content, zeros where there is none.
        problems: item -> why its content could not be encoded.
        counts: numbers to add up over the shards.
    """

    rows: np.ndarray
    has: np.ndarray
    digests: np.ndarray
    problems: dict[int, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardStore:
    """The shards of one run.

    Attributes:
        folder: where they lie, shared by all machines that write.
        identity: all that decides about the rows, apart from the items' contents.
        num_items: items of the scenario.
        size: items of a shard.
    """

    folder: Path
    identity: dict
    num_items: int
    size: int

    @property
    def key(self) -> str:
        """SHA-256 over the identity and the cut into shards."""
        return json_hash(self.identity | {"num_items": self.num_items, "shard_size": self.size})

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.num_items // self.size)

    def items(self, number: int) -> range:
        return range(number * self.size, min(self.num_items, (number + 1) * self.size))

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def write(self, number: int, shard: Shard) -> None:
        """Write a shard; it appears whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        problems = [[item, problem] for item, problem in shard.problems.items()]
        facts = {"key": self.key, "problems": json.dumps(problems), "counts": json.dumps(shard.counts)}
        arrays = {"rows": shard.rows, "has": shard.has, "digests": shard.digests}
        with storage_errors(self.path(number), (SafetensorError,)):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.path(number)) as temporary:
                save_file(arrays, temporary, metadata=facts)

    def read(self, number: int) -> Shard | None:
        """Read a shard; None if there is none, it is damaged, or a run of another identity made it."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(number), framework="numpy") as file:
                facts = file.metadata() or {}
                if facts.get("key") != self.key:
                    return None
                rows, has, digests = (file.get_tensor(name) for name in ("rows", "has", "digests"))
            problems = {int(item): problem for item, problem in json.loads(facts["problems"])}
            shard = Shard(rows, has, digests, problems, json.loads(facts["counts"]))
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return shard if len(shard.rows) == len(self.items(number)) else None

    def pending(self, source: Source) -> list[int]:
        """Numbers of the shards that are missing, or were made from other contents than the source holds now."""
        return [number for number in range(self.count) if not self._is_done(number, source)]

    def _is_done(self, number: int, source: Source) -> bool:
        shard = self.read(number)
        return shard is not None and np.array_equal(shard.digests, source.digests(self.items(number)))

    def count_try(self, number: int) -> int:
        """Note that a worker begins with a shard; returns how many have begun since `forget_tries`."""
        with self._tries(number).open("ab") as file:
            file.write(b".")
        return self._tries(number).stat().st_size

    def forget_tries(self) -> None:
        for number in range(self.count):
            self._tries(number).unlink(missing_ok=True)

    def _tries(self, number: int) -> Path:
        return self.path(number).with_suffix(".tries")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from encoding the same features; the system releases the lock of a killed one.

        Raises:
            InputError: another process holds it, or the folder cannot be written.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a+")
        with lock:
            try:
                # Unlike flock, no worker process inherits it: with the command's death it is free at once.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                lock.seek(0)
                raise InputError(
                    f"another command encodes the same features now ({lock.read().strip() or 'process unknown'}): "
                    "wait for its end, or stop it and run this again"
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(f"process {os.getpid()} on {os.uname().nodename}")
            lock.flush()
            yield


def contents_hash(digests: np.ndarray) -> str:
    """SHA-256 over the digests of all items, (N, 32) uint8: stands for everything that was encoded."""
    return bytes_hash(np.ascontiguousarray(digests, dtype=np.uint8).data)
