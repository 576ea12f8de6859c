"""The encoders of K trials over one sequence: `llmemf.models.attention` with a leading dimension.

Every trial has its own batch, so that the number of real items differs: rows are packed to the largest of them. What is
dropped is drawn per trial, from its own generator and in the order in which the single model draws.

Shapes: K trials, G encoders of a group (modalities of one width), B batch, L length, D width, R packed rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Which of P places of each trial are kept, side by side on the left.

    Attributes:
        places: (K, R) index of the kept places in their order, 0 behind the last one.
        real: (K, R) bool, False behind the last one.
        counts: how many places each trial keeps.
    """

    places: Tensor
    real: Tensor
    counts: list[int]

    @classmethod
    def of(cls, wanted_KP: Tensor) -> Packing:
        """Keep the places that are wanted; R is 1 at least."""
        counts = wanted_KP.sum(1)
        sizes = counts.tolist()
        trial, place = wanted_KP.nonzero(as_tuple=True)
        column = torch.arange(len(trial), device=trial.device) - (counts.cumsum(0) - counts)[trial]
        places = trial.new_zeros(len(wanted_KP), max(1, *sizes))
        places[trial, column] = place
        real = torch.arange(places.shape[1], device=trial.device) < counts[:, None]
        return cls(places, real, sizes)

    def take(self, table_KP: Tensor) -> Tensor:
        """(K, R) entries at the kept places."""
        return table_KP.gather(1, self.places)


class StackedLayout:
    """Where the packed rows of K left-padded batches stand, and what each position may look at.

    Args:
        real_KBL: bool, False at padding.
    """

    def __init__(self, real_KBL: Tensor) -> None:
        self.trials, self.batch, self.length = real_KBL.shape
        self.packing = Packing.of(real_KBL.flatten(1))
        position = (real_KBL.cumsum(2) - 1).clamp(min=0).flatten(1)
        self.positions_KR = self.packing.take(position)
        ones_LL = torch.ones(self.length, self.length, dtype=torch.bool, device=real_KBL.device)
        # The diagonal stays open at padding: a row without any key would be NaN.
        diagonal_LL = torch.eye(self.length, dtype=torch.bool, device=real_KBL.device)
        self.allowed_KBLL = (ones_LL.tril() & real_KBL.unsqueeze(2)) | diagonal_LL
        self._indices: dict[int, Tensor] = {}

    def _places(self, groups: int) -> Tensor:
        """(K, G, R) place of every row among K G B L ones; behind the last real row the first place of its encoder.

        A trial that has left the numbers reaches no other one that way.
        """
        if groups not in self._indices:
            size = self.batch * self.length
            first = torch.arange(self.trials * groups, device=self.positions_KR.device).view(-1, groups, 1) * size
            self._indices[groups] = self.packing.places[:, None] + first
        return self._indices[groups]

    def table(self, x: Tensor) -> Tensor:
        """(K G, B, L, D) table of (K G, R, D) rows; zero at padding."""
        groups, width = len(x) // self.trials, x.shape[2]
        rows = x.new_zeros(len(x) * self.batch * self.length + 1, width)
        places = self._places(groups).masked_fill(~self.packing.real[:, None], len(rows) - 1)
        rows.index_copy_(0, places.flatten(), x.reshape(-1, width))
        return rows[:-1].view(len(x), self.batch, self.length, width)

    def rows(self, x: Tensor) -> Tensor:
        """(K G, R, D) rows of a (K G, B, L, D) table."""
        groups, width = len(x) // self.trials, x.shape[3]
        return x.reshape(-1, width).index_select(0, self._places(groups).flatten()).view(len(x), -1, width)


class Drops:
    """What the dropout of one group's encoders keeps in one step; the masks of a rate of 0 change nothing.

    Args:
        rates: per trial.
        layout: of the sequence.
        groups: encoders of the group, G.
        blocks: attention blocks of an encoder.
        heads: attention heads.
        width: D.
        bare: blocks without a network, where only attention weights are dropped.
        kind: type of the numbers.
    """

    def __init__(
        self, rates: Sequence[float], layout: StackedLayout, *, groups: int, blocks: int, heads: int, width: int,
        bare: bool, kind: torch.dtype,
    ) -> None:  # fmt: skip
        self.rates, self.layout, self.groups, self.blocks, self.width = rates, layout, groups, blocks, width
        self._per_block = 0 if bare else 3
        trials, rows = layout.positions_KR.shape
        self._words = torch.empty(
            trials, groups, 1 + blocks * self._per_block, (rows * width + 3) // 4, dtype=torch.int64
        )
        self._weights = torch.empty(
            blocks, trials, groups, layout.batch, heads, layout.length, layout.length, dtype=kind
        )
        self._kind = kind

    def draw(self, trial: int, group: int, generator: torch.Generator) -> None:
        """Draw all masks of one encoder of one trial, in the order in which `SequenceEncoder` meets them."""
        rate = self.rates[trial]
        if rate == 0:
            self._weights[:, trial, group] = 1
            return
        words = (self.layout.packing.counts[trial] * self.width + 3) // 4
        drawn = 0
        for block in range(self.blocks + 1):
            for number in range(drawn, drawn + (self._per_block if block else 1)):
                self._words[trial, group, number, :words].random_(-(2**63), None, generator=generator)
                drawn += 1
            if block < self.blocks:
                self._weights[block, trial, group].bernoulli_(1 - rate, generator=generator)

    def close(self) -> None:
        """Turn what was drawn into masks."""
        rates = torch.tensor(self.rates, dtype=torch.float64)
        rows = self.layout.positions_KR.shape[1]
        limit = torch.tensor([round(rate * 65536) - 32768 for rate in self.rates], dtype=torch.int16)
        parts = self._words.view(torch.int16)[..., : rows * self.width]
        self._kept = parts.unflatten(3, (rows, self.width)) >= limit[:, None, None, None, None]
        self._scale = (1 / (1 - rates)).to(self._kind).repeat_interleave(self.groups)[:, None, None]
        self._weights.div_((1 - rates).to(self._kind)[:, None, None, None, None, None])

    def rows(self, x: Tensor, number: int) -> Tensor:
        """(K G, R, D) rows with those values gone that the mask of this number drops."""
        return x * (self._kept[:, :, number].flatten(0, 1) * self._scale)

    def attention(self, block: int) -> Tensor:
        """(K G, B, H, L, L) factors of a block's attention weights."""
        return self._weights[block].flatten(0, 1)


def encode(
    x: Tensor,
    leaves: Mapping[str, Tensor],
    layout: StackedLayout,
    drops: Drops | None,
    *,
    blocks: int,
    heads: int,
    bare: bool,
) -> Tensor:
    """(K G, R, D) states of K G encoders, as `SequenceEncoder` computes them.

    Args:
        x: (K G, R, D) embedded items.
        leaves: parameters (K G, ...) by their names in the encoder.
        drops: what is dropped; None drops nothing.
    """
    groups = len(x) // layout.trials
    x = x * math.sqrt(x.shape[2])
    if "positions" in leaves:
        table = leaves["positions"]
        first = torch.arange(len(x), device=x.device).view(layout.trials, groups, 1) * table.shape[1]
        x = x + F.embedding((layout.positions_KR[:, None] + first).flatten(0, 1), table.flatten(0, 1))
    x = _dropped(x, drops, 0)
    for block in range(blocks):
        part = {
            name.removeprefix(f"blocks.{block}."): leaf
            for name, leaf in leaves.items()
            if name.startswith(f"blocks.{block}.")
        }
        query = x if bare else _norm(x, part, "norm_attention")
        mixed = _mix(query, x, part, layout, None if drops is None else drops.attention(block), heads)
        if bare:
            x = mixed
            continue
        first = 1 + 3 * block
        x = _norm(query + _dropped(_linear(mixed, part, "out"), drops, first), part, "norm_network")
        inner = _dropped(F.relu(_linear(x, part, "inner")), drops, first + 1)
        x = x + _dropped(_linear(inner, part, "outer"), drops, first + 2)
    return x if bare else _norm(x, leaves, "norm")


def _dropped(x: Tensor, drops: Drops | None, number: int) -> Tensor:
    return x if drops is None else drops.rows(x, number)


def _mix(
    query: Tensor, source: Tensor, part: Mapping[str, Tensor], layout: StackedLayout, factors: Tensor | None, heads: int
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V over what each position may look at, (K G, R, D)."""
    q, k, v = (
        layout.table(_linear(rows, part, name)).unflatten(3, (heads, -1)).transpose(2, 3)
        for rows, name in ((query, "query"), (source, "key"), (source, "value"))
    )
    groups = len(query) // layout.trials
    allowed = layout.allowed_KBLL[:, None].expand(-1, groups, -1, -1, -1).flatten(0, 1)[:, :, None]
    if factors is None:
        mixed = F.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=allowed.flatten(0, 1)
        ).view(q.shape)
    else:
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~allowed, -torch.inf).softmax(-1)
        mixed = (weights * factors) @ v
    return layout.rows(mixed.transpose(2, 3).flatten(3))


def _linear(x: Tensor, leaves: Mapping[str, Tensor], name: str) -> Tensor:
    return torch.baddbmm(leaves[f"{name}.bias"][:, None], x, leaves[f"{name}.weight"].mT)


def _norm(x: Tensor, leaves: Mapping[str, Tensor], name: str) -> Tensor:
    x = F.layer_norm(x, x.shape[-1:], eps=1e-8)
    return torch.addcmul(leaves[f"{name}.bias"][:, None], x, leaves[f"{name}.weight"][:, None])
