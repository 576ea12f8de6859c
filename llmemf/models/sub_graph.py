"""The part of an item graph around a session: nodes and adjacency of a whole batch at once, on the device.

Shapes: B batch, L session length, C candidates, n nodes, N items, R relations, T neighbours per item and relation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SECOND_HOP = 1 / 64
"""What a neighbour's neighbour counts beside a neighbour."""
CONNECTING = 4096.0
"""Rank of a node that both domains' items lead to, above any count."""


def sub_graph(
    session: Tensor, seen: Tensor, neighbours: Tensor, *, size: int, hops: int, num_x: int
) -> tuple[Tensor, Tensor]:
    """Session items and the part of the graph around them.

    The latest items of the session take up to half of the nodes. The rest go to their neighbours; where the X side and the Y
    side do not touch, also to the neighbours' neighbours (`hops` 2). Nodes that both sides lead to come first, then those
    that more (item, relation) pairs lead to, then lower ids; the two domains get shares in proportion to their items in the
    session, plus one each. What stays free is padding.

    Args:
        session: (B, L) merged items, padded on the right.
        seen: (B,) how many of them there are to see.
        neighbours: (N + 1, R, T) of `build_item_graph`.
        size: n.

    Returns:
        (B, n) item ids in ascending order, padded with N; and (B, R, n, n) 1 where node i hears of node j in a relation: j is
        a neighbour of i, they follow each other in the session (all relations, both directions), or i = j.
    """
    pad = len(neighbours) - 1
    columns = min(session.shape[1], size // 2)
    place = seen[:, None] - columns + torch.arange(columns, device=session.device)
    session = session.gather(1, place.clamp(min=0)).masked_fill(place < 0, pad)
    on_x = session < num_x
    sides = torch.stack([on_x, ~on_x & (session < pad)], 2).float()
    share = (sides.sum(1) + 1) / (sides.sum((1, 2)) + 2)[:, None]

    own = F.pad(sides, (0, 1), value=1)
    # Padding on top, so that there are never fewer candidates than nodes.
    ids = F.pad(session, (0, size), value=pad)
    ids, weights = _reached(ids, F.pad(own, (0, 0, 0, size)), session, sides, neighbours)
    chosen = _choose(ids, weights, share, size, num_x, pad)
    if hops == 2:
        touching = ((weights[:, :, 0] > 0) & (weights[:, :, 1] > 0)).any(1)
        nodes, known = ids.gather(1, chosen), weights.gather(1, chosen.unsqueeze(2).expand(-1, -1, 3))
        # From the first neighbours on; session items have been asked already.
        asked = nodes.masked_fill(touching[:, None] | (known[:, :, 2] > 0), pad)
        ids, weights = _reached(ids, weights, asked, (known[:, :, :2] > 0) * SECOND_HOP, neighbours)
        chosen = _choose(ids, weights, share, size, num_x, pad)
    nodes = ids.gather(1, chosen).sort(1).values
    return nodes, _adjacency(nodes, session, neighbours)


def _reached(ids: Tensor, weights: Tensor, asked: Tensor, sides: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates and those that the items `asked` lead to, which say from which sides.

    Returns:
        (B, C) each id once, in ascending order and padding behind them, and (B, C, 3) the sums of its weights.
    """
    pad, around = len(neighbours) - 1, neighbours[asked].flatten(2)
    led = F.pad(sides, (0, 1)).unsqueeze(2).expand(-1, -1, around.shape[2], -1)
    ids, weights = torch.cat([ids, around.flatten(1)], 1), torch.cat([weights, led.flatten(1, 2)], 1)
    ids, order = ids.sort(dim=1, stable=True)
    group = torch.cat([torch.zeros_like(ids[:, :1]), (ids[:, 1:] != ids[:, :-1]).long()], 1).cumsum(1)
    weights = weights.gather(1, order.unsqueeze(2).expand_as(weights)) * (ids < pad).unsqueeze(2)
    sums = torch.zeros_like(weights).scatter_add(1, group.unsqueeze(2).expand_as(weights), weights)
    return torch.full_like(ids, pad).scatter(1, group, ids), sums


def _choose(ids: Tensor, weights: Tensor, share: Tensor, size: int, num_x: int, pad: int) -> Tensor:
    """(B, n) columns of the nodes that stay, session items first; columns of padding where there are not enough."""
    from_x, from_y, in_session = weights.unbind(2)
    rank = from_x + from_y + CONNECTING * ((from_x > 0) & (from_y > 0))
    is_free = (in_session == 0) & (ids < pad)
    key = torch.full_like(rank, torch.inf)
    for domain, member in enumerate((ids < num_x, ids >= num_x)):
        member = member & is_free
        order = rank.masked_fill(~member, -1).argsort(dim=1, descending=True, stable=True)
        place = order.argsort(dim=1)
        key = torch.where(member, (place + 1) / share[:, domain, None], key)
    key = key.masked_fill(in_session > 0, 0)
    return key.argsort(dim=1, stable=True)[:, :size]


def _adjacency(nodes: Tensor, session: Tensor, neighbours: Tensor) -> Tensor:
    """(B, R, n, n)."""
    pad, size = len(neighbours) - 1, nodes.shape[1]
    batch, relations, top = len(nodes), neighbours.shape[1], neighbours.shape[2]
    around = neighbours[nodes].transpose(1, 2).reshape(batch, -1)
    column = _find(nodes, around, pad).view(batch, relations, size, top)
    # Neighbours that are no nodes go to a column behind the last, which is cut off.
    adjacency = torch.zeros(batch, relations, size, size + 1, device=nodes.device)
    adjacency = adjacency.scatter_(3, column, 1)[..., :size]
    place = _find(nodes, session, pad)
    earlier, later = place[:, :-1], place[:, 1:]
    known = (earlier < size) & (later < size)
    links = torch.zeros(batch, size * size + 1, device=nodes.device)
    for source, other in ((earlier, later), (later, earlier)):
        links.scatter_(1, torch.where(known, source * size + other, size * size), 1)
    links = links[:, :-1].view(batch, 1, size, size)
    return torch.maximum(torch.maximum(adjacency, links), torch.eye(size, device=nodes.device))


def _find(nodes: Tensor, ids: Tensor, pad: int) -> Tensor:
    """Column of each id among the row's nodes, n where it is none of them."""
    column = torch.searchsorted(nodes, ids.contiguous()).clamp(max=nodes.shape[1] - 1)
    return torch.where((nodes.gather(1, column) == ids) & (ids < pad), column, nodes.shape[1])
