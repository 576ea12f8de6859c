"""One GRU per domain and one softmax per domain: the frame of pi-Net, PSJNet and MIFN, which fill in what is transferred.

With h_d the last state of the target domain's own GRU and z what the other domain hands over,
`logits_d = W_d drop([z; h_d]) + b_d` over the items of d, and the loss is CE_X + CE_Y (baselines: pi-Net).

Shapes: B batch, L length, D width, N items, R rows with a target, T targets of a sequence.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.next_item import NextItemConfig, domain_items, embed_items, next_item_nll
from llmemf.models.recommender import Recommender
from llmemf.models.time_lines import TimeLines, after, every_item, gather_columns, last_two, whole_history


class DualGRUConfig(NextItemConfig):
    """Settings of the family."""

    softmax_scope: Literal["domain"] = "domain"
    """Each domain has its own softmax, as in the originals."""
    prefixes: Literal["every", "random", "whole"] = "every"
    """What is a target in training: every item of a sequence, seeing what comes before it (`every`: as many targets as
    GRU4Rec has); or the last X and the last Y item alone, of the whole sequence, as in the originals (`whole`), or of a
    prefix of it, drawn anew in every epoch (`random`). The originals' data has many short sequences; with two targets from
    each of a few thousand long ones, most rows of the output matrices are never the target, and popularity is all that is
    learned."""
    v2_causal: bool = True
    """With `whole` and `random`, each of a sequence's two targets sees what comes before it, as in evaluation; false is the
    originals' view: both are taken out, and the earlier one also sees what the other domain did after it."""

    @model_validator(mode="after")
    def _check_view(self) -> DualGRUConfig:
        if not self.v2_causal and self.prefixes == "every":
            raise ValueError("v2_causal = false needs prefixes = whole or random: with every item as a target, each of "
                             "them is an input of the next")  # fmt: skip
        return self


class DualGRU(Recommender):
    """Item vectors, one GRU per domain, one output matrix per domain; subclasses implement `transfers`."""

    config: DualGRUConfig

    def __init__(self, config: DualGRUConfig, data: TrialData) -> None:
        super().__init__(config, data)
        width = config.dim
        # About unit length: from much shorter vectors the states of a GRU hardly differ in the first epochs.
        self.items = nn.Parameter(torch.empty(self.num_items, width).normal_(0, width**-0.5))
        self.encoders = nn.ModuleList([nn.GRU(width, width, batch_first=True) for _ in range(2)])
        # The last column is b_d: one table for the inner product, without a copy in every step.
        self.output = nn.Parameter(torch.empty(self.num_items, 2 * width + 1).normal_(0, 0.02))
        with torch.no_grad():
            self.output[:, -1] = 0

    @abstractmethod
    def transfers(self, lines: TimeLines, states: tuple[Tensor, ...], domains: Sequence[int]) -> list[Tensor]:
        """For each of the target domains, z: what the other domain hands over, out of what the target may see; (B, D), or
        (B, T, D) where sequences have several targets.

        Args:
            states: what `encode` gives.
        """

    def read(self, batch: Batch) -> TimeLines:
        """Targets of a training batch and what they see."""
        config, numbers = self.config, {"num_x": self.num_x, "pad": self.num_items}
        if config.prefixes == "every":
            return every_item(batch, **numbers)
        return last_two(batch, causal=config.v2_causal, random_prefix=config.prefixes == "random", **numbers)

    def embed(self, ids: Tensor) -> Tensor:
        """(..., D) item vectors; zero at padding."""
        return embed_items(ids, self.items)

    def encode(self, lines: TimeLines) -> tuple[Tensor, ...]:
        """States of both domains' GRUs after each of their items, (B, Lx, D) and (B, Ly, D)."""
        return tuple(self.drop(gru(self.drop(self.embed(items)))[0]) for gru, items in zip(self.encoders, lines.items))

    def decoder_inputs(self, lines: TimeLines, states: tuple[Tensor, ...], domains: Sequence[int]) -> list[Tensor]:
        """[z; h; 1] (B, 2 D + 1), or (B, T, 2 D + 1), for each of the target domains."""
        own = [gather_columns(after(states[domain]), lines.seen[domain][domain]) for domain in domains]
        handed = self.transfers(lines, states, domains)
        return [with_one(self.drop(torch.cat([z, h], -1))) for z, h in zip(handed, own)]

    def training_loss(self, batch: Batch) -> Tensor:
        """CE_X + CE_Y, each a mean over the targets of its domain that have anything before them."""
        lines = self.read(batch)
        inputs = self.decoder_inputs(lines, self.encode(lines), (0, 1))
        exact = torch.cat([items.flatten() for items in lines.items])
        loss = self.output.new_zeros(())
        for domain in (0, 1):
            rows = has_target(lines, domain)
            given, targets = inputs[domain][rows], lines.target(domain)[rows]
            loss = loss + next_item_nll(self.config, given, targets, self.output, num_x=self.num_x, exact=exact)
        return loss

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) logits of the target domain's items."""
        lines = whole_history(batch, num_x=self.num_x, pad=self.num_items)
        (inputs,) = self.decoder_inputs(lines, self.encode(lines), (domain,))
        return inputs @ self.output[domain_items(domain, self.num_x, self.num_items)].T


def with_one(values: Tensor) -> Tensor:
    """(..., D + 1) the same rows with a 1 at their end, which meets the bias column of the output matrix."""
    return torch.cat([values, values.new_ones(*values.shape[:-1], 1)], -1)


def has_target(lines: TimeLines, domain: int) -> Tensor:
    """(B,) or (B, T) bool: there is a target of the domain and at least one item before it."""
    x, y = lines.seen[domain]
    return (lines.target(domain) < lines.pad) & (x + y > 0)
