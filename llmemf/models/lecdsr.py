"""LeCDSR: LLM text of items and an LLM-written profile of the user in a gated sequence model (fusion over frequencies).

With I the id vectors of the history (L, D), T = MLP(text), u = MLP(profile), F the Fourier transform over the L slots:

    C1 = F^-1(F(I) w),   C2 = F^-1(F(T) F(I)),   x = C1 sigmoid(Lin_1(C1)) + C2 sigmoid(Lin_2(C2))       contextual convolution
    x~ = x sigmoid(W_i x + W_u u + b)                                                                    feature gate
    iota_t = sigmoid(x~_t . w_x + (u W_uL)_t + p_t . w_p),   h = sum_t iota_t x~_t / sum_t iota_t        instance gate
    score(c) = b_c + (u + h + mean_t x_t) . w_c

    loss = sum over 99 negatives of relu(1 + (s_neg - s_pos) / tau) + lambda align(I, T)

One table and one output matrix serve both domains. Padding takes part in nothing. Where the source leaves a choice:

- The transform always has `max_length` slots, or padding would change it; the oldest item is in slot 0. A circular
  convolution then gives the newest item the products of all pairs, where slots filled from the end would give it none
  while less than half of them are filled.
- Slots of u W_uL are counted from the newest item, positions p from the newest item of the same domain.
- Items without text have the source's zero vector, except in the alignment, which leaves them out.

Shapes: B batch, L slots (`max_length`), D width, W width of the text features, N items, R rows (prefixes), K
negatives, P filled slots of all prefixes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.config import BaselineConfig
from llmemf.errors import InputError
from llmemf.models.item_table import FrozenTable, frozen
from llmemf.models.next_item import draw_in_domain, embed_items, score_items, sum_at
from llmemf.models.recommender import SHORT_BUDGET, Recommender

MASKED = -1e4
"""A logit without weight that, unlike -inf, may be multiplied with a target of 0."""


class LeCDSRConfig(BaselineConfig):
    """Settings of LeCDSR. The source has width 512 and trains batches of 1024 prefixes for 10 epochs with AdamW, lr 1e-4, decay 1e-6."""

    text_encoder: str = "auto"
    """Which text features: the encoder's name, or `auto` where there is only one. The source has a text-embedding
    model of 1024 numbers on title, category and description."""
    profile: Literal["mean_text", "llm", "table"] = "mean_text"
    """What u is made from. `mean_text`: the mean text vector of the history, the same for users that training does not
    know; `llm`: encoded profiles that a language model wrote of the training histories (the source; they know the
    training targets, and are zero for other users); `table`: a learned vector per user (zero for other users)."""
    profile_encoder: str = "auto"
    """Which encoded profiles, where `profile` is `llm`."""
    text_hidden: int = Field(768, ge=1)
    """Hidden width of the maps of text and profile (source 768)."""
    temperature: float = Field(3.0, gt=0)
    """tau: what score differences are divided by in the hinge (source 3; its grid 6 to 10)."""
    align_temperature: float = Field(3.0, gt=0)
    """tau2 of the alignment (source 3; its grid 4 to 7)."""
    align_weight: float = Field(0.3, ge=0)
    """lambda: weight of the alignment (source 0.3 and 0.6), whose mean stands beside the sum of a batch's hinges."""
    negatives: int = Field(99, ge=1)
    """Items of the target's domain per prefix (source 99, drawn once for all epochs; here anew in every step)."""
    literal_batch_negatives: bool = False
    """Compare every target's score with the negatives' scores of all rows of the batch, each under its own history, as
    the source's broadcast does; the loss then grows with the batch."""
    prefixes: int = Field(16, ge=0)
    """Prefixes of a window that are trained per step; of a longer window so many are drawn. 0 takes all, which needs
    memory in the square of `max_length` (the source takes all of 15)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of id and projected text vectors; the source has none."""


class LeCDSR(Recommender):
    """LeCDSR for both domains at once; candidates come from the target's domain."""

    config_class = LeCDSRConfig
    config: LeCDSRConfig
    source = "LeCDSR: LLM-enhanced cross-domain sequential recommendation (authors' code)"
    status = "pseudo-profile"
    search_space: ClassVar = {
        **SHORT_BUDGET,
        "temperature": [0.3, 1.0, 3.0],
        "align_temperature": [3.0, 7.0],
        "align_weight": [0.0, 0.1, 0.3],
    }

    known: Tensor
    profiles: Tensor

    def __init__(self, config: LeCDSRConfig, data: TrialData) -> None:
        super().__init__(config, data)
        if data.text is None:
            raise InputError("lecdsr reads text features, but none were given: make them with `llmemf features`")
        width, slots = config.dim, config.max_length
        # Frozen rows stay frozen; the source's initialisation overwrites them with noise.
        self.text = FrozenTable(data.text, self.num_x, projection="none", width=width, missing="renormalise")
        self.items = nn.Parameter(torch.empty(self.num_items, width).normal_(0, 0.02))
        self.output = nn.Parameter(torch.empty(self.num_items, width).normal_(0, 0.02))
        self.bias = nn.Parameter(torch.zeros(self.num_items))
        self.text_map = _text_map(self.text.width, config)
        self.filter = nn.Parameter(torch.empty(slots // 2 + 1, width, 2).normal_(0, 0.02))
        self.gates = nn.ModuleList([nn.Linear(width, 1) for _ in range(2)])
        self.feature_item, self.feature_user = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.instance_item, self.instance_user = nn.Linear(width, 1, bias=False), nn.Linear(width, slots, bias=False)
        self.positions = nn.Parameter(torch.empty(slots, width).normal_(0, 0.02))
        self.instance_position = nn.Linear(width, 1, bias=False)
        self._build_profiles(data)

    def _build_profiles(self, data: TrialData) -> None:
        config = self.config
        if config.profile == "table":
            self.users = nn.Parameter(torch.empty(data.num_users, config.dim).normal_(0, 0.02))
            known = torch.zeros(data.num_users, dtype=torch.bool)
            known[torch.from_numpy(data.train.users).long()] = True
            self.register_buffer("known", known, persistent=False)
            return
        width = self.text.width
        if config.profile == "llm":
            if data.profile is None:
                raise InputError(
                    "profile = llm, but no encoded profiles were given: make them with `llmemf features profiles`"
                )
            self.register_buffer("profiles", frozen(data.profile.rows), persistent=False)
            self.status, width = "faithful", self.profiles.shape[1]
        self.profile_map = _text_map(width, config)

    @classmethod
    def needs(cls, config: LeCDSRConfig) -> frozenset[str]:
        return frozenset({"text", "profile"} if config.profile == "llm" else {"text"})

    def training_loss(self, batch: Batch) -> Tensor:
        """Mean over prefixes of the hinge sum, plus lambda times the alignment of ids and texts."""
        config, view = self.config, batch.views["xy"]
        items_BL, following_BL = self._slots(view.items, view.next_merged)
        row, last = self._prefixes(following_BL)
        ids_BLD, texts_BLD = self._vectors(items_BL)
        queries = self._queries(batch.users, items_BL, ids_BLD, texts_BLD, row, last)
        targets = following_BL[row, last]
        negatives = draw_in_domain(targets, config.negatives, num_x=self.num_x, num_items=self.num_items)
        with torch.autocast(queries.device.type, enabled=False):
            queries = queries.float()
            positive = (queries * F.embedding(targets, self.output)).sum(1) + self.bias[targets]
            negative = torch.einsum("rd,rkd->rk", queries, F.embedding(negatives, self.output)) + self.bias[negatives]
            hinge = batch_hinge if config.literal_batch_negatives else hinge_sums
            loss = hinge(positive, negative, config.temperature)
            if config.align_weight:
                has_BL = (items_BL < self.num_items) & self._has_text(items_BL)
                seen_RL = _seen(last, config.max_length) & has_BL[row]
                grams = (ids_BLD.float(), texts_BLD.float())
                aligned = alignment(*grams, row, seen_RL, config.align_temperature)
                # The source adds up the hinges of a batch and takes the mean of its alignments.
                loss = loss + config.align_weight * (1 / max(1, len(row))) * aligned
            return loss.sum() / max(1, len(row))

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) scores of the domain's items after the whole history."""
        (items_BL,) = self._slots(batch.views["xy"].items)
        row = torch.arange(len(items_BL), device=items_BL.device)
        last = (items_BL < self.num_items).sum(1) - 1
        queries = self._queries(batch.users, items_BL, *self._vectors(items_BL), row, last).float()
        return score_items(queries, self.output, domain, num_x=self.num_x, bias=self.bias)

    def _slots(self, *tables: Tensor) -> list[Tensor]:
        """(B, max_length) each: the newest columns, the oldest of them in slot 0, padding behind."""
        slots, pad = self.config.max_length, self.num_items
        newest = [table[:, -slots:] for table in tables]
        gap_B1 = (newest[0] == pad).sum(1, keepdim=True)
        width = newest[0].shape[1]
        source = (torch.arange(slots, device=gap_B1.device) + gap_B1).clamp(max=width)
        return [F.pad(table, (0, 1), value=pad).gather(1, source) for table in newest]

    def _prefixes(self, following_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Row and last slot of every prefix that is trained (view V3), both (R,)."""
        counted = following_BL < self.num_items
        limit = self.config.prefixes
        if limit and counted.shape[1] > limit:
            order = torch.rand(counted.shape, device=counted.device).masked_fill_(~counted, 2)
            counted = counted & (order <= order.kthvalue(limit, 1, keepdim=True).values)
        row, last = counted.nonzero(as_tuple=True)
        return row, last

    def _vectors(self, items_BL: Tensor) -> tuple[Tensor, Tensor]:
        """I and T, (B, L, D) each; zero at padding."""
        real_BL1 = (items_BL < self.num_items).unsqueeze(2)
        ids_BLD = embed_items(items_BL, self.items)
        # Each item of the batch once: the map is wide.
        unique, where = items_BL.unique(return_inverse=True)
        texts_BLD = self.text_map(self.text.input_rows(unique))[where] * real_BL1
        return self.drop(ids_BLD), self.drop(texts_BLD)

    def _has_text(self, items_BL: Tensor) -> Tensor:
        return self.text.present[items_BL.clamp(max=self.num_items - 1)]

    def _queries(
        self, users: Tensor, items_BL: Tensor, ids_BLD: Tensor, texts_BLD: Tensor, row: Tensor, last: Tensor
    ) -> Tensor:
        """(R, D) u + h + mean_t x_t of the prefixes that end at slot `last` of `row`."""
        slots = self.config.max_length
        seen_RL = _seen(last, slots) & (items_BL < self.num_items)[row]
        contexts = self._contexts(ids_BLD[row] * seen_RL.unsqueeze(2), texts_BLD[row] * seen_RL.unsqueeze(2))
        # From here on only the slots that hold an item, end to end: prefixes are short, and most slots empty.
        prefix_P, slot_P = seen_RL.nonzero(as_tuple=True)
        x_PD: Any = 0
        for context_RLD, gate in zip(contexts, self.gates):
            context_PD = context_RLD[prefix_P, slot_P]
            x_PD = x_PD + context_PD * torch.sigmoid(gate(context_PD))
        u_RD = self._user(users, items_BL, row, last)
        gate_PD = torch.sigmoid(self.feature_item(x_PD) + self.feature_user(u_RD)[prefix_P])
        gated_PD = x_PD * gate_PD
        instance_P = (
            self.instance_item(gated_PD)[:, 0]
            + self.instance_user(u_RD)[prefix_P, last[prefix_P] - slot_P]
            + self.instance_position(self.positions)[self._recency(items_BL, row, last)[prefix_P, slot_P], 0]
        )
        weight_P1 = torch.sigmoid(instance_P).unsqueeze(1)
        h_RD = sum_at(weight_P1 * gated_PD, prefix_P, len(row)) / sum_at(weight_P1, prefix_P, len(row)).clamp(min=1e-12)
        return u_RD + h_RD + sum_at(x_PD, prefix_P, len(row)) / seen_RL.sum(1, keepdim=True).clamp(min=1)

    def _contexts(self, ids_RLD: Tensor, texts_RLD: Tensor) -> list[Tensor]:
        """C1 and C2, (R, L, D) each; always in fp32, half precision has no such transform."""
        with torch.autocast(ids_RLD.device.type, enabled=False):
            of_ids, of_texts = (torch.fft.rfft(rows.float(), dim=1, norm="ortho") for rows in (ids_RLD, texts_RLD))
            spectra = (of_ids * torch.view_as_complex(self.filter), of_texts * of_ids)
            return [torch.fft.irfft(each, n=ids_RLD.shape[1], dim=1, norm="ortho") for each in spectra]

    def _user(self, users: Tensor, items_BL: Tensor, row: Tensor, last: Tensor) -> Tensor:
        """(R, D) u; of `mean_text` from what the prefix holds, so that no target is in it."""
        if self.config.profile == "table":
            return (F.embedding(users, self.users) * self.known[users].unsqueeze(1))[row]
        if self.config.profile == "llm":
            return self.profile_map(F.embedding(users, self.profiles))[row]
        has_BL1 = (self._has_text(items_BL) & (items_BL < self.num_items)).unsqueeze(2)
        mean_BLW = self.text.input_rows(items_BL).cumsum(1) / has_BL1.cumsum(1).clamp(min=1)
        return self.profile_map(mean_BLW[row, last.clamp(min=0)])

    def _recency(self, items_BL: Tensor, row: Tensor, last: Tensor) -> Tensor:
        """(R, L) how many items of the same domain come after each one in the prefix."""
        is_y_BL = (items_BL >= self.num_x) & (items_BL < self.num_items)
        counts_2BL = torch.stack([items_BL < self.num_x, is_y_BL]).cumsum(2)
        own_BL = torch.where(is_y_BL, counts_2BL[1], counts_2BL[0])
        x_R, y_R = counts_2BL[:, row, last.clamp(min=0)]
        return (torch.where(is_y_BL[row], y_R[:, None], x_R[:, None]) - own_BL[row]).clamp(min=0)


def hinge_sums(positive_R: Tensor, negative_RK: Tensor, temperature: float) -> Tensor:
    """(R,) sum_k relu(1 + (s_neg - s_pos) / tau)."""
    return F.relu(1 + (negative_RK - positive_R[:, None]) / temperature).sum(1)


def batch_hinge(positive_R: Tensor, negative_RK: Tensor, temperature: float) -> Tensor:
    """(R,) the hinge of every positive over the negatives of all rows, without the (R, R, K) differences.

    With the negatives sorted, those above s_pos - tau are the last m ones: sum = m (1 - s_pos / tau) + their sum / tau.
    """
    ordered = negative_RK.double().flatten().sort().values
    above = F.pad(ordered.flip(0).cumsum(0), (1, 0))
    positive_R = positive_R.double()
    count_R = len(ordered) - torch.searchsorted(ordered, (positive_R - temperature).detach(), right=True)
    sums = count_R * (1 - positive_R / temperature) + above[count_R] / temperature
    return sums.to(negative_RK.dtype)


def alignment(ids_BLD: Tensor, texts_BLD: Tensor, row: Tensor, seen_RL: Tensor, temperature: float) -> Tensor:
    """(R,) soft contrastive loss between ids and texts of every prefix, mean over its items.

    Logits I T' / tau2, soft targets softmax((I I' + T T') / (2 tau2)), cross entropy over rows plus over columns (the
    source takes the mean of both, twice). The products are made once per window and shared by its prefixes.
    """
    ids_T, texts_T = ids_BLD.transpose(1, 2), texts_BLD.transpose(1, 2)
    logits_RLL = (ids_BLD @ texts_T / temperature)[row]
    similar_RLL = ((ids_BLD @ ids_T + texts_BLD @ texts_T) / (2 * temperature))[row]
    hidden_R1L = ~seen_RL.unsqueeze(1)
    targets_RLL = similar_RLL.masked_fill(hidden_R1L, MASKED).softmax(2)
    loss_RL: Any = 0
    for each in (logits_RLL, logits_RLL.transpose(1, 2)):
        loss_RL = loss_RL - (targets_RLL * each.masked_fill(hidden_R1L, MASKED).log_softmax(2)).sum(2)
    return (loss_RL * seen_RL).sum(1) / seen_RL.sum(1).clamp(min=1)


def _seen(last: Tensor, slots: int) -> Tensor:
    return torch.arange(slots, device=last.device) <= last[:, None]


def _text_map(width: int, config: LeCDSRConfig) -> nn.Sequential:
    hidden = config.text_hidden
    return nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, config.dim))
