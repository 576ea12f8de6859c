"""The attention encoder that sequence models share (eq. 4 and the block around it).

Shapes: B batch, L length, D width, R rows of a batch: its real items, or all its positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmemf.config import BaselineConfig


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Inverted dropout; on a CPU from 16 random bits per element, several times faster than torch's Bernoulli draws.

    The rate is then rounded to a multiple of 1/65536.
    """
    if not training or rate == 0 or x.device.type != "cpu":
        return F.dropout(x, rate, training)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()] >= round(rate * 65536) - 32768
    return x * kept.view(x.shape) * (1 / (1 - rate))


def in_parts(function: Callable[..., Tensor], parts: Sequence[tuple[Tensor, ...]], *shared: Tensor) -> Tensor:
    """Rows of every part, end to end; of several parts each is computed twice, so that one at a time is held in training."""
    if len(parts) == 1:
        return function(*parts[0], *shared)
    return torch.cat([checkpoint(function, *part, *shared, use_reentrant=False) for part in parts])


class Layout:
    """Where the rows of a left-padded batch stand, and which positions each position attends to.

    On a CPU the rows are those of real items alone, since maps, norms and networks over padding are time lost. On other
    devices they are all positions: the number of real ones changes from batch to batch, and reading it would make the host
    wait.

    Args:
        real_BL: bool, False at padding.
        packed: keep the rows of real items alone; None decides by the device.
    """

    def __init__(self, real_BL: Tensor, *, packed: bool | None = None) -> None:
        self.shape, length = real_BL.shape, real_BL.shape[1]
        ones_LL = torch.ones(length, length, dtype=torch.bool, device=real_BL.device)
        # The diagonal stays open at padding: a row without any key would be NaN.
        diagonal_LL = torch.eye(length, dtype=torch.bool, device=real_BL.device)
        self.allowed_BLL = (ones_LL.tril() & real_BL.unsqueeze(1)) | diagonal_LL
        packed = real_BL.device.type == "cpu" if packed is None else packed
        self._places = real_BL.flatten().nonzero().squeeze(1) if packed else None
        self._real_R1 = real_BL.flatten().unsqueeze(1)

    def rows(self, x_BLD: Tensor) -> Tensor:
        """(R, D) rows of a (B, L, D) table."""
        x_RD = x_BLD.flatten(0, 1)
        return x_RD if self._places is None else x_RD.index_select(0, self._places)

    def table(self, x_RD: Tensor) -> Tensor:
        """(B, L, D) table of (R, D) rows; zero at padding where the rows are packed."""
        if self._places is not None:
            x_RD = x_RD.new_zeros(len(self._real_R1), x_RD.shape[1]).index_copy(0, self._places, x_RD)
        return x_RD.unflatten(0, self.shape)

    def blank(self, x_RD: Tensor) -> Tensor:
        """The rows with those of padding zero."""
        return x_RD * self._real_R1 if self._places is None else x_RD


class AttentionBlock(nn.Module):
    """One causal block in the form of SASRec: attention with queries normalised first, then a two-layer network.

    `bare` leaves the attention alone: softmax(Q K^T / sqrt(d)) V, no residual, norm, or network (the paper's letter).
    """

    def __init__(self, width: int, heads: int, dropout: float, *, bare: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.bare = heads, dropout, bare
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        if not bare:
            self.out = nn.Linear(width, width)
            self.norm_attention = nn.LayerNorm(width, eps=1e-8)
            self.norm_network = nn.LayerNorm(width, eps=1e-8)
            self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_RD: Tensor, layout: Layout) -> Tensor:
        """States after the block, rows in the same order as they came."""
        q_RD = x_RD if self.bare else self.norm_attention(x_RD)
        mixed_RD = self._mix(q_RD, x_RD, layout)
        if self.bare:
            return mixed_RD
        x_RD = self.norm_network(q_RD + self._drop(self.out(mixed_RD)))
        return x_RD + self._drop(self.outer(self._drop(F.relu(self.inner(x_RD)))))

    def _mix(self, q_RD: Tensor, x_RD: Tensor, layout: Layout) -> Tensor:
        """softmax(Q K^T / sqrt(d)) V over the positions that each position attends to."""
        query, key, value = (
            self._split(layout.table(layer(source)))
            for layer, source in ((self.query, q_RD), (self.key, x_RD), (self.value, x_RD))
        )
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.allowed_BLL[:, None], dropout_p=rate)
        return layout.rows(mixed.transpose(1, 2).flatten(2))

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class EncoderConfig(BaselineConfig):
    """Settings of systems whose encoders are those of SASRec."""

    encoder_layers: int = Field(2, ge=1, le=8)
    """Attention blocks of each encoder."""
    heads: int = Field(1, ge=1)
    """Attention heads; must divide `dim`."""


class SequenceEncoder(nn.Module):
    """Causal self-attention over one left-padded sequence; the same for every modality and every sequence.

    Positions count the real items, from the oldest or from the newest one, so that more padding on the left changes nothing.
    """

    def __init__(
        self,
        width: int,
        max_length: int,
        *,
        layers: int = 2,
        heads: int = 1,
        dropout: float = 0.3,
        bare: bool = False,
        positions: bool = True,
        from_newest: bool = False,
    ) -> None:
        super().__init__()
        self.dropout, self.from_newest = dropout, from_newest
        self.blocks = nn.ModuleList([AttentionBlock(width, heads, dropout, bare=bare) for _ in range(layers)])
        self.positions = nn.Parameter(torch.empty(max_length, width).normal_(0, 0.02)) if positions else None
        self.norm = None if bare else nn.LayerNorm(width, eps=1e-8)
        self.max_length = max_length

    @classmethod
    def of(cls, config: EncoderConfig) -> SequenceEncoder:
        """One encoder as a system's settings have it."""
        shape: dict[str, Any] = {"layers": config.encoder_layers, "heads": config.heads}
        return cls(config.dim, config.max_length, dropout=config.dropout, **shape)

    def forward(self, x_BLD: Tensor, real_BL: Tensor) -> Tensor:
        """(B, L, D) states; rows at padding are zero.

        Args:
            x_BLD: embedded items, unit norm or small; scaled by sqrt(D) here.
            real_BL: bool, False at padding.
        """
        x_BLD = x_BLD * math.sqrt(x_BLD.shape[2])
        if self.positions is not None:
            passed_BL = real_BL.flip(1).cumsum(1).flip(1) if self.from_newest else real_BL.cumsum(1)
            index_BL = (passed_BL - 1).clamp(0, self.max_length - 1)
            x_BLD = x_BLD + self.positions[index_BL]
        layout = Layout(real_BL)
        x_RD = layout.blank(dropout(layout.rows(x_BLD), self.dropout, self.training))
        for block in self.blocks:
            x_RD = layout.blank(block(x_RD, layout))
        return layout.table(x_RD if self.norm is None else layout.blank(self.norm(x_RD)))
