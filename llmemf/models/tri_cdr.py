"""Tri-CDR: triple sequence learning for cross-domain recommendation (Ma et al., TOIS 2024).

Three SASRec encoders read the mixed, the source and the target sequence; an attention that knows the target's state sums
each of them up; the three sums are fused and compared with the target domain's items. A contrastive and a triplet loss
keep the sums close, and the source closer to the mixed sequence than to the target's own.

Chosen: `joint` scores both domains by one model with a head per target domain, whose encoders of S^X and S^Y change the
roles of source and target (the source trains one model per target: `per_target`). The encoders are trained alone first,
as in the source, but inside the same run (`pretrain_epochs`). Left out of the source: steps before the batch's first
target item being scored from raw states, the learning rate's decay of 0.99 per epoch, model choice on the test split.

Shapes: B batch, L columns of a sequence, T steps of the target's sequence, K columns of all three sequences side by side,
D width, N items, n items of one domain, R steps with a target, P pairs of a step and a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from llmemf.batches import VIEWS, Batch, TrialData
from llmemf.models.attention import EncoderConfig, SequenceEncoder, in_parts
from llmemf.models.columns import before_next, last_columns, merged_columns
from llmemf.models.next_item import binary_cross_entropy, domain_items, embed_items
from llmemf.models.recommender import SHORT_BUDGET, Recommender
from llmemf.models.unseen_items import UnseenItems

ROLES = ("mix", "src", "tgt")
PAIRS_AT_ONCE = 2**18
"""Pairs of a step and a key whose inner layers are held at once; more are recomputed in the backward pass."""


class TriCDRConfig(EncoderConfig):
    """Settings of Tri-CDR. The source has width 64, 2 blocks, 1 head, batches of 120, dropout 0.2, lr 1e-3 and no L2."""

    targets: Literal["joint", "per_target"] = "joint"
    """One set of encoders for both target domains, or a model of its own for each (source)."""
    pretrain_epochs: int = Field(1, ge=0)
    """First epochs that train each encoder as a SASRec of its own sequence (source: until they stop improving, with epochs
    that are not counted); what the model scores with is not trained in them, so they must be fewer than `epochs`."""
    num_negatives: int = Field(16, ge=1)
    """Negatives per step (source 1), of the target's domain and in no training sequence of the user; more of them share the
    weight of the one. Within a few epochs one of some 50,000 items hardly ever meets highly ranked ones."""
    scale: float = Field(5.0, gt=0)
    """Factor of the cosine between the fused vector and an item (source 5)."""
    contrast_weight: float = Field(0.1, ge=0)
    """w_cl (source 0.1 for Game to Toy, 4 for Toy to Game)."""
    contrast_temperature: float = Field(0.1, gt=0)
    """tau of the contrastive loss (source 0.1)."""
    rho_mix_src: float = Field(1.0, ge=0)
    """Weight of the pair mixed and source (source 1 for Game to Toy, 1000 for Toy to Game); the three are normalised."""
    rho_mix_tgt: float = Field(1.0, ge=0)
    """Weight of the pair mixed and target (source 1)."""
    rho_src_tgt: float = Field(1.0, ge=0)
    """Weight of the pair source and target (source 1)."""
    triplet_weight: float = Field(1.0, ge=0)
    """w_tri (source 10 for Game to Toy, 5 for Toy to Game, which outweigh the ranking loss in a short training)."""
    margin: float = Field(4.0, ge=0)
    """Margin of the triplet loss, a Euclidean distance (source 4 for Game to Toy, 20 for Toy to Game)."""

    @model_validator(mode="after")
    def _check(self) -> TriCDRConfig:
        if self.pretrain_epochs >= self.epochs:
            raise ValueError(
                f"pretrain_epochs = {self.pretrain_epochs} leaves no epoch of epochs = {self.epochs} to train what ranks: "
                "set pretrain_epochs = 0, or raise epochs"
            )
        if self.contrast_weight and not any((self.rho_mix_src, self.rho_mix_tgt, self.rho_src_tgt)):
            raise ValueError(
                "rho_mix_src, rho_mix_tgt, rho_src_tgt are all 0: set contrast_weight = 0 for no such loss"
            )
        return self


class TriCDR(Recommender):
    """Encoders of the three sequences and a head per target domain."""

    config_class = TriCDRConfig
    config: TriCDRConfig
    source = "Ma et al.: Triple sequence learning for cross-domain recommendation (Tri-CDR), TOIS 2024"
    search_space: ClassVar = {
        **SHORT_BUDGET,
        "num_negatives": [4, 16],
        "contrast_weight": [0.0, 0.1],
        "triplet_weight": [0.0, 1.0],
        "margin": [1.0, 4.0],
    }

    steps_taken: Tensor
    encoders: Sequence[TripleEncoder]

    heads: Sequence[TargetHead]

    def __init__(self, config: TriCDRConfig, data: TrialData) -> None:
        super().__init__(config, data)
        count = 1 if config.targets == "joint" else 2
        self.encoders = nn.ModuleList([TripleEncoder(config, data.num_items) for _ in range(count)])  # type: ignore[assignment]  # a ModuleList is a sequence of its modules
        self.heads = nn.ModuleList([TargetHead(config) for _ in range(2)])  # type: ignore[assignment]  # a ModuleList is a sequence of its modules
        self.unseen = UnseenItems(data)
        windows = int((-(-(data.train.lengths - 1) // config.max_length)).clip(min=1).sum())
        self.pretrain_steps = config.pretrain_epochs * -(-windows // config.batch_size)
        # Counted in Python, so that no step waits for the device, and kept in the checkpoint, so that a resumed run continues.
        self.steps = 0
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(lambda model, _: setattr(model, "steps", int(model.steps_taken)))

    def training_loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the fused vectors + w_cl contrast + w_tri triplet, summed over the target domains."""
        self.steps += self.training
        self.steps_taken.fill_(self.steps)
        states = [encoder(batch) for encoder in self.encoders]
        if self.steps <= self.pretrain_steps and self.training:
            return torch.stack([self._single_loss(batch, *pair) for pair in zip(self.encoders, states)]).sum()
        return torch.stack([self._target_loss(batch, domain, states[domain % len(states)]) for domain in (0, 1)]).sum()

    def _single_loss(self, batch: Batch, encoder: TripleEncoder, states: Mapping[str, Tensor]) -> Tensor:
        """Each encoder as a SASRec: binary cross entropy of the next item of its own sequence."""
        loss = states["xy"].new_zeros(())
        for name in VIEWS:
            following_BL = batch.views[name].next_same
            counted = following_BL < self.num_items
            targets = following_BL[counted]
            drawn = self._negatives(batch, counted, targets)
            rows_RCD = F.embedding(torch.cat([targets[:, None], drawn], 1), encoder.tables[name])
            loss = loss + binary_cross_entropy((rows_RCD @ states[name][counted].float().unsqueeze(2)).squeeze(2))
        return loss

    def _target_loss(self, batch: Batch, domain: int, states: Mapping[str, Tensor]) -> Tensor:
        own, head = "xy"[domain], self.heads[domain]
        following_BT = batch.views[own].next_same
        counted_BT = following_BT < self.num_items
        keys, visible = self._keys(batch, domain, states)
        visible = [mask & counted_BT[:, :, None] for mask in visible]
        sums = head.attend(states[own], keys, visible)
        fused_RD = head.fuse(torch.cat([part[counted_BT] for part in sums], 1))
        targets = following_BT[counted_BT]
        drawn = self._negatives(batch, counted_BT, targets)
        table = self._encoder(domain).tables[own]
        with torch.autocast(fused_RD.device.type, enabled=False):
            rows_RCD = F.normalize(F.embedding(torch.cat([targets[:, None], drawn], 1), table), dim=2)
            cosines = (rows_RCD @ F.normalize(fused_RD.float(), dim=1).unsqueeze(2)).squeeze(2)
            loss = binary_cross_entropy(self.config.scale * cosines)
            # The last step of every row that sees an item of the source: without one there is nothing to compare.
            last_B = last_columns(counted_BT)
            rows = torch.arange(len(last_B), device=targets.device)
            compared = rows[visible[1][rows, last_B].any(1)]
            last = [part[compared, last_B[compared]].float() for part in sums]
            return loss + head.contrast_and_triplet(*last)

    def _negatives(self, batch: Batch, counted_BT: Tensor, targets: Tensor) -> Tensor:
        """(R, C) negatives for the target of every counted step."""
        users = batch.users[:, None].expand_as(counted_BT)[counted_BT]
        return self.unseen.draw(users, targets, self.config.num_negatives)

    def _encoder(self, domain: int) -> TripleEncoder:
        return self.encoders[domain % len(self.encoders)]

    def _keys(self, batch: Batch, domain: int, states: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """States (B, L, D) of the mixed, source and target sequences, and what each target step may see (B, T, L)."""
        merged_BL = batch.views["xy"].items
        length = merged_BL.shape[1]
        at = {"xy": torch.arange(length, device=merged_BL.device).expand_as(merged_BL)}
        for code, name in enumerate("xy"):
            items = domain_items(code, self.num_x, self.num_items)
            of_domain = (merged_BL >= items.start) & (merged_BL < items.stop)
            at[name] = merged_columns(batch.views[name].items.shape[1], of_domain)
        own = "xy"[domain]
        names = ("xy", "xy"[1 - domain], own)
        real = [batch.views[name].items < self.num_items for name in names]
        visible = [before_next(at[own], at[name], mask, length) for name, mask in zip(names, real)]
        return [states[name] for name in names], visible

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) scale * cos(f_last, e) with everything in the history seen; an empty sequence contributes zeros."""
        encoder, head, own = self._encoder(domain), self.heads[domain], "xy"[domain]
        states = encoder(batch)
        keys, visible = self._keys(batch, domain, states)
        sums = head.attend(states[own][:, -1:], keys, [mask[:, -1:] for mask in visible])
        fused_BD = head.fuse(torch.cat([part[:, 0] for part in sums], 1)).float()
        items = encoder.tables[own][domain_items(domain, self.num_x, self.num_items)]
        return self.config.scale * (F.normalize(fused_BD, dim=1) @ F.normalize(items, dim=1).T)

    def batch_rows(self, batch: Batch) -> Tensor:
        ids = {name: batch.views[name].items.unique() for name in VIEWS}
        tables = [(name, encoder.tables[name]) for encoder in self.encoders for name in VIEWS]
        return torch.cat([F.embedding(ids[name][ids[name] < self.num_items], table) for name, table in tables])


class TripleEncoder(nn.Module):
    """A SASRec encoder with a table of its own for each of S^X, S^Y and S^{X+Y}."""

    def __init__(self, config: TriCDRConfig, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.tables = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(num_items, config.dim).normal_(0, 0.02)) for name in VIEWS}
        )
        self.encoders = nn.ModuleDict({name: SequenceEncoder.of(config) for name in VIEWS})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """States (B, L, D) of each sequence."""
        found: dict[str, Tensor] = {}
        for name in VIEWS:
            items_BL = batch.views[name].items
            found[name] = self.encoders[name](embed_items(items_BL, self.tables[name]), items_BL < self.num_items)
        return found


class TargetHead(nn.Module):
    """Target-aware attention, fusion, and the heads of the contrastive loss, of one target domain."""

    def __init__(self, config: TriCDRConfig) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        self.first = nn.Linear(5 * dim, 80)
        self.rest = nn.Sequential(nn.PReLU(), nn.Linear(80, 40), nn.PReLU(), nn.Linear(40, 1))
        self.fuse = nn.Sequential(nn.Linear(3 * dim, dim), nn.LeakyReLU(), nn.Linear(dim, dim))
        self.contrast_heads = nn.ModuleDict(
            {role: nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for role in ROLES}
        )

    def attend(self, query_BTD: Tensor, keys: list[Tensor], visible: list[Tensor]) -> list[Tensor]:
        """o_mix, o_src, o_tgt, each (B, T, D): sum_j a_j k_j with a = softmax over the visible keys of one sequence.

        u_j = MLP([k_j; q; k_j * q; q - k_j; m]), one MLP for the three; m is the mean of the visible mixed states. The MLP
        runs over the visible pairs alone. A step that sees nothing of a sequence gets zeros.
        """
        mean_BTD = visible[0].to(keys[0].dtype) @ keys[0] / visible[0].sum(2, keepdim=True).clamp(min=1)
        key_BKD, visible_BTK = torch.cat(keys, 1), torch.cat(visible, 2)
        # The first layer is linear in k, q, m and k * q; all but the last part are made once per key and step.
        of_key, of_query, of_product, of_difference, of_mean = self.first.weight.chunk(5, 1)
        key_part = F.linear(key_BKD, of_key - of_difference).flatten(0, 1)
        step_part = F.linear(query_BTD, of_query + of_difference) + F.linear(mean_BTD, of_mean, self.first.bias)
        sources = (key_part, step_part.flatten(0, 1), key_BKD.flatten(0, 1), query_BTD.flatten(0, 1), of_product)
        row, step, column = visible_BTK.nonzero(as_tuple=True)
        step, column = row * query_BTD.shape[1] + step, row * key_BKD.shape[1] + column
        chunks = list(zip(step.split(PAIRS_AT_ONCE), column.split(PAIRS_AT_ONCE)))
        logits_P = in_parts(self._pair_logits, chunks, *sources)
        lowest = torch.finfo(logits_P.dtype).min
        logits_BTK = logits_P.new_full(visible_BTK.shape, lowest).masked_scatter(visible_BTK, logits_P)
        parts = zip(logits_BTK.split([mask.shape[2] for mask in visible], 2), visible, keys)
        return [(logits.softmax(2) * mask).to(key.dtype) @ key for logits, mask, key in parts]

    def _pair_logits(
        self, step_P: Tensor, column_P: Tensor, key_part: Tensor, step_part: Tensor, key: Tensor, query: Tensor,
        of_product: Tensor,
    ) -> Tensor:  # fmt: skip
        """(P,) u of the pairs."""
        product = key.index_select(0, column_P) * query.index_select(0, step_P)
        hidden = key_part.index_select(0, column_P) + step_part.index_select(0, step_P) + F.linear(product, of_product)
        return self.rest(hidden).squeeze(1)

    def contrast_and_triplet(self, mix_BD: Tensor, src_BD: Tensor, tgt_BD: Tensor) -> Tensor:
        """w_cl sum of rho NTXent(s_a, s_b) over the pairs + w_tri max(0, d(s_src, s_mix) - d(s_src, s_tgt) + margin).

        Both losses compare the outputs s_a = g_a(o_a) of the heads, not the sums themselves, which rank.
        """
        config, loss = self.config, mix_BD.sum() * 0
        if not len(mix_BD):
            return loss
        seen = {role: self.contrast_heads[role](o) for role, o in zip(ROLES, (mix_BD, src_BD, tgt_BD))}
        if config.contrast_weight:
            rho = {pair: getattr(config, "rho_" + "_".join(pair)) for pair in combinations(ROLES, 2)}
            contrast = [w * nt_xent(seen[a], seen[b], config.contrast_temperature) for (a, b), w in rho.items()]
            loss = loss + config.contrast_weight * torch.stack(contrast).sum() / sum(rho.values())
        if config.triplet_weight:
            triplet = F.triplet_margin_loss(seen["src"], seen["mix"], seen["tgt"], config.margin)
            loss = loss + config.triplet_weight * triplet
        return loss


def nt_xent(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy: each vector finds its partner among the other 2 B - 1 of both sides."""
    unit = F.normalize(torch.cat([a_BD, b_BD]), dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = (unit @ unit.T / temperature).masked_fill(own, -torch.inf)
    partner = torch.arange(len(unit), device=unit.device).roll(len(a_BD))
    return F.cross_entropy(logits, partner)
