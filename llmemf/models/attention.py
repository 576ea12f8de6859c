"""The attention encoder that sequence models share (eq. 4 and the block around it)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Inverted dropout; on a CPU from 16 random bits per element, several times faster than torch's Bernoulli draws.

    The rate is then rounded to a multiple of 1/65536.
    """
    if not training or rate == 0 or x.device.type != "cpu":
        return F.dropout(x, rate, training)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()] >= round(rate * 65536) - 32768
    return x * kept.view(x.shape) * (1 / (1 - rate))


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

    def forward(self, x_BLD: Tensor, allowed_BLL: Tensor) -> Tensor:
        """(B, L, D) states after the block; `allowed_BLL[b, i, j]` says that position i may look at j."""
        q_BLD = x_BLD if self.bare else self.norm_attention(x_BLD)
        heads = [
            self._split(layer(source))
            for layer, source in ((self.query, q_BLD), (self.key, x_BLD), (self.value, x_BLD))
        ]
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=allowed_BLL[:, None], dropout_p=rate)
        mixed_BLD = mixed.transpose(1, 2).flatten(2)
        if self.bare:
            return mixed_BLD
        x_BLD = self.norm_network(q_BLD + self._drop(self.out(mixed_BLD)))
        return x_BLD + self._drop(self.outer(self._drop(F.relu(self.inner(x_BLD)))))

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class SequenceEncoder(nn.Module):
    """Causal self-attention over one left-padded sequence; the same for every modality and every sequence.

    Positions count the real items from 1, so that more padding on the left changes nothing.
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
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads = {heads} must divide the width {width}")
        self.dropout = dropout
        self.blocks = nn.ModuleList([AttentionBlock(width, heads, dropout, bare=bare) for _ in range(layers)])
        self.positions = nn.Parameter(torch.empty(max_length, width).normal_(0, 0.02)) if positions else None
        self.norm = None if bare else nn.LayerNorm(width, eps=1e-8)
        self.max_length = max_length

    def forward(self, x_BLD: Tensor, real_BL: Tensor) -> Tensor:
        """(B, L, D) states; rows at padding are zero.

        Args:
            x_BLD: embedded items, unit norm or small; scaled by sqrt(D) here.
            real_BL: bool, False at padding.
        """
        length = x_BLD.shape[1]
        x_BLD = x_BLD * math.sqrt(x_BLD.shape[2])
        if self.positions is not None:
            index_BL = (real_BL.cumsum(1) - 1).clamp(0, self.max_length - 1)
            x_BLD = x_BLD + self.positions[index_BL]
        real_BL1 = real_BL.unsqueeze(2)
        x_BLD = dropout(x_BLD, self.dropout, self.training) * real_BL1
        ones = torch.ones(length, length, dtype=torch.bool, device=x_BLD.device)
        # The diagonal stays open at padding: a row without any key would be NaN.
        allowed_BLL = (ones.tril() & real_BL.unsqueeze(1)) | torch.eye(length, dtype=torch.bool, device=x_BLD.device)
        for block in self.blocks:
            x_BLD = block(x_BLD, allowed_BLL) * real_BL1
        return x_BLD if self.norm is None else self.norm(x_BLD) * real_BL1
