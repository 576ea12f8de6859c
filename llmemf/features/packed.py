"""Packed features: rows of unit length in half (or single) precision, as trials read them, so that no process copies them.

Other features are brought to unit length in single precision when a sweep starts, in the driver's memory, and once more in the
object store of every node. Packed ones stay in their file: each process maps it, a node holds the pages that are read once,
and drops them where memory is short. Half precision takes half of the disk and of a GPU's memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from llmemf.errors import InputError
from llmemf.features.matrix import BLOCK, KINDS, PACKED, FeatureMatrix, check_absent, unit_rows
from llmemf.io import storage_errors
from llmemf.scenarios.scenario import Scenario

TYPES = {"fp16": np.float16, "fp32": np.float32}


def pack(
    matrix: FeatureMatrix, scenario: Scenario, precision: Literal["fp16", "fp32"] = "fp16", *, overwrite: bool = False
) -> FeatureMatrix:
    """Write a matrix once more as `<kind>.<encoder>-<precision>`; block by block, so that memory stays small.

    Returns:
        the packed matrix, mapped. Its details hold `packed`: what it was made from, and `largest_change`, the largest
        distance of a row from the unit row in fp32 that it stands for.

    Raises:
        InputError: the matrix is packed already or does not fit the scenario; such features exist already.
    """
    if matrix.kind not in KINDS:
        raise InputError(f"features {matrix.name} cannot be packed: only {' and '.join(KINDS)} features of items can")
    if matrix.packed:
        raise InputError(f"features {matrix.name} are packed already, from {matrix.details[PACKED]['from']}")
    encoder = f"{matrix.encoder}-{precision}"
    if not overwrite:
        check_absent(scenario, [f"{matrix.kind}.{encoder}"])
    root = scenario.location
    with storage_errors(root), tempfile.TemporaryDirectory(prefix=".pack-", dir=root) as folder:
        rows = np.lib.format.open_memmap(Path(folder) / "rows.npy", "w+", TYPES[precision], matrix.rows.shape)
        largest = 0.0
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            exact = unit_rows(matrix.rows[part], matrix.has[part])
            rows[part] = exact
            change = np.linalg.norm(rows[part].astype(np.float32) - exact, axis=1)
            largest = max(largest, float(change.max(initial=0)))
        facts = {"from": matrix.encoder, "hash": matrix.hash(), "precision": precision, "largest_change": largest}
        details = {**matrix.details, PACKED: facts}
        packed = FeatureMatrix(matrix.kind, encoder, rows, matrix.has, matrix.items_hash, details)
        return FeatureMatrix.load(packed.save(scenario, overwrite=overwrite))
