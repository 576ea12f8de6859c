"""Columns of padded tables: the last item of each row, and where the items of a domain stand on the merged time line.

Shapes: B batch, L merged columns, K columns of a domain's compact view, T target steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def last_columns(real_BL: Tensor) -> Tensor:
    """(B,) column of the last real item of each row, which may have gaps; 0 where there is none."""
    return (real_BL * torch.arange(1, real_BL.shape[1] + 1, device=real_BL.device)).argmax(1)


def at_last(states_BLD: Tensor, real_BL: Tensor) -> Tensor:
    """(B, D) state at the last real item of each row; at column 0 where there is none."""
    return states_BLD[torch.arange(len(real_BL), device=real_BL.device), last_columns(real_BL)]


def to_the_left(items_BL: Tensor, kept_BL: Tensor, pad: int) -> Tensor:
    """(B, L) the kept items in their order from the left, `pad` behind them.

    A recurrence that starts from zero then reads real items first, and padding changes none of their states.
    """
    order = (~kept_BL).int().argsort(dim=1, stable=True)
    return items_BL.masked_fill(~kept_BL, pad).gather(1, order)


def merged_columns(num_columns: int, of_domain_BL: Tensor) -> Tensor:
    """(B, K) merged column of each column of a domain's compact view; -1 at padding and before the merged view begins.

    Both are padded on the left, and the last item of the domain is the last of its view, so that the items are matched
    by their rank from the end.

    Args:
        num_columns: K.
        of_domain_BL: bool, True at the merged columns with an item of the domain.
    """
    rows, length = of_domain_BL.shape
    from_end = of_domain_BL.flip(1).cumsum(1).flip(1) * of_domain_BL
    columns = torch.arange(length, device=of_domain_BL.device).expand(rows, length)
    by_rank = columns.new_full((rows, max(num_columns, length) + 1), -1)
    by_rank.scatter_(1, from_end, columns)  # rank 0 takes what is not of the domain
    return by_rank[:, 1 : num_columns + 1].flip(1)


def before_next(target_at_BT: Tensor, key_at_BK: Tensor, real_BK: Tensor, length: int) -> Tensor:
    """(B, T, K) bool: the key stands before the target item that follows step t, and may be used to predict it.

    Args:
        target_at_BT: merged columns of the target's sequence, as from `merged_columns`; the next item of its last step
            comes after all `length` merged columns.
        key_at_BK: merged columns of the keys.
        real_BK: bool, False at padding of the keys.
    """
    next_at_BT = torch.cat([target_at_BT[:, 1:], target_at_BT.new_full((len(target_at_BT), 1), length)], 1)
    return (key_at_BK[:, None] < next_at_BT[:, :, None]) & real_BK[:, None]
