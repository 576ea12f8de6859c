"""The two domains' histories of a batch beside their merged time line, and the last-two training view.

Models that carry information from one domain to the other while both advance (pi-Net, PSJNet, MIFN) need to know, for every
item of a domain, what had happened in the other domain before it. They are trained on view V2, in which the last X item
and the last Y item of a sequence are both targets (`last_two`), or on every item of a sequence (`every_item`).

Everything here is padded on the RIGHT with the id N (`pad`): a causal recurrence then needs no mask, and "the state after
c items" is column c of its states behind a zero column (`after`).

Shapes: B batch, L merged length, Lx and Ly lengths of the domains, D width, T targets of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llmemf.batches import Batch
from llmemf.models.columns import to_the_left


@dataclass(frozen=True)
class TimeLines:
    """Histories of B users as two time lines, and what each domain's target may see of them.

    Attributes:
        items: of X (B, Lx) and Y (B, Ly), global ids, oldest first.
        before: for each item of X (B, Lx) the number of Y items before it, so that the latest of them is that many from the
            start; for each item of Y (B, Ly) the number of X items before it.
        merged: (B, L) both domains in the order of time.
        seen: `seen[d][e]` (B,) says how many items of line e come before the target of domain d; (B, T) where a row has
            several targets.
        merged_seen: `merged_seen[d]` says the same of the merged line.
        targets: of X and of Y, (B,) or (B, T), `pad` where there is none; None in evaluation.
        pad: N.
    """

    items: tuple[Tensor, Tensor]
    before: tuple[Tensor, Tensor]
    merged: Tensor
    seen: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    merged_seen: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor] | None
    pad: int

    def target(self, domain: int) -> Tensor:
        """(B,) or (B, T) the targets of a domain, in training."""
        assert self.targets is not None, "histories to be continued have no targets"
        return self.targets[domain]


def whole_history(batch: Batch, *, num_x: int, pad: int) -> TimeLines:
    """All that the batch's views hold, as it is read in evaluation.

    A domain's own view may reach further back than the merged one. Its older items precede everything in the merged view;
    how they lay between each other is not known, so such an item counts none of the other domain before it.
    """
    merged = to_the_left(batch.views["xy"].items, batch.views["xy"].items < pad, pad)
    of_domain = _of_domain(merged, num_x, pad)
    lines = [to_the_left(batch.views[view].items, batch.views[view].items < pad, pad) for view in ("x", "y")]
    lengths = [(line < pad).sum(1) for line in lines]
    passed = [member.cumsum(1) for member in of_domain]
    older = [length - count[:, -1] for length, count in zip(lengths, passed)]
    before = []
    for own, other in ((0, 1), (1, 0)):
        width = lines[own].shape[1]
        # Items of the other domain go to a column behind the line that is then cut off.
        column = torch.where(of_domain[own], passed[own] - 1 + older[own][:, None], width)
        counts = passed[other] + older[other][:, None]
        before.append(counts.new_zeros(len(merged), width + 1).scatter(1, column, counts)[:, :width])
    length = (merged < pad).sum(1)
    seen = (lengths[0], lengths[1])
    return TimeLines((lines[0], lines[1]), (before[0], before[1]), merged, (seen, seen), (length, length), None, pad)


def _of_domain(merged: Tensor, num_x: int, pad: int) -> tuple[Tensor, Tensor]:
    """(B, L) bool: the item is of X, of Y."""
    return merged < num_x, (merged >= num_x) & (merged < pad)


def every_item(batch: Batch, *, num_x: int, pad: int) -> TimeLines:
    """Every item of a training batch but the first of a row is a target, which sees what comes before it and nothing else.

    The targets are (B, L), in the order of time: column t holds what follows t + 1 items.
    """
    lines = whole_history(batch, num_x=num_x, pad=pad)
    view = batch.views["xy"]
    following = to_the_left(view.next_merged, view.items < pad, pad)
    is_x, is_y = _of_domain(lines.merged, num_x, pad)
    seen = (is_x.cumsum(1), is_y.cumsum(1))
    merged_seen = seen[0] + seen[1]
    targets = (following.masked_fill(following >= num_x, pad), following.masked_fill(following < num_x, pad))
    return TimeLines(lines.items, lines.before, lines.merged, (seen, seen), (merged_seen, merged_seen), targets, pad)


def last_two(batch: Batch, *, num_x: int, pad: int, causal: bool, random_prefix: bool = False) -> TimeLines:
    """View V2 of a training batch: the last item of each domain is its target.

    Args:
        batch: shifted (V1): the views hold all items of a sequence but its last, which is `next_merged` of the last column.
        causal: each target sees what comes before it and nothing else, as in evaluation. Otherwise, as in the originals,
            both targets are taken out and each sees all the rest: the earlier one also what the other domain did after it,
            the later one not the other domain's last item.
        random_prefix: each sequence first ends at a random one of its items but the first.
    """
    lines = every_item(batch, num_x=num_x, pad=pad)
    width = lines.merged.shape[1]
    length = (lines.merged < pad).sum(1)
    if random_prefix:
        drawn = (torch.rand(len(length), device=length.device) * length).long() + 1
        length = torch.minimum(drawn, length)
    final = torch.minimum(lines.target(0), lines.target(1)).gather(1, (length - 1).clamp(min=0)[:, None])
    column, length = torch.arange(width + 1, device=length.device), length[:, None]
    whole = torch.cat([lines.merged, torch.full_like(final, pad)], 1).scatter(1, length, final)
    whole = whole.masked_fill(column > length, pad)
    of_domain = _of_domain(whole, num_x, pad)
    place = [(member * (column + 1)).amax(1, keepdim=True) - 1 for member in of_domain]
    is_input = column < length if causal else (whole < pad) & (column != place[0]) & (column != place[1])
    inputs = [member & is_input for member in of_domain]
    items, before, seen, targets = [], [], [], []
    for own, other in ((0, 1), (1, 0)):
        columns = lines.items[own].shape[1]
        items.append(to_the_left(whole, inputs[own], pad)[:, :columns])
        before.append(to_the_left(inputs[other].cumsum(1), inputs[own], 0)[:, :columns])
        targets.append(whole.gather(1, place[own].clamp(min=0))[:, 0].masked_fill(place[own][:, 0] < 0, pad))
        counts = [(member & (column < place[own]) if causal else member).sum(1) for member in inputs]
        seen.append((counts[0], counts[1]))
    return TimeLines(
        (items[0], items[1]),
        (before[0], before[1]),
        to_the_left(whole, is_input, pad)[:, :width],
        (seen[0], seen[1]),
        (seen[0][0] + seen[0][1], seen[1][0] + seen[1][1]),
        (targets[0], targets[1]),
        pad,
    )


def after(states_BLD: Tensor) -> Tensor:
    """(B, L + 1, D) the same states behind a zero one: column c is the state after c items."""
    return torch.cat([torch.zeros_like(states_BLD[:, :1]), states_BLD], 1)


def gather_columns(states_BLD: Tensor, columns: Tensor) -> Tensor:
    """Columns of (B, L, D): (B, D) for one column per row (B,), (B, C, D) for several (B, C)."""
    several = columns if columns.ndim == 2 else columns[:, None]
    found = states_BLD.gather(1, several[:, :, None].expand(-1, -1, states_BLD.shape[2]))
    return found if columns.ndim == 2 else found[:, 0]
