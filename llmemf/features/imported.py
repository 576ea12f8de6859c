"""Import of ready feature matrices (`text_feat.npy`, `image_feat.npy`), one row per item in global id order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from llmemf.errors import InputError
from llmemf.features.matrix import BLOCK, KINDS, FeatureMatrix
from llmemf.io import file_hash, read_array
from llmemf.scenarios.names import check_name
from llmemf.scenarios.scenario import Scenario

RESERVED = ("auto", "offline")


def import_matrix(scenario: Scenario, kind: str, path: str | Path, *, encoder: str = "imported") -> FeatureMatrix:
    """Read a ready matrix; rows that are all zero count as missing.

    Args:
        scenario: the scenario whose items the rows belong to, X first, then Y.
        kind: "text" or "image".
        path: .npy file, (num_items, width), floating point; float64 is stored as float32. Rows are kept as they are.
        encoder: the name under which the features are shown and found.

    Raises:
        InputError: no such file, no .npy file of numbers, wrong shape, NaN or infinity, a row of a length that float32
            does not have, an unusable encoder name, or no row with any content.
    """
    if kind not in KINDS:
        raise InputError(f"feature kind {kind!r}: must be one of {', '.join(KINDS)}")
    check_encoder(encoder)
    source = load_npy(path)
    if source.ndim != 2 or len(source) != scenario.num_items or source.shape[1] < 1:
        first, second = scenario.domains
        raise InputError(
            f"{path}: shape {source.shape} does not fit scenario {scenario.name!r}: one row for each of its "
            f"{scenario.num_items} items is needed, {scenario.num_x} of {first} first, then {scenario.num_y} of {second}, "
            "none for padding"
        )
    if not np.issubdtype(source.dtype, np.floating):
        raise InputError(f"{path}: values of type {source.dtype}; floating point numbers are needed")
    rows = np.zeros(source.shape, dtype=np.float16 if source.dtype == np.float16 else np.float32)
    for start in range(0, len(source), BLOCK):
        rows[start : start + BLOCK] = _checked(scenario, path, start, source[start : start + BLOCK], rows.dtype)
    has = np.asarray(rows.any(axis=1))
    if not has.any():
        raise InputError(f"{path}: no row holds any value but zero; leave the modality out with --set modalities=...")
    details = {
        "method": "imported matrix",
        "file": Path(path).name,
        "sha256": file_hash(Path(path)),
        "items_without_feature": int((~has).sum()),
    }
    return FeatureMatrix(kind, encoder, rows, has, scenario.items_hash(), details)


def check_encoder(name: str) -> None:
    """Raise InputError unless ready rows may go by this name."""
    if name in RESERVED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InputError(
            f"encoder name {name!r}: use letters, digits, - and _, and none of {', '.join(RESERVED)} "
            "(it names a folder and stands beside every result)"
        )
    check_name(name, "encoder name")


def load_npy(path: str | Path) -> np.ndarray:
    """Open a .npy file, memory-mapped; see `read_array`."""
    return read_array(Path(path), "save one matrix of numbers with numpy.save", mapped=True)


def _checked(scenario: Scenario, path: str | Path, first: int, source: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The rows from number `first` on in the type in which they are stored.

    Raises:
        InputError: a row holds NaN or infinity, or its length does not fit the type.
    """
    with np.errstate(over="ignore", under="ignore"):
        rows = np.asarray(source, dtype=dtype)
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        limit = np.finfo(np.float32).max
    for broken, why in (
        (~np.isfinite(rows).all(axis=1), f"holds NaN, infinity, or a value beyond {dtype}"),
        (lengths > limit, f"is longer than {limit:.1e}, the largest number of float32"),
        ((lengths == 0) & (source != 0).any(axis=1), f"holds values too small for {dtype} and nothing else"),
    ):
        if broken.any():
            item = first + int(broken.argmax())
            raise InputError(
                f"{path}: row {item} (item {scenario.items.external_id[item]!r}) {why}; repair it, or set the whole row "
                "to zero: the item then counts as missing"
            )
    return rows
