"""Scenario: two domains, their items, their users' histories, a split, and the stored candidates.

Ids. Items carry one global id: domain X is `0 .. num_x-1`, domain Y is `num_x .. num_items-1`; the pad id
`num_items` never appears on disk. The local id of a Y item is its global id minus `num_x`.

On disk (one folder per scenario, written to a temporary name and renamed):

    manifest.json                  name, domains, counts, where it came from, one hash per part, fingerprint
    items.parquet                  one row per item in global order: external_id, title, description, image, and
                                   categories where the source has them
    users.parquet                  one row per user: external_id
    {train,valid,test}.{users,offsets,items,times}.npy
    candidates.{valid,test}.npy    (cases, C) int32 global ids of the target's domain, -1 where there are fewer
    images/                        optional; `image` in items.parquet is relative to the scenario's folder, or it is
                                   the address (http, https) of an image that was not fetched
    features/                      frozen feature matrices (llmemf.features.matrix)
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmemf.command_line import command_line
from llmemf.errors import InputError, nearest
from llmemf.io import atomic_folder, bytes_hash, read_array
from llmemf.scenarios.manifest import FORMAT, MANIFEST, REMEDY, Manifest, fingerprint_of, read_manifest
from llmemf.scenarios.names import check_free
from llmemf.scenarios.sequences import Sequences
from llmemf.text_format import plural

SPLITS = ("train", "valid", "test")
ITEM_COLUMNS = ("external_id", "title", "description", "image")
OPTIONAL_ITEM_COLUMNS = ("categories",)
"""Present in the item table of sources that have them: `Books > Fiction | Gifts`, empty where unknown."""


@dataclass(frozen=True)
class Scenario:
    """Two domains and their users' histories, ready for training and evaluation.

    Attributes:
        name: folder name below the data root.
        domains: short lower-case names of X and Y, used in metric names (`val/movie/mrr`).
        num_x: number of items of domain X.
        items: one row per item in global id order with `ITEM_COLUMNS` and, where the source has them, any of
            `OPTIONAL_ITEM_COLUMNS` (strings; empty where unknown).
        user_ids: external id of each dense user id.
        train, valid, test: the split; see `Sequences`.
        candidates: for "valid" and "test" the stored negatives (cases, C) int32, -1 padded.
        source: plain facts about the origin (reader, options, encoder-independent notes), kept in the manifest.
        folder: where it was loaded from, None for one that lives in memory only.
    """

    name: str
    domains: tuple[str, str]
    num_x: int
    items: pd.DataFrame
    user_ids: np.ndarray
    train: Sequences
    valid: Sequences
    test: Sequences
    candidates: dict[str, np.ndarray]
    source: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def location(self) -> Path:
        """The folder of a scenario that lies on the disk.

        Raises:
            InputError: it lives in memory only.
        """
        if self.folder is None:
            raise InputError(f"scenario {self.name!r} is not on the disk yet: save it first")
        return self.folder

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def num_y(self) -> int:
        return self.num_items - self.num_x

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def item_columns(self) -> list[str]:
        """The columns of the item table that belong to the scenario."""
        return [*ITEM_COLUMNS, *(column for column in OPTIONAL_ITEM_COLUMNS if column in self.items.columns)]

    def split(self, name: str) -> Sequences:
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]

    def domain_of(self, items: np.ndarray) -> np.ndarray:
        """0 for items of X, 1 for items of Y (global ids)."""
        return (np.asarray(items) >= self.num_x).astype(np.int8)

    def items_hash(self) -> str:
        """SHA-256 over the item table; a feature matrix is bound to it."""
        parts = [f"{self.num_x}|{self.num_items}"]
        for column in self.item_columns:
            name = column if column in OPTIONAL_ITEM_COLUMNS else ""
            parts.append(name + "\x1f".join(self.items[column].astype(str)) + "\x1e")
        return bytes_hash(*(part.encode() for part in parts))

    def hashes(self) -> dict[str, str]:
        """One SHA-256 per part: items, users, the three splits, the two candidate tables."""
        parts = {"items": self.items_hash()}
        parts["users"] = bytes_hash("\x1f".join(map(str, self.user_ids)).encode())
        parts.update({name: self.split(name).hash() for name in SPLITS})
        for name, table in self.candidates.items():
            content = np.ascontiguousarray(table, dtype="<i4").tobytes()
            parts[f"candidates_{name}"] = bytes_hash(f"{table.shape}".encode(), content)
        return parts

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all parts and the domain names: goes into every run."""
        return fingerprint_of(self.domains, self.hashes())

    def validate(self) -> None:
        """Check every invariant that training and ranking rely on.

        Raises:
            InputError: naming the offending value and what was expected.
        """
        if len(self.domains) != 2 or self.domains[0] == self.domains[1]:
            raise InputError(f"scenario {self.name!r}: two different domain names are needed, got {self.domains}")
        for domain, count in zip(self.domains, (self.num_x, self.num_y)):
            if count <= 0:
                raise InputError(f"scenario {self.name!r}: domain {domain!r} is empty; both domains need items")
        missing = [column for column in ITEM_COLUMNS if column not in self.items.columns]
        if missing:
            raise InputError(f"scenario {self.name!r}: the item table lacks the columns {missing}")
        for name in SPLITS:
            self._validate_split(name)
        for name in ("valid", "test"):
            self._validate_candidates(name)

    def _validate_split(self, name: str) -> None:
        sequences = self.split(name)
        where = f"scenario {self.name!r}, split {name!r}"
        if len(sequences) == 0:
            raise InputError(f"{where}: there is no sequence; every split needs at least one")
        if len(sequences.offsets) != len(sequences) + 1 or sequences.offsets[-1] != len(sequences.items):
            raise InputError(f"{where}: offsets do not match the items; import the scenario again")
        if sequences.lengths.min() < 2:
            row = int(sequences.lengths.argmin())
            raise InputError(
                f"{where}: sequence {row} has {plural(sequences.lengths[row], 'item')}; at least 2 are needed"
            )
        low, high = int(sequences.items.min()), int(sequences.items.max())
        if low < 0 or high >= self.num_items:
            bad = low if low < 0 else high
            raise InputError(f"{where}: item id {bad} is out of range 0..{self.num_items - 1}")
        if sequences.users.min() < 0 or sequences.users.max() >= self.num_users:
            raise InputError(f"{where}: user id {sequences.users.max()} is out of range 0..{self.num_users - 1}")

    def _validate_candidates(self, name: str) -> None:
        table, targets = self.candidates.get(name), self.split(name).targets
        where = f"scenario {self.name!r}, candidates of {name!r}"
        if table is None or table.ndim != 2 or len(table) != len(targets):
            raise InputError(f"{where}: one row per case is needed ({len(targets)} cases)")
        real = table >= 0
        if not real.any(axis=1).all():
            raise InputError(f"{where}: case {int((~real.any(axis=1)).argmax())} has no candidate")
        wrong = real & ((table >= self.num_x) != (targets >= self.num_x)[:, None])
        if wrong.any() or table.max() >= self.num_items:
            raise InputError(f"{where}: a candidate lies outside the target's domain; import the scenario again")
        if (real & (table == targets[:, None])).any():
            raise InputError(f"{where}: a target stands among its own candidates; import the scenario again")

    def save(self, data_root: str | Path, *, overwrite: bool = False, extra: Path | None = None) -> Path:
        """Write the scenario below `data_root`; the folder appears whole or not at all.

        Args:
            data_root: folder that holds the prepared scenarios.
            overwrite: replace a scenario of the same name (its features go with it).
            extra: a folder whose content (for example `images/`) is copied into the scenario's folder.

        Raises:
            InputError: the scenario exists already, or the folder cannot be written.
        """
        self.validate()
        if not overwrite:
            check_free(self.name, data_root)
        target = Path(data_root) / self.name
        with atomic_folder(target) as temporary:
            mode = temporary.stat().st_mode
            if extra is not None:
                shutil.copytree(extra, temporary, dirs_exist_ok=True)
                # Copied along is the mode of a temporary folder, which is its owner's alone.
                temporary.chmod(mode)
            self.items[self.item_columns].to_parquet(temporary / "items.parquet", index=False)
            pd.DataFrame({"external_id": np.asarray(self.user_ids, dtype=str)}).to_parquet(
                temporary / "users.parquet", index=False
            )
            for name in SPLITS:
                for part in ("users", "offsets", "items", "times"):
                    np.save(temporary / f"{name}.{part}.npy", getattr(self.split(name), part))
            for name, table in self.candidates.items():
                np.save(temporary / f"candidates.{name}.npy", table.astype(np.int32))
            (temporary / MANIFEST).write_text(json.dumps(self._manifest().model_dump(), indent=2) + "\n")
        return target

    def _manifest(self) -> Manifest:
        hashes = self.hashes()
        return Manifest(
            format=FORMAT,
            name=self.name,
            domains=self.domains,
            num_x=self.num_x,
            num_items=self.num_items,
            num_users=self.num_users,
            sequences={name: len(self.split(name)) for name in SPLITS},
            source=self.source,
            hashes=hashes,
            fingerprint=fingerprint_of(self.domains, hashes),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Scenario:
        """Read a scenario and verify it against the hashes in its manifest.

        Raises:
            InputError: there is no scenario, it has another format, or a file was changed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            columns = [field.name for field in fields(Sequences)]
            parts = {
                name: Sequences(*(read_array(folder / f"{name}.{column}.npy", REMEDY) for column in columns))
                for name in SPLITS
            }
            scenario = cls(
                name=manifest.name,
                domains=manifest.domains,
                num_x=manifest.num_x,
                items=pd.read_parquet(folder / "items.parquet"),
                user_ids=pd.read_parquet(folder / "users.parquet")["external_id"].to_numpy(),
                candidates={name: read_array(folder / f"candidates.{name}.npy", REMEDY) for name in ("valid", "test")},
                source=manifest.source,
                folder=folder,
                **parts,
            )
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise InputError(f"scenario in {folder} cannot be read ({error}); import it again") from error
        actual = scenario.hashes()
        for part, expected in manifest.hashes.items():
            if actual.get(part) != expected:
                raise InputError(f"scenario in {folder}: {part!r} was changed after it was written; import it again")
        if fingerprint_of(scenario.domains, actual) != manifest.fingerprint:
            raise InputError(f"scenario in {folder}: manifest.json was changed after it was written; import it again")
        return scenario


def find_scenario(name: str, data_root: str | Path) -> Scenario:
    """Load a prepared scenario by name.

    Raises:
        InputError: there is none of that name; the nearest existing one is offered.
    """
    root = Path(data_root)
    if (root / name / MANIFEST).exists():
        return Scenario.load(root / name)
    existing = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    hint = nearest(name, existing) if existing else "no scenario is prepared there yet"
    how = command_line("data", "--help")
    raise InputError(f"unknown scenario {name!r} in {root}: {hint} (`{how}` says how another one is made)")
