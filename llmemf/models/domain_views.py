"""Which sequence a single-sequence system reads: the merged one, or the target domain's own.

Shapes: B batch, L length.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from llmemf.batches import Batch

Domains = Literal["merged", "target_only"]


def training_pairs(batch: Batch, domains: Domains, pad: int) -> tuple[Tensor, Tensor]:
    """Inputs and next items of view V1, both (B, L), or (2 B, L) for the two domains' own sequences; padded on the left.

    With `target_only` one model reads both domains' sequences, each on its own; the rows of X come first.
    """
    if domains == "merged":
        return batch.views["xy"].items, batch.views["xy"].next_merged
    width = max(batch.views[name].items.shape[1] for name in "xy")
    tables = (
        [F.pad(table, (width - table.shape[1], 0), value=pad) for table in (view.items, view.next_same)]
        for view in (batch.views[name] for name in "xy")
    )
    items, following = (torch.cat(pair) for pair in zip(*tables))
    return items, following


def evaluation_history(batch: Batch, domains: Domains, domain: int) -> Tensor:
    """(B, L) the history that a target domain (0 is X, 1 is Y) is scored from."""
    return batch.views["xy" if domains == "merged" else "xy"[domain]].items
