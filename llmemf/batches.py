"""Batches that live on the device: the sequences of one split as padded tables, indexed, never rebuilt.

Three views of every history are kept (baselines: the merged sequence S^{X+Y} and the two domains' own S^X, S^Y). All are
padded on the left with the id `num_items`.

Shapes: S sequences, B batch, L columns, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from llmemf.config import TrialConfig
from llmemf.features.matrix import FeatureMatrix, unit_rows
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences, distinct_items

VIEWS: tuple[Literal["x", "y", "xy"], ...] = ("x", "y", "xy")


@dataclass(frozen=True)
class TrialData:
    """All that one trial may see, as plain NumPy: training and validation, never the test split.

    Attributes:
        domains: names of X and Y.
        train, valid: sequences; the last item of a validation sequence is its target.
        valid_candidates: (cases, C) int32 global ids, -1 padded.
        text, image: frozen feature matrices with rows of unit length, in fp32 or packed and mapped from a file, or None.
        fingerprint: of the scenario it was taken from.
        profile: encoded user profiles, rows of unit length by dense user id, or None.
    """

    domains: tuple[str, str]
    num_x: int
    num_items: int
    num_users: int
    train: Sequences
    valid: Sequences
    valid_candidates: np.ndarray
    text: FeatureMatrix | None
    image: FeatureMatrix | None
    fingerprint: str
    profile: FeatureMatrix | None = None

    @classmethod
    def build(
        cls,
        scenario: Scenario,
        *,
        text: FeatureMatrix | None = None,
        image: FeatureMatrix | None = None,
        profile: FeatureMatrix | None = None,
    ) -> TrialData:
        """Take what training needs from a scenario; features are checked against it.

        Rows of features are brought to unit length, but for packed ones, which are so already.

        Raises:
            InputError: a feature matrix does not fit the scenario.
        """
        features: dict[str, Any] = {"text": text, "image": image, "profile": profile}
        for kind, matrix in features.items():
            if matrix is not None:
                matrix.check(scenario)
                if not matrix.packed:
                    features[kind] = replace(matrix, rows=unit_rows(matrix.rows, matrix.has))
        taken = ("domains", "num_x", "num_items", "num_users", "train", "valid", "fingerprint")
        shared = {name: getattr(scenario, name) for name in taken}
        data = cls(valid_candidates=scenario.candidates["valid"], **shared, **features)
        # Hashed here once: trials get this object with its hashes, and would otherwise each read all features for them.
        _ = data.feature_hashes
        return data

    @cached_property
    def feature_hashes(self) -> dict[str, str]:
        """SHA-256 of each feature matrix that is given, by kind."""
        given = (self.text, self.image, self.profile)
        return {matrix.kind: matrix.hash() for matrix in given if matrix is not None}


def device_sequences(
    config: TrialConfig, data: TrialData | Scenario, split: str, device: torch.device
) -> DeviceSequences:
    """A split on the device, cut to the model's length and layout."""
    return DeviceSequences(
        getattr(data, split),
        num_x=data.num_x,
        num_items=data.num_items,
        max_length=config.max_length,
        held_out=split != "train",
        layout=getattr(config, "layout", "compact"),
        device=device,
    )


@dataclass(frozen=True)
class SequenceView:
    """One sequence of a batch: S^X, S^Y, or S^{X+Y}.

    Attributes:
        items: (B, L) global ids, left-padded with `num_items`.
        next_same: (B, L) the next item of the same view after each column, `num_items` where there is none.
        next_merged: (B, L) the next item of the merged sequence, of either domain.
    """

    items: Tensor
    next_same: Tensor
    next_merged: Tensor


@dataclass(frozen=True)
class Batch:
    """Histories of B users and, in training, the next item at every column.

    Attributes:
        users: (B,) dense user ids.
        views: "x", "y", "xy".
        targets: (B,) held-out item (evaluation only, else None). Models never read it.
    """

    users: Tensor
    views: dict[str, SequenceView]
    targets: Tensor | None

    def __len__(self) -> int:
        return len(self.users)


class DeviceSequences:
    """One split on the device.

    Args:
        sequences: the split.
        held_out: the last item of every sequence is a target and not part of the history.
        layout: "compact" keeps only a domain's own items in S^X and S^Y, "aligned" keeps the merged columns.

    In training a sequence longer than `max_length + 1` is cut, from its end, into windows that share one item, so that
    every next item of S^{X+Y} is a target exactly once; S^X and S^Y lose their step from one window to the next. In
    evaluation a history is cut to its last `max_length` items (in the compact layout each domain's view to its own last
    `max_length`). A view is as wide as its longest row, no wider.
    """

    def __init__(
        self,
        sequences: Sequences,
        *,
        num_x: int,
        num_items: int,
        max_length: int,
        held_out: bool,
        layout: Literal["compact", "aligned"] = "compact",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.pad = num_items
        if held_out:
            starts, stops, users = sequences.offsets[:-1], sequences.offsets[1:] - 1, sequences.users
        else:
            starts, stops, users = _windows(sequences, max_length)
        self.users = self._tensor(users)
        self.targets = self._tensor(sequences.targets) if held_out else None
        self.views = {}
        items, row = _flatten(sequences.items, starts, stops)
        self._histories = distinct_items(row, items, len(users), num_items) if held_out else None
        next_merged = _next_in_row(items, row, num_items)
        # In training the last item of a window is a target only; in evaluation the whole history is input.
        is_input = (next_merged < num_items) | held_out
        column = _column_from_end(row[is_input], len(users))
        for name, member in (("xy", items >= 0), ("x", items < num_x), ("y", items >= num_x)):
            kept = is_input[member]
            parts = (items[member], _next_in_row(items[member], row[member], num_items), next_merged[member])
            rows = row[member][kept]
            where = column[member[is_input]] if layout == "aligned" else _column_from_end(rows, len(users))
            columns = min(max_length, int(where.max(initial=0)) + 1)
            tables = _left_pad([part[kept] for part in parts], rows, where, (len(users), columns), num_items)
            self.views[name] = SequenceView(*(self._tensor(table) for table in tables))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def __len__(self) -> int:
        return len(self.users)

    def histories(self, index: np.ndarray) -> Tensor:
        """(B, H) the distinct items of whole histories of a held-out split, not cut to any length, -1 padded."""
        assert self._histories is not None, "training sequences have no history"
        offsets, items = self._histories
        first, lengths = offsets[index], offsets[index + 1] - offsets[index]
        column = np.arange(lengths.max(initial=0))
        place = np.minimum(first[:, None] + column, max(0, len(items) - 1))
        return self._tensor(np.where(column < lengths[:, None], items[place], -1))

    def batch(self, index: Tensor) -> Batch:
        """The sequences at `index` (B,), as int64 tables on the device."""
        views = {
            name: SequenceView(view.items[index].long(), view.next_same[index].long(), view.next_merged[index].long())
            for name, view in self.views.items()
        }
        return Batch(self.users[index], views, None if self.targets is None else self.targets[index].long())


def _windows(sequences: Sequences, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, stops and users of the training windows: at most `max_length + 1` items, consecutive ones share one."""
    pieces = np.maximum(1, -(-(sequences.lengths - 1) // max_length))
    owner = np.repeat(np.arange(len(sequences)), pieces)
    back = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    stops = sequences.offsets[1:][owner] - back * max_length
    starts = np.maximum(sequences.offsets[:-1][owner], stops - max_length - 1)
    return starts, stops, sequences.users[owner]


def _flatten(items: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items of the slices `starts:stops`, end to end, and the row that each belongs to."""
    lengths = stops - starts
    row = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return items[np.repeat(starts, lengths) + within], row


def _next_in_row(items: np.ndarray, row: np.ndarray, pad: int) -> np.ndarray:
    """The item after each one in the same row, `pad` at a row's end."""
    following = np.full(len(items), pad, dtype=np.int32)
    same = row[1:] == row[:-1]
    following[:-1][same] = items[1:][same]
    return following


def _column_from_end(row: np.ndarray, num_rows: int) -> np.ndarray:
    """How many items of the same row stand to the right of each one."""
    return np.cumsum(np.bincount(row, minlength=num_rows))[row] - 1 - np.arange(len(row))


def _left_pad(
    parts: list[np.ndarray], row: np.ndarray, from_end: np.ndarray, shape: tuple[int, int], pad: int
) -> list[np.ndarray]:
    """One (rows, columns) int32 table per part, filled from the right; what does not fit on the left is cut."""
    fits = from_end < shape[1]
    tables = []
    for part in parts:
        table = np.full(shape, pad, dtype=np.int32)
        table[row[fits], shape[1] - 1 - from_end[fits]] = part[fits]
        tables.append(table)
    return tables
