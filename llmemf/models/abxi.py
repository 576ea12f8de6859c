"""ABXI: invariant interest adaptation for task-guided cross-domain sequential recommendation (WWW 2025).

One transformer block reads the merged sequence S^{X+Y} and the domains' own S^X and S^Y; a low-rank adapter and a norm of its
own specialise it for each of them. The state for a target of domain d adds what both say:

    h_v = LN_v(a + drop(F(a)) + drop(lora_v(a))),   a = LN(h + drop(MHA(h))),   h = drop(E[s] + P[age]),   v in {x, y, xy}
    z_d = LN(h_xy + drop(G(h_xy)) + drop(lora_d(h_xy))) + LN(h_d + drop(G_d(h_d)))

F, G, G_x, G_y are SwiGLU networks; h_xy is taken where the target is the next merged item, h_d at the latest item of the
target's domain before it. The loss is InfoNCE with inner products over 0.75 against negatives of the target's domain, averaged
per sequence over its X targets and over its Y targets, summed, then averaged over sequences.

Different from the source: positions count a view's own items back from its newest; all targets of a batch
meet the same negatives, more of them, whose sum is brought to that of `negatives`; a history
without an item of the target's domain has the merged term alone.

Shapes: B batch, L merged columns, D width, N items, n items of one domain, R targets of one domain, K negatives, r rank.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import VIEWS, Batch, SequenceView, TrialData
from llmemf.config import BaselineConfig
from llmemf.models.attention import Layout
from llmemf.models.columns import at_last
from llmemf.models.next_item import domain_items, score_items
from llmemf.models.recommender import Recommender


class ABXIConfig(BaselineConfig):
    """Settings of ABXI.

    Source values: width 256, 2 heads, dropout 0.5, AdamW at 1e-4 with a decoupled decay of 2 to 3, 10 epochs of warm-up, the
    learning rate times 0.316 after 30 epochs without a better value, batches of 256, at most 500 epochs, histories of 47.
    """

    layout: Literal["aligned"] = "aligned"
    """S^X and S^Y keep the merged columns, so that each target finds its state in both."""
    dim: int = Field(256, ge=1)
    """Width of item vectors and states."""
    heads: int = Field(2, ge=1)
    """Attention heads; must divide `dim`."""
    adapter_rank: int = Field(16, ge=1)
    """Rank of the adapters of the encoder (source: 4 to 64, by data set)."""
    output_rank: int = Field(16, ge=1)
    """Rank of the adapters before the output (source: 16 to 64, by data set)."""
    negatives: int = Field(128, ge=1)
    """Negatives that a target competes with."""
    shared_negatives: int = Field(1024, ge=1)
    """Items drawn per step and domain for all targets of a batch; their mean stands for `negatives` of them. The source draws
    for each target, which is several times slower."""
    temperature: float = Field(0.75, gt=0)
    """Inner products are divided by it (source 0.75)."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout of embeddings and of the output of every layer."""
    l2_mode: Literal["adam", "adamw", "embedding_rows", "none"] = "adamw"
    """What L2 is applied to: decoupled decay (AdamW), as in the source, and the other forms."""
    l2: float = Field(2.0, ge=0)
    """Decoupled decay; a step multiplies weights by 1 - lr l2."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate (source 1e-4, over hundreds of epochs)."""


class ABXI(Recommender):
    """One item table, one block with an adapter per sequence, one output network per domain and one for both."""

    config_class = ABXIConfig
    config: ABXIConfig
    source = "Bian et al.: ABXI, invariant interest adaptation for task-guided cross-domain recommendation, WWW 2025"
    search_space: ClassVar = {
        "lr": [3e-4, 1e-3, 2e-3],
        "l2": [0.5, 2.0, 5.0],
        "adapter_rank": [4, 16, 64],
        "dropout": [0.3, 0.5],
    }

    def __init__(self, config: ABXIConfig, data: TrialData) -> None:
        super().__init__(config, data)
        width = config.dim
        self.items = nn.Parameter(torch.empty(self.num_items, width))
        self.positions = nn.Parameter(torch.empty(config.max_length, width))
        self.attention = CausalAttention(width, config.heads)
        self.network = SwiGLU(width)
        self.adapters = nn.ModuleDict({view: LowRank(width, config.adapter_rank) for view in VIEWS})
        self.norm = nn.LayerNorm(width)
        self.view_norms = nn.ModuleDict({view: nn.LayerNorm(width) for view in VIEWS})
        self.merged_output = SwiGLU(width)
        self.output_adapters = nn.ModuleList([LowRank(width, config.output_rank) for _ in range(2)])
        self.merged_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.own_outputs = nn.ModuleList([SwiGLU(width) for _ in range(2)])
        self.own_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        for table in (self.items, self.positions):
            nn.init.trunc_normal_(table, std=0.02, a=-0.04, b=0.04)

    def states(self, view: str, items_BL: Tensor) -> Tensor:
        """(B, L, D) states h_v of one sequence, zero at padding; the sequence may have gaps."""
        real_BL = items_BL < self.num_items
        layout = Layout(real_BL)
        age_BL = (real_BL.flip(1).cumsum(1).flip(1) - 1).clamp(0, len(self.positions) - 1)
        ids = layout.rows(items_BL.unsqueeze(2)).squeeze(1).clamp(max=self.num_items - 1)
        h_RD = F.embedding(ids, self.items) + F.embedding(layout.rows(age_BL.unsqueeze(2)).squeeze(1), self.positions)
        h_RD = layout.blank(self.drop(h_RD))
        a_RD = layout.blank(self.norm(h_RD + self.drop(self.attention(h_RD, layout))))
        network, adapted = self.network(a_RD), self.adapters[view](a_RD)
        return layout.table(layout.blank(self.view_norms[view](a_RD + self.drop(network) + self.drop(adapted))))

    def _merged_term(self, state_RD: Tensor, domain: int) -> Tensor:
        network, adapted = self.merged_output(state_RD), self.output_adapters[domain](state_RD)
        return self.merged_norms[domain](state_RD + self.drop(network) + self.drop(adapted))

    def _own_term(self, state_RD: Tensor, domain: int) -> Tensor:
        return self.own_norms[domain](state_RD + self.drop(self.own_outputs[domain](state_RD)))

    def training_loss(self, batch: Batch) -> Tensor:
        """InfoNCE: per sequence the mean over its X targets plus that over its Y targets; mean over the batch."""
        merged = batch.views["xy"]
        merged_BLD = self.states("xy", merged.items)
        loss = merged_BLD.new_zeros(())
        for domain, name in enumerate("xy"):
            view = batch.views[name]
            has_target = view.next_same < self.num_items
            # The last item without a successor is no input: it would only shift the positions of the others.
            own_BLD = self.states(name, view.items.masked_fill(~has_target, self.num_items))
            before = target_columns(merged, domain, num_x=self.num_x, pad=self.num_items)
            rows, targets = before.nonzero()[:, 0], view.next_same[has_target]
            states = self._merged_term(merged_BLD[before], domain) + self._own_term(own_BLD[has_target], domain)
            with torch.autocast(states.device.type, enabled=False):
                loss = loss + self._contrast(states.to(self.items.dtype), targets, rows, merged, domain)
        return loss

    def _contrast(self, states: Tensor, targets: Tensor, rows: Tensor, merged: SequenceView, domain: int) -> Tensor:
        """Sum over sequences of their mean -log(e^p / (e^p + sum of `negatives` e^q)), over the batch's size.

        Args:
            states: (R, D).
            targets: (R,) global ids of one domain.
            rows: (R,) sequence of each target.
        """
        own = torch.cat([merged.items, merged.next_merged], 1)
        config, items = self.config, domain_items(domain, self.num_x, self.num_items)
        scaled = states / config.temperature
        positive = (scaled * F.embedding(targets, self.items)).sum(1)
        count = min(config.shared_negatives, items.stop - items.start)
        ids = items.start + torch.randperm(items.stop - items.start, device=states.device)[:count]
        column = torch.full((self.num_items + 1,), count, device=states.device)
        column[ids] = torch.arange(count, device=states.device)
        met = torch.zeros(len(own), count + 1, dtype=torch.bool, device=states.device)
        met.scatter_(1, column[own], True)
        excluded = met[:, :count][rows]
        logits = scaled @ F.embedding(ids, self.items).T
        # Negatives that the sequence holds do not count; the mean of the others stands for each of `negatives`.
        logits = logits.masked_fill(excluded, -torch.inf)
        number = (~excluded).sum(1).clamp(min=1)
        rivals = logits.logsumexp(1) + torch.log(config.negatives / number)
        terms = torch.logaddexp(positive, rivals) - positive
        share = 1 / torch.bincount(rows, minlength=len(own)).clamp(min=1).to(terms.dtype)
        return (terms * share[rows]).sum() / len(own)

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) inner products of z_d with the domain's items; the merged term alone where the domain has no history."""
        name = "xy"[domain]
        items_BL = batch.views[name].items
        real_BL = items_BL < self.num_items
        own = at_last(self.states(name, items_BL), real_BL)
        merged = self.states("xy", batch.views["xy"].items)[:, -1]
        states = self._merged_term(merged, domain) + self._own_term(own, domain) * real_BL.any(1, keepdim=True)
        return score_items(states, self.items, domain, num_x=self.num_x) / self.config.temperature


def target_columns(merged: SequenceView, domain: int, *, num_x: int, pad: int) -> Tensor:
    """(B, L) bool: merged columns whose next item is of the domain and that have an item of it at or before them.

    Row by row and from left to right they are the columns before the targets of the domain's own sequence, in its order.
    """
    low, high = (num_x, pad) if domain else (0, num_x)
    inside = (merged.items >= low) & (merged.items < high)
    return (merged.next_merged >= low) & (merged.next_merged < high) & (inside.cumsum(1) > 0)


class CausalAttention(nn.Module):
    """Multi-head attention of every item to itself and to those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        for layer in (self.inputs, self.out):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x_RD: Tensor, layout: Layout) -> Tensor:
        """(R, D) from (R, D) rows."""
        table = layout.table(self.inputs(x_RD)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = table.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.allowed_BLL[:, None])
        return self.out(layout.rows(mixed.transpose(1, 2).flatten(2)))


class SwiGLU(nn.Module):
    """W3 (silu(W1 x) * W2 x), without biases; inner width 8/3 of the outer, a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 8 * max(1, round(width / 3))
        self.gate_and_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        for layer in (self.gate_and_value, self.out):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, -1)
        return self.out(F.silu(gate) * value)


class LowRank(nn.Module):
    """B A x with A of rank r, drawn from N(0, 1/50), and B zero at first."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, width).normal_(0, 1 / 50))
        self.up = nn.Parameter(torch.zeros(width, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up)
