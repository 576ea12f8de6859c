"""Item vectors of one modality: a learnable id table, or a frozen feature matrix with an optional projection."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmemf.features.matrix import FeatureMatrix
from llmemf.models.next_item import embed_items
from llmemf.objective_half import HalfTable

Projection = Literal["none", "linear", "mlp"]
Missing = Literal["renormalise", "domain_mean", "learned"]


@dataclass(frozen=True)
class StepRows:
    """Item vectors of one training step: of all items, or of the U items that a sampled step reads.

    They are made once per step, so that every table has one gradient of its size, however often the step reads it.

    Attributes:
        inputs: per modality (U, D_m) vectors as the encoders read them.
        outputs: per modality (U, D_m) vectors as candidates, of unit length but for ids under `similarity = dot`.
        place: (N + 1,) row of every item that is read; None where all items stand in their order.
        draws: per range of items (low, high) the (K,) item ids drawn out of it.
        halves: per modality 16-bit copies of `outputs`; None where the objective computes in fp32.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    place: Tensor | None
    draws: Mapping[tuple[int, int], Tensor]
    halves: list[HalfTable] | None = None

    def embed(self, ids: Tensor) -> list[Tensor]:
        """Per modality (..., D_m) input vectors of items; zero at padding."""
        pad = len(self.inputs[0]) if self.place is None else len(self.place) - 1
        real = (ids < pad).unsqueeze(-1)
        rows = ids.clamp(max=pad - 1) if self.place is None else self.place[ids]
        return [F.embedding(rows, table) * real for table in self.inputs]


class IdTable(nn.Module):
    """E_id: one learnable vector per item, the same for input and output unless untied.

    Args:
        num_items: N; ids from N on are padding and give a zero row.
        width: q.
        tied: one matrix for both sides.
        unit: whether candidates have unit length.
    """

    has = None

    def __init__(self, num_items: int, width: int, *, tied: bool = True, unit: bool = True) -> None:
        super().__init__()
        self.num_items, self.width, self.unit = num_items, width, unit
        self.input = nn.Parameter(torch.empty(num_items, width).normal_(0, 0.02))
        self.output = None if tied else nn.Parameter(torch.empty(num_items, width).normal_(0, 0.02))

    def input_rows(self, ids: Tensor, outputs: Tensor | None = None) -> Tensor:
        """(..., D) vectors as the encoders read them, of any length; zero at padding."""
        return embed_items(ids, self.input)

    def output_rows(self, ids: Tensor | None = None) -> Tensor:
        """(n, D) vectors of the given items, or of all, as candidates."""
        table = self.input if self.output is None else self.output
        rows = table if ids is None else F.embedding(ids, table)
        return F.normalize(rows, dim=-1) if self.unit else rows

    held_rows = output_rows

    def step_rows(self, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """(U, D) vectors as inputs and as outputs of the given items, or of all: what one training step reads."""
        inputs = self.input if ids is None else F.embedding(ids, self.input)
        if self.output is not None:
            return inputs, self.output_rows(ids)
        return inputs, F.normalize(inputs, dim=-1) if self.unit else inputs

    def half_rows(self, outputs: Tensor) -> HalfTable:
        """16-bit copies of `outputs`, the (N, D) unit vectors of this step."""
        return HalfTable.of(outputs)


class FrozenTable(nn.Module):
    """E_img or E_tex: frozen unit rows, read without a copy, optionally projected by a trained map.

    Args:
        features: from `TrialData`, rows of unit length.
        num_x: number of items of domain X.
        projection: `none` keeps the width of the encoder; `linear` and `mlp` map inputs and candidates alike.
        width: width after a projection.
        missing: what represents an item without the modality: nothing (`renormalise`: a zero row that leaves the
            mixture), the mean vector of its domain, or one learned vector.
    """

    rows: Tensor
    present: Tensor

    unit = True

    def __init__(
        self, features: FeatureMatrix, num_x: int, *, projection: Projection, width: int, missing: Missing
    ) -> None:
        super().__init__()
        rows, has = frozen(features.rows), frozen(features.has)
        if missing == "domain_mean" and not bool(has.all()):
            rows = rows.clone()
            for part in (slice(None, num_x), slice(num_x, None)):
                own = rows[part][has[part]].float()
                mean = own.mean(0) if len(own) else own.new_zeros(rows.shape[1])
                rows[part][~has[part]] = F.normalize(mean, dim=0).to(rows.dtype)
        self._half: HalfTable | None = None
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("present", has, persistent=False)
        self.masked = missing == "renormalise" and not bool(has.all())
        self.missing = nn.Parameter(torch.empty(rows.shape[1]).normal_(0, 0.02)) if missing == "learned" else None
        self.num_items, self.width = len(rows), rows.shape[1] if projection == "none" else width
        self.projection = _projection(projection, rows.shape[1], width)

    @property
    def dtype(self) -> torch.dtype:
        """What vectors are handed out in: never lower than fp32, whatever the rows are held in."""
        return torch.promote_types(self.rows.dtype, torch.float32)

    @property
    def has(self) -> Tensor | None:
        """(N,) bool, False for items that leave the mixture; None where no item does."""
        return self.present if self.masked else None

    def input_rows(self, ids: Tensor, outputs: Tensor | None = None) -> Tensor:
        """(..., D) unit vectors as the encoders read them; zero at padding and for missing items.

        `outputs`, where given, is the result of `output_rows()` for all items, so that it is not computed again.
        """
        safe = ids.clamp(max=self.num_items - 1)
        rows = self.output_rows(safe) if outputs is None else F.embedding(safe, outputs).to(self.dtype)
        real = ids < self.num_items
        if self.masked:
            real = real & self.present[safe]
        return rows * real.unsqueeze(-1)

    def output_rows(self, ids: Tensor | None = None) -> Tensor:
        """(n, D) unit vectors of the given items, or of all; never of lower precision than the features."""
        rows = self._raw(ids)
        return rows if self.projection is None else F.normalize(self.projection(rows).to(rows.dtype), dim=-1)

    def held_rows(self) -> Tensor:
        """(N, D) unit vectors of all items, in half precision where they are held in it and nothing is done to them."""
        return self.rows if self.projection is None and self.missing is None else self.output_rows()

    def step_rows(self, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """(U, D) vectors as inputs and as outputs of the given items, or of all: what one training step reads."""
        outputs = self.output_rows(ids)
        if not self.masked:
            return outputs, outputs
        return outputs * (self.present if ids is None else self.present[ids]).unsqueeze(-1), outputs

    def half_rows(self, outputs: Tensor) -> HalfTable:
        """16-bit copies of `outputs`, the (N, D) unit vectors of this step; made once where nothing in them is trained."""
        if self.projection is not None or self.missing is not None:
            return HalfTable.of(outputs * self.present.unsqueeze(-1) if self.masked else outputs)
        if self._half is None or self._half.logits.device != outputs.device:
            self._half = HalfTable.of(outputs)
        return self._half

    def _raw(self, ids: Tensor | None) -> Tensor:
        rows = (self.rows if ids is None else F.embedding(ids, self.rows)).to(self.dtype)
        if self.missing is None:
            return rows
        present = self.present if ids is None else self.present[ids]
        return torch.where(present.unsqueeze(-1), rows, F.normalize(self.missing, dim=0))


def frozen(array: np.ndarray) -> Tensor:
    """A tensor over the memory of an array that nothing will write to: shared memory is read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


def _projection(kind: Projection, width_in: int, width_out: int) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "linear":
        return nn.Linear(width_in, width_out, bias=False)
    return nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))
