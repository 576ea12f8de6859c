"""A frozen feature matrix on disk: one row per item, memory-mapped, bound to the item table it was made from.

Layout, below a scenario's folder (written to a temporary name and renamed):

    features/<kind>.<encoder>/     kind: text or image; encoder: offline, imported, clip-ViT-B-32-title, ...
        rows.npy                   (num_items, width) float32 or float16, row i belongs to global item id i
        has.npy                    (num_items,) bool; False rows are zero and leave the mixture
        manifest.json              kind, encoder, width, hashes, and what the encoder wants to say of itself

Packed features (see `llmemf.features.packed`) are such a folder whose rows have unit length and are read where they lie.

    profiles/profile.<encoder>/    the same for user profiles, (num_users, width), bound to users, items and training split
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from pydantic import BaseModel

from llmemf.errors import InputError
from llmemf.io import atomic_folder, bytes_hash, read_array, read_json_model, text_hash
from llmemf.scenarios.scenario import Scenario

REMEDY = "make the features again"
BLOCK = 65536
"""Rows that are read at once."""
KINDS = ("text", "image")
"""Kinds of item features."""
PROFILE = "profile"
"""The kind whose rows are users."""
CLIP = "clip"
"""`details["family"]` of matrices made by `llmemf features encode`."""
PACKED = "packed"
"""The entry of `details` that packed matrices have."""


class MatrixManifest(BaseModel):
    """What `manifest.json` of a matrix says, as far as it is read again."""

    kind: str
    encoder: str
    items_hash: str
    hash: str
    details: dict[str, Any]


def read_matrix_manifest(folder: Path) -> MatrixManifest:
    """The manifest of a matrix.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return read_json_model(folder / "manifest.json", MatrixManifest, REMEDY)
    except FileNotFoundError:
        raise InputError(f"{folder} holds no feature matrix (manifest.json is missing): {REMEDY}") from None


@dataclass(frozen=True)
class FeatureMatrix:
    """Frozen features of every item of a scenario, or of every user (kind "profile").

    Attributes:
        kind: "text", "image" or "profile".
        encoder: name of what made it ("offline", "imported", ...); shown wherever results are shown.
        rows: (num_items, width) float, or (num_users, width); zero where `has` is False.
        has: (num_items,) or (num_users,) bool.
        items_hash: `Scenario.items_hash()` of the table it was made from, or `profiles_hash` of the scenario.
        details: plain facts about the encoder (settings, package versions, counts).
    """

    kind: str
    encoder: str
    rows: np.ndarray
    has: np.ndarray
    items_hash: str
    details: dict = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    @property
    def name(self) -> str:
        return f"{self.kind}.{self.encoder}"

    @property
    def packed(self) -> bool:
        """Whether rows have unit length already and are read where they lie."""
        return PACKED in self.details

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """A packed matrix travels between processes as the name of its folder, which each of them maps into its memory."""
        if not self.packed or not isinstance(self.rows, np.memmap):
            return super().__reduce_ex__(protocol)
        folder = Path(str(self.rows.filename)).parent
        return _load_again, (str(folder), read_matrix_manifest(folder).hash)

    def hash(self) -> str:
        """SHA-256 over rows and mask."""
        head = f"{self.rows.shape}|{self.rows.dtype}".encode()
        return bytes_hash(head, np.ascontiguousarray(self.rows).data, np.ascontiguousarray(self.has, dtype=bool).data)

    def check(self, scenario: Scenario) -> None:
        """Raise InputError unless the matrix fits the scenario: kind, rows, what it was made from, finite values."""
        if self.kind not in (*KINDS, PROFILE):
            raise InputError(f"feature matrix {self.name}: kind must be one of {(*KINDS, PROFILE)}, got {self.kind!r}")
        of_users = self.kind == PROFILE
        subject, names = ("user", scenario.user_ids) if of_users else ("item", scenario.items.external_id)
        count = len(names)
        if self.rows.ndim != 2 or len(self.rows) != count or self.has.shape != (count,):
            raise InputError(
                f"feature matrix {self.name}: shape {self.rows.shape} does not fit scenario {scenario.name!r}, "
                f"which has {count} {subject}s; one row per {subject} in {'' if of_users else 'global '}id order is needed"
            )
        if self.items_hash != (profiles_hash(scenario) if of_users else scenario.items_hash()):
            made_from = "other users, items or training histories" if of_users else "another item table"
            raise InputError(
                f"feature matrix {self.name} was made for {made_from} than that of scenario {scenario.name!r}; make it "
                "again"
            )
        for start in range(0, len(self.rows), BLOCK):
            finite = np.isfinite(self.rows[start : start + BLOCK]).all(axis=1)
            if not finite.all():
                row = start + int((~finite).argmax())
                raise InputError(
                    f"feature matrix {self.name}: row {row} ({subject} {names[row]!r}) holds NaN or "
                    "infinity; repair it, or mark the row as missing in has.npy"
                )
            stray = self.rows[start : start + BLOCK].any(axis=1) & ~self.has[start : start + BLOCK]
            if stray.any():
                row = start + int(stray.argmax())
                raise InputError(
                    f"feature matrix {self.name}: row {row} is marked as missing but is not zero; make it again"
                )

    def save(self, scenario: Scenario, *, overwrite: bool = False) -> Path:
        """Write below the scenario's folder; appears whole or not at all.

        Raises:
            InputError: it does not fit the scenario, exists already, or cannot be written.
        """
        self.check(scenario)
        if not overwrite:
            check_absent(scenario, [self.name])
        target = matrix_root(scenario, self.kind) / self.name
        with atomic_folder(target) as temporary:
            np.save(temporary / "rows.npy", self.rows)
            np.save(temporary / "has.npy", self.has.astype(bool))
            manifest = {
                "kind": self.kind,
                "encoder": self.encoder,
                "width": self.width,
                "rows": len(self.rows),
                f"{'users' if self.kind == PROFILE else 'items'}_with_feature": int(self.has.sum()),
                "items_hash": self.items_hash,
                "hash": self.hash(),
                "details": self.details,
            }
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        return target

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> FeatureMatrix:
        """Read a matrix; its rows stay on the disk until they are used.

        Args:
            folder: where it was saved.
            verify: read all of it and compare with the hash in the manifest.

        Raises:
            InputError: files are missing or damaged, or were changed after they were written.
        """
        folder = Path(folder)
        manifest = read_matrix_manifest(folder)
        matrix = cls(
            kind=manifest.kind,
            encoder=manifest.encoder,
            rows=read_array(folder / "rows.npy", REMEDY, mapped=True),
            has=read_array(folder / "has.npy", REMEDY),
            items_hash=manifest.items_hash,
            details=manifest.details,
        )
        if verify and matrix.hash() != manifest.hash:
            raise InputError(f"feature matrix in {folder} was changed after it was written; make it again")
        return matrix


def _load_again(folder: str, expected: str) -> FeatureMatrix:
    """A packed matrix in another process.

    Raises:
        InputError: this machine does not see the folder, or it holds other features by now.
    """
    if not Path(folder).is_dir():
        raise InputError(
            f"packed features are read from {folder}, which this machine does not see: mount the data root at the same path "
            "on every node, or use the features that they were packed from"
        )
    if read_matrix_manifest(Path(folder)).hash != expected:
        raise InputError(f"the features in {folder} were replaced while they were in use: start again")
    return FeatureMatrix.load(folder)


def unit_rows(rows: np.ndarray, has: np.ndarray) -> np.ndarray:
    """The rows in fp32, each of unit length where `has` is true and zero elsewhere; a copy.

    Rows of any finite size get their direction: powers of two, which change no digit, bring them near one first.
    """
    rows = np.array(rows, dtype=np.float32)
    rows[~has] = 0
    largest = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
    rows = np.ldexp(rows, -np.frexp(largest)[1])
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return rows


def feature_folders(scenario: Scenario) -> list[Path]:
    """Folders of all matrices of item features of a scenario, by name."""
    if scenario.folder is None:
        return []
    return sorted(path.parent for path in (scenario.folder / "features").glob("[!.]*/manifest.json"))


def profiles_hash(scenario: Scenario) -> str:
    """SHA-256 over all that a profile is made from: the users, the item table, the training split."""
    hashes = scenario.hashes()
    return text_hash(*(hashes[part] for part in ("users", "items", "train")), separator="|")


def matrix_root(scenario: Scenario, kind: str) -> Path:
    """The folder of all matrices of a kind."""
    return scenario.location / ("profiles" if kind == PROFILE else "features")


def check_absent(scenario: Scenario, names: Iterable[str]) -> None:
    """Raise InputError if features of one of these names (`text.offline`) exist already."""
    taken = [name for name in names if (matrix_root(scenario, name.split(".")[0]) / name / "manifest.json").exists()]
    if taken:
        raise InputError(
            f"features {', '.join(taken)} of scenario {scenario.name!r} exist already; give --overwrite to replace them"
        )


def save_all(matrices: Sequence[FeatureMatrix], scenario: Scenario, *, overwrite: bool = False) -> None:
    """Write several matrices; nothing is written if one of them exists already or does not fit the scenario.

    Raises:
        InputError: as `FeatureMatrix.save`.
    """
    for matrix in matrices:
        matrix.check(scenario)
    if not overwrite:
        check_absent(scenario, [matrix.name for matrix in matrices])
    for matrix in matrices:
        matrix.save(scenario, overwrite=overwrite)
