"""Raw interactions of two domains in little memory: names become 64-bit keys, and everything waits on disk.

While interactions are collected nothing grows but files: 20 bytes per interaction (key of the user, key of the item,
seconds), and the names. At the end single columns are loaded one after the other. Keys are hashes of the names; that two
names share one is checked for every name that stays, exactly.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc

from llmemf.errors import InputError
from llmemf.io import scratch_folder, storage_errors

KEY_SALT = "llmemf-names-{:03d}"
"""The hash wants 16 characters."""
COLUMNS = {"users": np.uint64, "items": np.uint64, "times": np.uint32}
STEP = 1 << 20
SHARED_ITEM = "item is also in X"
ONE_DOMAIN = "user of one domain alone"


class NameStore:
    """Names by key, written to disk as they come and looked up once at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        schema = pa.schema([("key", pa.uint64()), ("name", pa.string())])
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
        self._schema = schema
        self._writer = pyarrow.ipc.new_file(path, schema, options=options)

    def add(self, keys: np.ndarray, names: pa.Array) -> None:
        self._writer.write_batch(pa.record_batch([pa.array(keys), names], schema=self._schema))

    def names_of(self, keys: np.ndarray) -> np.ndarray:
        """The name of every key (sorted, all of them stored); no name can be added any more.

        Raises:
            InputError: two names share a key.
        """
        self._writer.close()
        found = np.full(len(keys), None, dtype=object)
        known = np.zeros(len(keys), dtype=bool)
        with pa.OSFile(str(self._path)) as source:
            reader = pyarrow.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                stored = batch["key"].to_numpy()
                rows = np.flatnonzero(contains(keys, stored))
                places = np.searchsorted(keys, stored[rows])
                names = batch["name"].take(pa.array(rows)).to_numpy(zero_copy_only=False)
                clash = known[places] & (found[places] != names)
                if clash.any():
                    first = int(clash.argmax())
                    raise InputError(
                        f"the names {found[places[first]]!r} and {names[first]!r} share a 64-bit hash: choose another "
                        "--hash-seed"
                    )
                known[places] = True
                found[places] = names
        return found


@dataclass(frozen=True)
class Interactions:
    """Interactions by dense ids: items of X first, then those of Y.

    Attributes:
        users, items: (n,) int32.
        times: (n,) int64 Unix seconds.
        user_names: external id of every user; item_names likewise.
        num_x: number of items of X.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    user_names: np.ndarray
    item_names: np.ndarray
    num_x: int

    def __len__(self) -> int:
        return len(self.users)

    def where(self, mask: np.ndarray) -> Interactions:
        """Some of the interactions; ids and names stay."""
        return replace(self, users=self.users[mask], items=self.items[mask], times=self.times[mask])

    def by_domain(self) -> tuple[int, int]:
        """Number of interactions in X and in Y."""
        num_y = int((self.items >= self.num_x).sum())
        return len(self) - num_y, num_y

    def compact(self) -> Interactions:
        """Renumber users and items without gaps, in the order of their names."""
        user_ids, users = np.unique(self.users, return_inverse=True)
        item_ids, items = np.unique(self.items, return_inverse=True)
        user_order = np.argsort(self.user_names[user_ids].astype(str), kind="stable")
        in_y = item_ids >= self.num_x
        item_order = np.lexsort((self.item_names[item_ids].astype(str), in_y))
        return Interactions(
            _inverse(user_order)[users],
            _inverse(item_order)[items],
            self.times,
            self.user_names[user_ids][user_order],
            self.item_names[item_ids][item_order],
            int((~in_y).sum()),
        )


def _inverse(order: np.ndarray) -> np.ndarray:
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places


class InteractionCollector:
    """Takes interactions in any order and gives those of the users who are active in both domains.

    Use as a context manager: what is collected waits in a temporary folder below `scratch` (the system's by default).
    An item name that occurs in both domains is one item, which stays in X alone, or two with `shared_items`.
    """

    def __init__(self, scratch: Path | None = None, hash_seed: int = 0, *, shared_items: bool = False) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._stack = ExitStack()
        self._shared_items = shared_items
        self._salt = KEY_SALT.format(hash_seed)
        self.read = [0, 0]
        """Interactions taken, of X and of Y."""
        self.dropped: dict[str, list[int]] = {}
        """Interactions left out, of X and of Y, by reason."""

    def __enter__(self) -> Self:
        self._folder = self._stack.enter_context(scratch_folder(self._scratch, "prepare"))
        self._user_names = NameStore(self._folder / "users.arrow")
        self._item_names = [NameStore(self._folder / f"items_{domain}.arrow") for domain in (0, 1)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, domain: int, users: pa.Array, items: pa.Array, times: np.ndarray) -> None:
        """Take interactions of one domain (0 for X, 1 for Y); times are Unix seconds below 2^32."""
        if not len(times):
            return
        self.read[domain] += len(times)
        with storage_errors(self._folder):
            columns = {
                "users": self._keys(users, self._user_names),
                "items": self._keys(items, self._item_names[domain]),
                "times": times,
            }
            for name, values in columns.items():
                with (self._folder / f"{name}_{domain}").open("ab") as file:
                    values.astype(COLUMNS[name], copy=False).tofile(file)

    def finish(self) -> Interactions:
        """The interactions of users who are active in both domains, in the order in which they came, X before Y.

        Raises:
            InputError: nobody is active in both.
        """
        y_items = self._column("items", 1)
        shared = np.zeros(len(y_items), dtype=bool)
        if not self._shared_items:
            shared = contains(np.unique(self._column("items", 0)), y_items)
            self._drop(SHARED_ITEM, 1, int(shared.sum()))
        del y_items
        x_users, y_users = np.unique(self._column("users", 0)), self._column("users", 1)
        both = np.unique(y_users[contains(x_users, y_users) & ~shared])
        del x_users, y_users
        if not len(both):
            raise InputError(
                f"no user has interactions in both domains ({self.read[0]:,} in X, {self.read[1]:,} in Y were read): "
                "are both files of one release, with the same user ids?"
            )
        users, items, times, names = [], [], [], []
        num_x = 0
        for domain in (0, 1):
            keys = self._column("users", domain)
            active = contains(both, keys)
            counted = ~shared if domain == 1 else np.ones_like(active)
            self._drop(ONE_DOMAIN, domain, int((~active & counted).sum()))
            active &= counted
            users.append(np.searchsorted(both, keys[active]).astype(np.int32))
            item_keys, places = np.unique(self._column("items", domain)[active], return_inverse=True)
            items.append((places + num_x).astype(np.int32))
            times.append(self._column("times", domain)[active].astype(np.int64))
            names.append(self._item_names[domain].names_of(item_keys))
            num_x = num_x or len(item_keys)
        return Interactions(
            np.concatenate(users),
            np.concatenate(items),
            np.concatenate(times),
            self._user_names.names_of(both),
            np.concatenate(names),
            num_x,
        )

    def _column(self, name: str, domain: int) -> np.ndarray:
        path = self._folder / f"{name}_{domain}"
        return np.fromfile(path, COLUMNS[name]) if path.exists() else np.zeros(0, COLUMNS[name])

    def _keys(self, names: pa.Array, store: NameStore) -> np.ndarray:
        """The key of every name; each different name is stored with its key."""
        encoded = names.dictionary_encode()
        values = encoded.dictionary.to_numpy(zero_copy_only=False)
        keys = pd.util.hash_array(values, hash_key=self._salt, categorize=False)
        store.add(keys, encoded.dictionary)
        return keys[encoded.indices.to_numpy()]

    def _drop(self, reason: str, domain: int, count: int) -> None:
        self.dropped.setdefault(reason, [0, 0])[domain] += count


def contains(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each of `values`, is it one of `sorted_values`? In steps, so that long columns need no second copy."""
    result = np.zeros(len(values), dtype=bool)
    if not len(sorted_values):
        return result
    for start in range(0, len(values), STEP):
        part = values[start : start + STEP]
        places = np.minimum(np.searchsorted(sorted_values, part), len(sorted_values) - 1)
        result[start : start + STEP] = sorted_values[places] == part
    return result
