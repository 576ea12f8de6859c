"""PSJNet: a parallel split-join network for shared-account cross-domain sequential recommendation, reconstructed.

No code of the authors is public. They state that pi-Net is PSJNet-I ("split-by-join": at each step the states of K roles are
made and joined at once) and that PSJNet-II is "split-and-join": the states of every role at every step first, then one join over
all steps and roles. The equations of `RoleSplit` and `Join` are a reading of that sentence, not of a source.

Shapes: B batch, L length of a domain's line (La, Lb where two meet), D width, K roles, T targets of a row, P
pairs of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import TrialData
from llmemf.models.attention import dropout, in_parts
from llmemf.models.dual_gru import DualGRU, DualGRUConfig
from llmemf.models.pi_net import FilteredTransfer
from llmemf.models.recommender import SHORT_BUDGET
from llmemf.models.time_lines import TimeLines, after, gather_columns

PAIR_ELEMENTS = 2**25
"""Numbers held at once where all pairs of steps are compared (128 MiB in fp32); above, parts are computed twice."""


class PSJNetConfig(DualGRUConfig):
    """Settings of PSJNet; those of pi-Net's code stand in for the unknown ones (width 100, dropout 0.2, Adam at 1e-3)."""

    lr: float = Field(1e-2, gt=0)
    """Learning rate: that of pi-Net here; other values were not tried."""
    variant: Literal["I", "II"] = "II"
    """II splits first and joins at the end; I is pi-Net's transfer."""
    roles: int = Field(4, ge=1)
    """K, latent roles of an account; pi-Net's code has 4."""
    join: Literal["joint", "per_role_mean"] = "joint"
    """One softmax over all steps and roles, or one over the steps of each role and their mean. Variant II only."""


class PSJNet(DualGRU):
    """PSJNet under the common interface; one model for both domains."""

    config_class = PSJNetConfig
    config: PSJNetConfig
    status = "reconstructed"
    source = "PSJNet: parallel split-join networks for shared account cross-domain sequential recommendations (TKDE)"
    search_space: ClassVar = {**SHORT_BUDGET, "lr": [5e-3, 1e-2], "roles": [1, 2, 4]}

    def __init__(self, config: PSJNetConfig, data: TrialData) -> None:
        super().__init__(config, data)
        if config.variant == "I":
            self.transfer = FilteredTransfer(config.dim, config.roles, config.dropout)
        else:
            self.splits = nn.ModuleList([RoleSplit(config.dim, config.roles, config.dropout) for _ in range(2)])
            self.joins = nn.ModuleList([Join(config.dim, config.join) for _ in range(2)])

    def transfers(self, lines: TimeLines, states: tuple[Tensor, ...], domains: Sequence[int]) -> list[Tensor]:
        if self.config.variant == "I":
            return [self.transfer.last(lines, states, domain) for domain in domains]
        split = [
            self.splits[line](states[line], gather_columns(after(states[1 - line]), lines.before[line]))
            for line in (0, 1)
        ]
        return [
            self.joins[domain](
                split[1 - domain], split[domain], lines.seen[domain][1 - domain], lines.seen[domain][domain]
            )
            for domain in domains
        ]


class RoleSplit(nn.Module):
    """Role-specific states along a domain's line, kept apart.

    With h_i the domain's own state, b_i the latest state of the other domain and role embeddings r_k:

        g = sigmoid(W_a h_i + W_b b_i + U s^k_{i-1} + V r_k + b)
        c = tanh(W'_a h_i + U' s^k_{i-1} + V' r_k + b')
        s^k_i = g * c + (1 - g) * s^k_{i-1}

    Biases start at 1, as pi-Net's do.
    """

    def __init__(self, width: int, roles: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.gate, self.candidate = nn.Linear(2 * width, width), nn.Linear(width, width)
        for layer in (self.gate, self.candidate):
            nn.init.ones_(layer.bias)
        self.recurrent = nn.Linear(width, 2 * width, bias=False)
        self.roles = nn.Parameter(torch.empty(roles, width).normal_(0, 0.1))
        self.role_gate = nn.Linear(width, width, bias=False)
        self.role_candidate = nn.Linear(width, width, bias=False)

    def forward(self, own_BLD: Tensor, other_BLD: Tensor) -> Tensor:
        """(B, K, L, D) states s^k_1 .. s^k_L."""
        gates = self.gate(torch.cat([own_BLD, other_BLD], 2)).unsqueeze(2) + self.role_gate(self.roles)
        candidates = self.candidate(own_BLD).unsqueeze(2) + self.role_candidate(self.roles)
        state_BKD, states = torch.zeros_like(gates[:, 0]), []
        for gate_BKD, candidate_BKD in zip(gates.unbind(1), candidates.unbind(1)):
            to_gate, to_candidate = F.linear(state_BKD, self.recurrent.weight).chunk(2, -1)
            written = torch.sigmoid(gate_BKD + to_gate)
            state_BKD = torch.lerp(state_BKD, torch.tanh(candidate_BKD + to_candidate), written)
            states.append(state_BKD)
            state_BKD = dropout(state_BKD, self.rate, self.training)
        return dropout(torch.stack(states, 2), self.rate, self.training)


class Join(nn.Module):
    """One vector out of all steps and roles of the line that hands over, A, weighted by how they meet the target's line, B.

        M_{(i,k),(j,k)} = v^T tanh(W_1 s^{A,k}_i + W_2 s^{B,k}_j),   rho_{i,k} = max_j M
        a = softmax over all visible (i, k) of rho,   z_{A->B} = sum_{i,k} a_{i,k} s^{A,k}_i

    A running maximum over j gives rho for every number of visible steps of B at once, hence z for every target of a row.
    """

    def __init__(self, width: int, kind: Literal["joint", "per_role_mean"] = "joint") -> None:
        super().__init__()
        self.kind = kind
        self.from_giver, self.from_target = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.vector = nn.Linear(width, 1, bias=False)

    def forward(self, giver_BKLD: Tensor, target_BKLD: Tensor, giver_seen: Tensor, target_seen: Tensor) -> Tensor:
        """z, zero where nothing of A is visible; (B, D), or (B, T, D) where rows have several targets.

        Args:
            giver_BKLD: states of A.
            target_BKLD: states of B.
            giver_seen, target_seen: (B,) or (B, T), how many of their steps come before the target. Where no step of B
                does, its state counts as zero, which is what it starts from.
        """
        roles, steps = giver_BKLD.shape[1:3]
        several = giver_seen.ndim == 2
        giver_BT, target_BT = (seen if several else seen[:, None] for seen in (giver_seen, target_seen))
        rho_BLTK = self._rho(giver_BKLD.transpose(1, 2), target_BKLD.transpose(1, 2), giver_BT, target_BT)
        visible_BLT1 = _up_to(steps, giver_BT)[..., None]
        # A finite value keeps rows without any visible step free of NaN.
        rho_BLTK = rho_BLTK.to(self.vector.weight.dtype).masked_fill(~visible_BLT1, -1e9)
        if self.kind == "joint":
            weights_BLTK = (rho_BLTK - rho_BLTK.logsumexp((1, 3), keepdim=True)).exp()
        else:
            weights_BLTK = rho_BLTK.softmax(1) / roles
        weights_BLTK = (weights_BLTK * visible_BLT1).to(giver_BKLD.dtype)
        z_BTD = torch.einsum("bltk,bkld->btd", weights_BLTK, giver_BKLD)
        return z_BTD if several else z_BTD[:, 0]

    def _rho(self, giver_BLKD: Tensor, target_BLKD: Tensor, giver_BT: Tensor, target_BT: Tensor) -> Tensor:
        """(B, La, T, K) the largest M over the visible steps j, for every step of A and every target."""
        first, second = self.from_giver(giver_BLKD), self.from_target(target_BLKD)
        # Only pairs that some target sees: lines are short, and most cells of the table are padding.
        lengths = giver_BT.amax(1, keepdim=True), target_BT.amax(1, keepdim=True)
        met_BLL = _up_to(first.shape[1], lengths[0]) & _up_to(second.shape[1], lengths[1]).transpose(1, 2)
        row, i, j = met_BLL.nonzero(as_tuple=True)
        size = max(1, PAIR_ELEMENTS // first[0, 0].numel())
        places = list(zip((row * first.shape[1] + i).split(size), (row * second.shape[1] + j).split(size)))
        pairs_PK = in_parts(self._pairs, places, first.flatten(0, 1), second.flatten(0, 1))
        lowest = torch.finfo(pairs_PK.dtype).min
        table_BLLK = pairs_PK.new_full((*met_BLL.shape, pairs_PK.shape[1]), lowest)
        table_BLLK = table_BLLK.masked_scatter(met_BLL.unsqueeze(3), pairs_PK)
        at_zero = self.vector(torch.tanh(first)).squeeze(3).unsqueeze(2)
        by_count = torch.cat([at_zero, table_BLLK.cummax(2).values], 2)
        count = target_BT[:, None, :, None].expand(-1, by_count.shape[1], -1, by_count.shape[3])
        return by_count.gather(2, count)

    def _pairs(self, i: Tensor, j: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(P, K) M of pairs of steps."""
        return self.vector(torch.tanh(first.index_select(0, i) + second.index_select(0, j))).squeeze(2)


def _up_to(length: int, counts_BT: Tensor) -> Tensor:
    """(B, length, T) bool: the step lies among the first so many."""
    return torch.arange(length, device=counts_BT.device)[:, None] < counts_BT[:, None]
