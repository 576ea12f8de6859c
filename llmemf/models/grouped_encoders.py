"""Several encoders of one width as one: the same arithmetic with a leading dimension, for devices that wait for launches.

The parameters stay in their modules. A step puts those of a group side by side, once for matrices and once for the rest; the
gradients come back the same way. All positions are computed, as a GPU does it for single encoders too. What dropout draws
differs from single encoders, nothing else does.

Shapes: G encoders of a group, P stacked numbers per encoder, B batch, L length, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmemf.models.attention import SequenceEncoder, dropout


class GroupedLayout:
    """What each position of several left-padded sequences may look at.

    Args:
        real: per sequence (B, L_s) bool, False at padding; the widths may differ.
    """

    def __init__(self, real: Sequence[Tensor]) -> None:
        self.widths = [part.shape[1] for part in real]
        self.length = max(self.widths)
        self.real_SBL = torch.stack([F.pad(part, (self.length - part.shape[1], 0)) for part in real])
        self.index_SBL = (self.real_SBL.cumsum(2) - 1).clamp(min=0)
        square = torch.ones(self.length, self.length, dtype=torch.bool, device=self.real_SBL.device)
        # The diagonal stays open at padding: a row without any key would be NaN.
        self.allowed_SBLL = (square.tril() & self.real_SBL.unsqueeze(2)) | torch.eye(
            self.length, dtype=torch.bool, device=square.device
        )


class _Stack:
    """Parameters of a group side by side: `stack[name]` is (G, *shape)."""

    def __init__(self, encoders: Sequence[SequenceEncoder]) -> None:
        named = [dict(encoder.named_parameters()) for encoder in encoders]
        self._tensors: dict[str, Tensor] = {}
        for matrices in (True, False):
            names = [name for name, p in named[0].items() if (p.ndim > 1 and name.endswith("weight")) == matrices]
            if not names:
                continue
            flat_GP = torch.cat([own[name].flatten() for own in named for name in names]).view(len(encoders), -1)
            if matrices and torch.is_autocast_enabled(flat_GP.device.type):
                flat_GP = flat_GP.to(torch.get_autocast_dtype(flat_GP.device.type))
            # `split` has one gradient for all of its parts.
            parts = flat_GP.split([named[0][name].numel() for name in names], dim=1)
            shapes = [named[0][name].shape for name in names]
            self._tensors |= {name: part.unflatten(1, shape) for name, part, shape in zip(names, parts, shapes)}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def linear(self, name: str, x_GRD: Tensor) -> Tensor:
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1).to(weight.dtype), x_GRD.to(weight.dtype), weight.transpose(1, 2))

    def norm(self, name: str, x_GRD: Tensor, eps: float) -> Tensor:
        plain = F.layer_norm(x_GRD, x_GRD.shape[-1:], eps=eps)
        return torch.addcmul(self[f"{name}.bias"].unsqueeze(1), plain, self[f"{name}.weight"].unsqueeze(1))


def group_states(encoders: Sequence[SequenceEncoder], x_GBLD: Tensor, layout: GroupedLayout) -> Tensor:
    """(G, B, L, D) states of encoders of one shape, zero at padding: what `SequenceEncoder` gives for each of them.

    Args:
        encoders: in the order of the sequences of the layout, repeated for every modality.
        x_GBLD: embedded items, padded on the left to the layout's length.
    """
    first, (groups, batch, length, width) = encoders[0], x_GBLD.shape
    repeats = groups // len(layout.widths)
    stack, training = _Stack(encoders), first.training
    real_GR1 = layout.real_SBL.flatten(1).unsqueeze(2).repeat(repeats, 1, 1)
    allowed = layout.allowed_SBLL.flatten(0, 1).unsqueeze(1).repeat(repeats, 1, 1, 1)

    def drop(x: Tensor) -> Tensor:
        return dropout(x, first.dropout, training)

    def heads(x_GRD: Tensor, count: int) -> Tensor:
        return x_GRD.view(groups * batch, length, count, -1).transpose(1, 2)

    x_GBLD = x_GBLD * math.sqrt(width)
    if first.positions is not None:
        place = layout.index_SBL.clamp(max=first.max_length - 1).repeat(repeats, 1, 1)
        start = torch.arange(groups, device=place.device) * first.max_length
        x_GBLD = x_GBLD + F.embedding(place + start[:, None, None], stack["positions"].flatten(0, 1))
    x_GRD = drop(x_GBLD.flatten(1, 2)) * real_GR1
    for number, block in enumerate(first.blocks):
        name = f"blocks.{number}"
        q_GRD = x_GRD if block.bare else stack.norm(f"{name}.norm_attention", x_GRD, block.norm_attention.eps)
        sources = (("query", q_GRD), ("key", x_GRD), ("value", x_GRD))
        parts = [heads(stack.linear(f"{name}.{layer}", source), block.heads) for layer, source in sources]
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=allowed, dropout_p=first.dropout if training else 0.0)
        mixed_GRD = mixed.transpose(1, 2).reshape(groups, batch * length, width)
        if block.bare:
            x_GRD = mixed_GRD
        else:
            attended = q_GRD + drop(stack.linear(f"{name}.out", mixed_GRD))
            x_GRD = stack.norm(f"{name}.norm_network", attended, block.norm_network.eps)
            inner = drop(F.relu(stack.linear(f"{name}.inner", x_GRD)))
            x_GRD = x_GRD + drop(stack.linear(f"{name}.outer", inner))
        x_GRD = x_GRD * real_GR1
    if first.norm is not None:
        x_GRD = stack.norm("norm", x_GRD, first.norm.eps) * real_GR1
    return x_GRD.unflatten(1, (batch, length))


def grouped_states(
    encoder_of: Mapping[tuple[str, int], SequenceEncoder],
    inputs: Mapping[str, Sequence[Tensor]],
    real: Mapping[str, Tensor],
) -> dict[str, list[Tensor]]:
    """States of several sequences and modalities, all encoders of one width at once.

    Args:
        encoder_of: by sequence and number of the modality.
        inputs: per sequence and modality (B, L_s, D_m) embedded items.
        real: per sequence (B, L_s) bool, False at padding.

    Returns:
        per sequence and modality (B, L_s, D_m) states; zero at padding.
    """
    layout, sequences = GroupedLayout(list(real.values())), list(real)
    states: dict[str, list[Tensor]] = {s: [None] * len(inputs[s]) for s in sequences}
    for modalities in _by_width(inputs[sequences[0]]):
        keys = [(s, m) for m in modalities for s in sequences]
        padded = [F.pad(inputs[s][m], (0, 0, layout.length - inputs[s][m].shape[1], 0)) for s, m in keys]
        found = group_states([encoder_of[key] for key in keys], torch.stack(padded), layout)
        for (s, m), state, columns in zip(keys, found, layout.widths * len(modalities)):
            states[s][m] = state[:, layout.length - columns :]
    return states


def _by_width(inputs: Sequence[Tensor]) -> Iterator[list[int]]:
    widths = [part.shape[-1] for part in inputs]
    for width in dict.fromkeys(widths):
        yield [m for m, other in enumerate(widths) if other == width]


def may_group(encoders: Sequence[nn.Module]) -> bool:
    """Whether these are encoders of one kind, differing in width at most."""
    kinds = {
        (len(e.blocks), e.max_length, e.dropout, e.positions is None, *((b.heads, b.bare) for b in e.blocks))
        for e in encoders
    }
    return len(kinds) == 1
