"""Negatives that a user has not met in training, drawn exactly and without a loop or a rejection.

Shapes: R rows, C draws per row.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from llmemf.batches import TrialData


class UnseenItems(nn.Module):
    """Uniform draws out of the items that are in none of a user's training sequences.

    A draw r counts the unseen items; with s_0 < s_1 < ... the seen ones, the r-th unseen item is r plus the number of
    seen items with s_i - i <= r, which one binary search finds.

    Args:
        data: whose training split says what a user has seen.
        scope: draw from the domain of each row's target, or from all items.
    """

    starts: Tensor
    keys: Tensor

    def __init__(self, data: TrialData, *, scope: Literal["domain", "all"] = "domain") -> None:
        super().__init__()
        # With one range of all items, none of them stands at or above its end.
        self.num_x = data.num_x if scope == "domain" else data.num_items
        self.num_items = data.num_items
        users = data.train.users_by_item.astype(np.int64)
        users, items = np.divmod(np.unique(users * data.num_items + data.train.items), data.num_items)
        in_y = items >= self.num_x
        segment = users * 2 + in_y
        starts = np.concatenate([[0], np.cumsum(np.bincount(segment, minlength=2 * data.num_users))])
        number = np.arange(len(items)) - starts[segment]
        keys = segment * data.num_items + items - np.where(in_y, self.num_x, 0) - number
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.register_buffer("keys", torch.from_numpy(keys), persistent=False)

    def draw(self, users: Tensor, targets: Tensor, count: int = 1) -> Tensor:
        """(R, count) items for each target (R,), unseen by its user (R,), with replacement.

        A user who has seen all of them gets any but the target.
        """
        in_y = (targets >= self.num_x)[:, None]
        segment = users.long()[:, None] * 2 + in_y
        start, low = self.starts[segment], torch.where(in_y, self.num_x, 0)
        size = torch.where(in_y, self.num_items - self.num_x, self.num_x)
        unseen = size - (self.starts[segment + 1] - start)
        uniform = torch.rand(len(targets), count, device=targets.device)
        drawn = (uniform * unseen).long()
        seen_before = torch.searchsorted(self.keys, segment * self.num_items + drawn, right=True) - start
        other = (uniform * (size - 1)).long()
        other = other + (other >= targets[:, None] - low)
        return low + torch.where(unseen > 0, drawn + seen_before, other)
