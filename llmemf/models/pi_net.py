"""pi-Net: a parallel information-sharing network for shared-account cross-domain sequential recommendation.

Beside one GRU per domain, a gated recurrent filter runs along each domain's time line and selects, at every step, which part of
that domain is of use to the other one, under K latent members of the account; a second GRU carries it over.

Shapes: B batch, L length of a domain's line, D width, K members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import TrialData
from llmemf.models.attention import dropout
from llmemf.models.dual_gru import DualGRU, DualGRUConfig
from llmemf.models.recommender import SHORT_BUDGET
from llmemf.models.time_lines import TimeLines, after, gather_columns


class PiNetConfig(DualGRUConfig):
    """Settings of pi-Net. The released code has width 100, batch 128, dropout 0.2, Adam at 1e-3, gradients cut at +-5."""

    lr: float = Field(1e-2, gt=0)
    """Learning rate. The released code has 1e-3; on toy_game 1e-2 is ahead of 5e-3 after 3 epochs."""
    members: int = Field(4, ge=1)
    """K, latent members of an account; the released code has 4."""
    literal_member_bug: bool = False
    """The filter's candidate adds V_f m_k in place of V_s m_k, as the released cell does."""


class PiNet(DualGRU):
    """pi-Net: z is the last state of the transfer GRU on the other domain's line; one model for both domains."""

    config_class = PiNetConfig
    config: PiNetConfig
    source = "pi-Net: a parallel information-sharing network for cross-domain sequential recommendations (SIGIR 2019)"
    search_space: ClassVar = {**SHORT_BUDGET, "lr": [5e-3, 1e-2], "members": [1, 2, 4]}

    def __init__(self, config: PiNetConfig, data: TrialData) -> None:
        super().__init__(config, data)
        self.transfer = FilteredTransfer(config.dim, config.members, config.dropout, config.literal_member_bug)

    def transfers(self, lines: TimeLines, states: tuple[Tensor, ...], domains: Sequence[int]) -> list[Tensor]:
        return [self.transfer.last(lines, states, domain) for domain in domains]


class FilteredTransfer(nn.Module):
    """For each domain a filter along its line, and a GRU over what the filter lets through.

    Args:
        members: K; 0 is the filter without members (MIFN's behaviour transfer unit).
    """

    def __init__(self, width: int, members: int, rate: float, literal_member_bug: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.filters = nn.ModuleList([GatedFilter(width, members, rate, literal_member_bug) for _ in range(2)])
        self.grus = nn.ModuleList([nn.GRU(width, width, batch_first=True) for _ in range(2)])

    def forward(self, lines: TimeLines, states: tuple[Tensor, ...], line: int) -> Tensor:
        """(B, L, D) transfer states T along the time line of one domain, to be handed to the other."""
        latest_other = gather_columns(after(states[1 - line]), lines.before[line])
        filtered = dropout(self.filters[line](states[line], latest_other), self.rate, self.training)
        return dropout(self.grus[line](filtered)[0], self.rate, self.training)

    def last(self, lines: TimeLines, states: tuple[Tensor, ...], domain: int) -> Tensor:
        """(B, D) or (B, T, D) the latest state that the other domain hands over before each target of a domain."""
        return gather_columns(after(self(lines, states, 1 - domain)), lines.seen[domain][1 - domain])


class GatedFilter(nn.Module):
    """The filter cell, along a whole line.

    With h_t the domain's own state, a_t the latest state of the other domain and member embeddings m_k:

        f_k = sigmoid(W_f [h_t; a_t; s_{t-1}] + V_f m_k + b_f)
        c_k = tanh(W_s [h_t; s_{t-1}] + V_s m_k + b_s)
        s_t = mean_k( f_k * s_{t-1} + (1 - f_k) * c_k )

    Biases start at 1; without members the gate's starts at -1, since MIFN's source lets f weigh the candidate: there, too, the
    new part then starts with 73 %. All that does not depend on s_{t-1} is computed for every step at once.
    """

    def __init__(self, width: int, members: int, rate: float, literal_member_bug: bool = False) -> None:
        super().__init__()
        self.rate, self.literal_member_bug = rate, literal_member_bug
        self.gate, self.candidate = nn.Linear(2 * width, width), nn.Linear(width, width)
        self.recurrent = nn.Linear(width, 2 * width, bias=False)
        nn.init.constant_(self.gate.bias, 1.0 if members else -1.0)
        nn.init.ones_(self.candidate.bias)
        self.members = None
        if members:
            self.members = nn.Parameter(torch.empty(members, width).normal_(0, 0.1))
            self.member_gate = nn.Linear(width, width, bias=False)
            # Under the bug V_s has no part in anything; a parameter that never gets a gradient would only be confusing.
            self.member_candidate = None if literal_member_bug else nn.Linear(width, width, bias=False)

    def forward(self, own_BLD: Tensor, other_BLD: Tensor) -> Tensor:
        """(B, L, D) states s_1 .. s_L."""
        gates = self.gate(torch.cat([own_BLD, other_BLD], 2)).unsqueeze(2)
        candidates = self.candidate(own_BLD).unsqueeze(2)
        if self.members is not None:
            of_gate = self.member_gate(self.members)
            gates = gates + of_gate
            candidates = candidates + (
                of_gate if self.member_candidate is None else self.member_candidate(self.members)
            )
        state, states = torch.zeros_like(candidates[:, 0, 0]), []
        for gate_BKD, candidate_BKD in zip(gates.unbind(1), candidates.unbind(1)):
            to_gate, to_candidate = F.linear(state, self.recurrent.weight).unsqueeze(1).chunk(2, -1)
            kept = torch.sigmoid(gate_BKD + to_gate)
            new = torch.tanh(candidate_BKD + to_candidate)
            state = torch.lerp(new, state.unsqueeze(1), kept).mean(1)
            states.append(state)
            state = dropout(state, self.rate, self.training)
        return torch.stack(states, 1)
