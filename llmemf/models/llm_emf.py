"""LLM-EMF: LLM-enhanced multimodal fusion for cross-domain sequential recommendation (arXiv text, sections 3.1-3.5).

Three modalities m in {id, image, text} and three sequences s in {X, Y, X+Y} give nine representations h_m^s. Every sequence
has a mixture of cosine softmaxes over items (eqs. 3, 5-8); the loss adds them (eqs. 9, 10), the score adds them again for a
target domain (eqs. 11, 12). Where the paper is silent a field of `LLMEMFConfig` says what was chosen and what else is
possible; `preset: literal` is the closest reading of its letter.

Shapes: B batch, L length, D width, N items, n items of one domain, M modalities, R rows with a target.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from llmemf.batches import VIEWS, Batch, DeviceSequences, TrialData, View
from llmemf.config import TrialConfig
from llmemf.errors import InputError
from llmemf.models.attention import SequenceEncoder
from llmemf.models.content import Content, with_content
from llmemf.models.grouped_encoders import grouped_states, may_group
from llmemf.models.item_table import FrozenTable, IdTable, Missing, Projection
from llmemf.models.mixture import MixtureHead, MixtureSettings, StepRows, half_fits
from llmemf.models.recommender import Recommender
from llmemf.objective import UNSHIFTED_SCALE
from llmemf.objective_half import HALF_SCALE

MODALITIES = ("id", "image", "text")
SCORE_ELEMENTS = 2**22
"""Logits held at once in scoring (16 MiB in fp32), as long as they are of `SCORE_ROWS` cases."""
GPU_SCORE_ELEMENTS = 2**27
"""The same on a GPU."""
SCORE_ROWS = 32
"""Cases scored at once at least: fewer read the tables so often that reading decides."""
ROW_MULTIPLE = 128
"""Rows of a GPU's step are padded to a multiple of this, so that shapes repeat."""
LITERAL = {
    "scale": "fixed",
    "scale_init": 1.0,
    "encoder": "bare",
    "encoder_layers": 1,
    "positions": False,
    "score_roles": "x_first",
    "monitor": "val_loss",
}


class LLMEMFConfig(TrialConfig):
    """Settings of LLM-EMF; each field that fills a gap of the paper names the gap."""

    preset: Literal["default", "literal"] = "default"
    """`literal`: no temperature, one bare attention layer without positions, X-first scores, early stop on loss."""
    modalities: tuple[Literal["id", "image", "text"], ...] = MODALITIES
    """Modalities in the mixture; any subset (ablations). The weights of the rest are renormalised."""
    sequences: tuple[Literal["x", "y", "xy"], ...] = VIEWS
    """Sequences in loss and score; any subset (ablations)."""
    text_encoder: str = "auto"
    """Which text features: the encoder's name, or `auto`: CLIP before offline, title + LLM text first (docs/features.md)."""
    image_encoder: str = "auto"
    """Which image features, likewise."""
    text_content: Content = "real"
    """The text features as they are, or a control in their place: noise of the same norms, or the rows of a domain's items
    shuffled among them (drawn by `seed`)."""
    image_content: Content = "real"
    """The image features, likewise."""
    alpha: float = Field(0.4, ge=0, le=1)
    """Weight of the id modality (eq. 8); the paper names no value."""
    beta: float = Field(0.3, ge=0, le=1)
    """Weight of the image modality (eq. 8); the text modality has 1 - alpha - beta."""
    learn_weights: bool = False
    """Train the three weights from alpha and beta on instead of keeping them."""
    mixture: Literal["prob", "logit"] = "prob"
    """Mix probabilities (eq. 8), or logits before one softmax."""
    lambda1: float = Field(0.3, ge=0)
    """Weight of the other domain's sequence in loss (eq. 10) and score (eq. 11)."""
    lambda2: float = Field(0.1, ge=0)
    """Weight of the merged sequence in loss and score."""
    eval_lambda1: float | None = Field(None, ge=0)
    """lambda1 of the score alone; None keeps it tied to the loss."""
    eval_lambda2: float | None = Field(None, ge=0)
    """lambda2 of the score alone; None keeps it tied to the loss."""
    loss_roles: Literal["literal", "symmetric", "per_target"] = "literal"
    """Eq. 10 as printed (X 1, Y lambda1); both domains 1; or two separate models, one per target domain."""
    score_roles: Literal["target_first", "x_first"] = "target_first"
    """Weight 1 in the score goes to the target's domain, or always to X (the letter of eq. 11)."""
    scale: Literal["learned", "shared", "fixed"] = "learned"
    """Inverse temperature of the cosine: learned per modality, one learned for all, or fixed (1.0 is eq. 3's letter)."""
    scale_init: float = Field(1 / 0.07, gt=0, le=100)
    """Initial or fixed inverse temperature."""
    scale_max: float = Field(100.0, gt=0, le=300)
    """Upper bound of a learned scale."""
    cross_softmax: Literal["target_items", "all_items", "drop"] = "target_items"
    """P^Y(x) for x in X, undefined in eq. 11: softmax over the target's domain, over all items, or no such term."""
    merged_softmax: Literal["all_items", "renormalise", "target_items"] = "all_items"
    """P^{X+Y}: over all items; the same, renormalised in the target's domain at scoring; or over the domain throughout."""
    loss_positions: Literal["all", "last", "last10"] = "all"
    """Which positions count in eq. 9."""
    next_target: Literal["same", "merged"] = "same"
    """Target after an item of S^X: the next item of S^X, or the next of either domain (softmax over all items)."""
    layout: Literal["compact", "aligned"] = "compact"
    """S^X keeps only X items, or the merged columns with gaps."""
    encoder: Literal["block", "bare"] = "block"
    """Attention block with residual, norm and network, or softmax(QK^T/sqrt(d))V alone (eq. 4)."""
    encoder_layers: int = Field(2, ge=1, le=8)
    """Attention layers."""
    heads: int = Field(1, ge=1)
    """Attention heads; must divide every width."""
    positions: bool = True
    """Learned positions."""
    share_encoders: Literal["none", "sequences", "modalities"] = "none"
    """Nine encoders; one per modality; or one per sequence (needs a projection to the id width)."""
    group_encoders: Literal["auto", "yes", "no"] = "auto"
    """Compute the encoders of one width as one (fewer, larger operations; never another result); auto does on a GPU."""
    id_dim: int = Field(256, ge=1)
    """Width q of the id embedding."""
    tied_ids: bool = True
    """One id matrix for inputs and candidates."""
    item_projection: Projection = "none"
    """Map of the frozen features, for inputs and candidates alike: none (the paper), linear, or mlp."""
    projection_dim: int = Field(256, ge=1)
    """Width after the projection."""
    missing: Missing = "renormalise"
    """An item without text or image leaves that modality's mixture, gets its domain's mean, or a learned vector."""
    empty_sequence: Literal["drop", "learned"] = "drop"
    """A user without items in a domain: that term is dropped, or has a learned vector, trained on first items."""
    objective: Literal["full", "sampled"] = "full"
    """Softmax over all items in training, or its unbiased estimate: the batch's inputs exactly, the rest by uniform draws."""
    sampled_negatives: int = Field(2048, ge=1)
    """Uniform draws per step and sequence of the sampled objective."""
    objective_precision: Literal["auto", "fp32", "fp16"] = "auto"
    """Operands of the exact objective's products: fp16 with sums, normaliser and gradients in fp32, or fp32 throughout; auto is
    fp16 on a GPU where the scale cannot pass 100, else fp32."""
    objective_kernel: Literal["auto", "plain", "triton"] = "auto"
    """Fused Triton kernels for the fp16 objective, or plain operations; auto takes the kernels on a GPU where a measurement at the
    first step finds them faster and in agreement, and says in one line where it does not."""
    chunk_elements: int = Field(0, ge=0)
    """Logits held at once in the objective: memory against speed, never the result; 0 chooses by shapes and memory."""

    @field_validator("modalities", "sequences", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "literal":
            return {**LITERAL, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> LLMEMFConfig:
        if self.alpha + self.beta > 1 + 1e-9:
            raise ValueError(f"alpha + beta = {self.alpha + self.beta:g} is above 1 (eq. 8): lower one of them")
        for name in ("modalities", "sequences"):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) != len(chosen):
                raise ValueError(f"{name} = {list(chosen)}: name each of the wanted ones once, at least one")
        if not self.learn_weights and not any(self.weights().values()):
            raise ValueError(
                f"modalities = {list(self.modalities)} have no weight with alpha = {self.alpha:g}, beta = {self.beta:g}"
            )
        if self.share_encoders == "modalities" and (
            self.item_projection == "none" or self.projection_dim != self.id_dim
        ):
            raise ValueError(
                "share_encoders = modalities needs item_projection = linear or mlp and projection_dim = id_dim"
            )
        if self.scale != "fixed" and self.scale_init > self.scale_max:
            raise ValueError(
                f"scale_init = {self.scale_init:g} is above scale_max = {self.scale_max:g}: raise the latter"
            )
        if self.objective_precision == "fp16" and not half_fits(self.mixture_settings()):
            raise ValueError(
                f"objective_precision = fp16 needs objective = full, mixture = prob and a scale of at most {HALF_SCALE:g} "
                "(scale_max, or scale_init where scale = fixed): set fp32 or auto"
            )
        self._check_terms()
        return self

    def mixture_settings(self) -> MixtureSettings:
        """What the mixture over items needs to know."""
        return MixtureSettings(
            self.mixture,
            self.learn_weights,
            self.scale,
            self.scale_init,
            self.scale_max,
            self.sampled_negatives if self.objective == "sampled" else 0,
            self.chunk_elements,
            self.objective_precision,
            self.objective_kernel,
        )

    def _check_terms(self) -> None:
        """Raise ValueError where a loss or a score would have no term left."""
        terms = {f"the loss of target {first.upper()}": self.loss_weights(first) for first in self.towers()}
        terms |= {f"the score of domain {'XY'[domain]}": self.score_weights(domain) for domain in (0, 1)}
        for what, weights in terms.items():
            if not weights:
                raise ValueError(
                    f"sequences = {list(self.sequences)} leave no term in {what} with lambda1 = {self.lambda1:g}, "
                    f"lambda2 = {self.lambda2:g}, eval_lambda1 = {self.eval_lambda1}, eval_lambda2 = "
                    f"{self.eval_lambda2}, cross_softmax = {self.cross_softmax}: raise a weight or add sequences"
                )

    def towers(self) -> tuple[str, ...]:
        """The first domain of each separate model."""
        return ("x", "y") if self.loss_roles == "per_target" else ("x",)

    def loss_weights(self, first: str) -> dict[str, float]:
        """Weight of each sequence in the loss (eq. 10); those with weight 0 are left out."""
        other = "y" if first == "x" else "x"
        second = 1.0 if self.loss_roles == "symmetric" else self.lambda1
        weights = {first: 1.0, other: second, "xy": self.lambda2}
        return {s: weights[s] for s in VIEWS if s in self.sequences and weights[s] > 0}

    def score_weights(self, domain: int) -> dict[str, float]:
        """Weight of each sequence in the score of a target domain (eq. 11); those with weight 0 are left out."""
        own, cross = ("y", "x") if domain else ("x", "y")
        first = own if self.score_roles == "target_first" else "x"
        second = self.lambda1 if self.eval_lambda1 is None else self.eval_lambda1
        merged = self.lambda2 if self.eval_lambda2 is None else self.eval_lambda2
        weights = {s: 1.0 if s == first else second for s in ("x", "y")} | {"xy": merged}
        if self.cross_softmax == "drop":
            weights[cross] = 0.0
        return {s: weights[s] for s in VIEWS if s in self.sequences and weights[s] > 0}

    def weights(self) -> dict[str, float]:
        """Mixture weights of the chosen modalities (eq. 8), summing to 1 unless all are 0."""
        printed = {"id": self.alpha, "image": self.beta, "text": max(0.0, 1 - self.alpha - self.beta)}
        printed = {name: 0.0 if weight < 1e-9 else weight for name, weight in printed.items()}
        total = sum(printed[name] for name in self.modalities)
        return {name: printed[name] / total if total else 0.0 for name in self.modalities}


class LLMEMF(Recommender):
    """LLM-EMF under the common interface: one tower, or one per target domain (`loss_roles: per_target`)."""

    config_class = LLMEMFConfig
    config: LLMEMFConfig
    source = "LLM-EMF: LLM-enhanced multimodal fusion for cross-domain sequential recommendation"

    def __init__(self, config: LLMEMFConfig, data: TrialData) -> None:
        super().__init__(config, data)
        self.towers = nn.ModuleList([Tower(config, data, first) for first in config.towers()])

    @classmethod
    def needs(cls, config: LLMEMFConfig) -> frozenset[str]:
        return frozenset(set(config.modalities) - {"id"})

    @classmethod
    def default_space(cls) -> Mapping[str, Any]:
        lambdas = [0.0, 0.1, 0.3, 0.5, 0.7, 1.0]
        return {**super().default_space(), "alpha, beta": {"simplex": 0.1}, "lambda1": lambdas, "lambda2": lambdas}

    def training_loss(self, batch: Batch) -> Tensor:
        """L = L^X + lambda1 L^Y + lambda2 L^{X+Y} (eq. 10), summed over positions, averaged over sequences."""
        return torch.stack([tower.training_loss(batch) for tower in self.towers]).sum()

    def plan_epoch(self, sequences: DeviceSequences, order: Tensor) -> None:
        for tower in self.towers:
            tower.plan_epoch(sequences, order, self.config.batch_size)

    def step_signature(self) -> Hashable:
        return tuple(
            (tuple(tower.row_counts.items()), tower.head.scale_bound() > UNSHIFTED_SCALE) for tower in self.towers
        )

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) log P(i | S) of eq. 11 for every item of the domain."""
        return self.towers[domain if len(self.towers) == 2 else 0].score_all(batch, domain)

    def facts(self) -> dict[str, str]:
        half = self.towers[0].head.precision() == "fp16"
        return {"objective_precision": "fp16 operands, sums in fp32"} if half else {}

    def batch_rows(self, batch: Batch) -> Tensor | None:
        ids = torch.cat([view.items.flatten() for view in batch.views.values()]).unique()
        ids = ids[ids < self.num_items]
        rows = [tower.tables["id"].input[ids] for tower in self.towers if "id" in tower.tables]
        return torch.cat(rows) if rows else None


class Tower(nn.Module):
    """Nine encoders over the item tables, with their losses and scores."""

    def __init__(self, config: LLMEMFConfig, data: TrialData, first: str) -> None:
        super().__init__()
        self.config, self.num_x, self.num_items = config, data.num_x, data.num_items
        weights = config.weights()
        self.modalities = [m for m in MODALITIES if m in weights and (weights[m] > 0 or config.learn_weights)]
        self.sequences = [s for s in VIEWS if s in config.sequences]
        self.tables = {m: self._table(m, data) for m in self.modalities}
        self.head = MixtureHead(self.tables, weights, config.mixture_settings())
        self.encoders = nn.ModuleDict()
        self.empty = nn.ParameterDict()
        for s in self.sequences:
            for m in self.modalities:
                if self._encoder_key(s, m) not in self.encoders:
                    self.encoders[self._encoder_key(s, m)] = self._encoder(self.tables[m].width)
                if config.empty_sequence == "learned" and s != "xy":
                    self.empty[f"{s}_{m}"] = nn.Parameter(torch.empty(self.tables[m].width).normal_(0, 0.02))
        self.loss_weights = config.loss_weights(first)
        self.row_counts: dict[tuple[str, int], int] = {}

    def _table(self, modality: str, data: TrialData) -> IdTable | FrozenTable:
        config = self.config
        if modality == "id":
            return IdTable(self.num_items, config.id_dim, tied=config.tied_ids)
        features = getattr(data, modality)
        if features is None:
            raise InputError(
                f"modality {modality!r} is wanted but its features were not given: leave it out or add them"
            )
        if not features.has.any():
            raise InputError(f"no item has the modality {modality!r}: leave it out with --set modalities=...")
        content = {"text": config.text_content, "image": config.image_content}[modality]
        features = with_content(features, content, num_x=self.num_x, seed=config.seed)
        return FrozenTable(
            features, self.num_x, projection=config.item_projection, width=config.projection_dim, missing=config.missing
        )

    def _encoder(self, width: int) -> SequenceEncoder:
        config = self.config
        if width % config.heads:
            raise InputError(f"heads = {config.heads} does not divide the width {width} of a modality")
        return SequenceEncoder(
            width,
            config.max_length,
            layers=config.encoder_layers,
            heads=config.heads,
            dropout=config.dropout,
            bare=config.encoder == "bare",
            positions=config.positions,
        )

    def _encoder_key(self, sequence: str, modality: str) -> str:
        keys = {"none": f"{sequence}_{modality}", "sequences": modality, "modalities": sequence}
        return keys[self.config.share_encoders]

    def states(self, real_BL: Tensor, sequence: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Per modality (B, L, D_m) states H_m^s of one sequence (eq. 4) from the (B, L, D_m) vectors of its items."""
        return [self.encoders[self._encoder_key(sequence, m)](x, real_BL) for m, x in zip(self.modalities, inputs)]

    def _states_of(self, views: Mapping[str, View], inputs: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
        """Per sequence and modality (B, L, D_m) states from the vectors of the items."""
        real = {s: view.items < self.num_items for s, view in views.items()}
        wanted = self.config.group_encoders
        if wanted == "no" or (wanted == "auto" and self.head.log_scale.device.type == "cpu"):
            return {s: self.states(real[s], s, inputs[s]) for s in views}
        encoders = {
            (s, m): self.encoders[self._encoder_key(s, name)] for s in views for m, name in enumerate(self.modalities)
        }
        assert may_group(list(encoders.values())), "encoders of one model differ in width alone"
        return grouped_states(encoders, inputs, real)

    def plan_epoch(self, sequences: DeviceSequences, order: Tensor, batch_size: int) -> None:
        """Count the rows of the epoch's largest batch, so that no step has to wait for their number.

        Args:
            order: (S,) order in which the sequences will come.
        """
        if self.head.log_scale.device.type == "cpu":
            return
        self.fix_row_counts(sequences, order, batch_size)

    def fix_row_counts(self, sequences: DeviceSequences, order: Tensor, batch_size: int) -> None:
        """`plan_epoch` on any device: steps have as many rows as the largest batch from here on."""
        batch = torch.arange(len(order), device=order.device) // batch_size
        most = {}
        for s in self.loss_weights:
            following = self._following(sequences.views[s], s)
            counted = self._counted(following < self.num_items)
            for low, high in self._target_ranges(s):
                rows = (counted & (following >= low) & (following < high)).sum(1)[order]
                sums = rows.new_zeros(-(-len(order) // batch_size)).index_add_(0, batch, rows)
                most[s, low] = sums.max()
        for key, count in zip(most, torch.stack(list(most.values())).tolist()):
            padded = -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
            self.row_counts[key] = max(self.row_counts.get(key, 0), padded)

    def training_loss(self, batch: Batch) -> Tensor:
        """Weighted sum of the three sequences' losses (eqs. 9, 10)."""
        views = {s: batch.views[s] for s in self.loss_weights}
        read = torch.cat([part.flatten() for v in views.values() for part in (v.items, v.next_same, v.next_merged)])
        step = self.head.step_rows(read, {span for s in views for span in self._ranges(s)})
        # One look-up for all sequences: each further one would be a further gradient of the table's size.
        embedded = step.embed(torch.cat([view.items.flatten() for view in views.values()]))
        sizes = [view.items.numel() for view in views.values()]
        inputs = {
            s: [x.view(*view.items.shape, -1) for x in own]
            for (s, view), own in zip(views.items(), zip(*(vectors.split(sizes) for vectors in embedded)))
        }
        states, loss = self._states_of(views, inputs), self._padded_loss if self.row_counts else self._sequence_loss
        terms = [weight * loss(views[s], s, step, states[s]) / len(batch) for s, weight in self.loss_weights.items()]
        return torch.stack(terms).sum()

    def _over_all(self, sequence: str) -> bool:
        """Whether the softmax of a sequence's loss runs over the items of both domains."""
        if sequence == "xy":
            return self.config.merged_softmax != "target_items"
        return self.config.next_target == "merged"

    def _ranges(self, sequence: str) -> list[tuple[int, int]]:
        """(low, high) of the items of each softmax in a sequence's loss."""
        domains = [(0, self.num_x), (self.num_x, self.num_items)]
        return [(0, self.num_items)] if self._over_all(sequence) else domains

    def _target_ranges(self, sequence: str) -> list[tuple[int, int]]:
        """Those of `_ranges` in which a target of the sequence can lie."""
        ranges = self._ranges(sequence)
        if sequence == "xy" or len(ranges) == 1:
            return ranges
        return ranges[:1] if sequence == "x" else ranges[1:]

    def _following(self, view: View, sequence: str) -> Tensor:
        """(B, L) target at every position of a sequence, padding where there is none."""
        merged = sequence == "xy" or self.config.next_target == "merged"
        return view.next_merged if merged else view.next_same

    def _padded_loss(self, view: View, sequence: str, step: StepRows, states: Sequence[Tensor]) -> Tensor:
        """`_sequence_loss` over a number of rows that is known beforehand; those too many weigh nothing."""
        following = self._following(view, sequence)
        counted, terms = self._counted(following < self.num_items), []
        learned = [self.empty[f"{sequence}_{m}"] for m in self.modalities] if self._learns_empty(sequence) else None
        for low, high in self._target_ranges(sequence):
            count = self.row_counts[sequence, low]
            wanted = (counted & (following >= low) & (following < high)).flatten()
            places, real = _places(wanted, count)
            targets = torch.where(real, following.flatten()[places], low)
            queries = [_at_least_single(state.flatten(0, 1)[places]) for state in states]
            if learned is not None:
                items = view.items < self.num_items
                first = view.items.gather(1, items.int().argmax(1, keepdim=True)).squeeze(1)
                inside = items.any(1) & (first >= low) & (first < high)
                targets = torch.cat([targets, torch.where(inside, first, low)])
                real = torch.cat([real, inside])
                queries = [torch.cat([q, e.expand(len(first), -1)]) for q, e in zip(queries, learned)]
            weights = real.to(queries[0].dtype)
            with torch.autocast(targets.device.type, enabled=False):
                nll = self.head.nll(queries, targets, low, high, step, view.items, weights, few_operations=True)
            # Rows without a place must not be lost in silence.
            terms.append(torch.where(wanted.sum() > count, torch.nan, nll))
        return torch.stack(terms).sum()

    def _learns_empty(self, sequence: str) -> bool:
        return f"{sequence}_{self.modalities[0]}" in self.empty

    def _sequence_loss(self, view: View, sequence: str, step: StepRows, states: Sequence[Tensor]) -> Tensor:
        """L^s: sum of -log P^s(next item) over the counted positions (eq. 9)."""
        following = self._following(view, sequence)
        counted = self._counted(following < self.num_items)
        targets = following[counted]
        queries = [_at_least_single(state[counted]) for state in states]
        if self._learns_empty(sequence):
            first = _first_items(view.items, self.num_items)
            targets = torch.cat([targets, first])
            learned = [self.empty[f"{sequence}_{m}"].expand(len(first), -1) for m in self.modalities]
            queries = [torch.cat(pair) for pair in zip(queries, learned)]
        with torch.autocast(targets.device.type, enabled=False):
            if self._over_all(sequence):
                return self.head.nll(queries, targets, 0, self.num_items, step, view.items)
            in_x = targets < self.num_x
            return sum(
                self.head.nll([q[part] for q in queries], targets[part], low, high, step, view.items)
                for part, (low, high) in zip((in_x, ~in_x), self._ranges(sequence))
            )

    def _counted(self, valid_BL: Tensor) -> Tensor:
        if self.config.loss_positions == "all":
            return valid_BL
        from_end = valid_BL.flip(1).cumsum(1).flip(1)
        return valid_BL & (from_end <= (1 if self.config.loss_positions == "last" else 10))

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) log P (eq. 11) of every item of the domain, given the histories of the batch."""
        wanted = slice(self.num_x, self.num_items) if domain else slice(0, self.num_x)
        weights = self.config.score_weights(domain)
        queries, missing, rows = {}, {}, self.head.scoring_rows()
        views = {s: batch.views[s] for s in weights}
        tables = [self.tables[m] for m in self.modalities]
        inputs = {s: [t.input_rows(view.items, kept) for t, kept in zip(tables, rows)] for s, view in views.items()}
        states = self._states_of(views, inputs)
        for s, view in views.items():
            real = view.items < self.num_items
            # In the aligned layout the last column may be the other domain's.
            last = (real * torch.arange(1, real.shape[1] + 1, device=real.device)).argmax(1)
            queries[s] = [state[torch.arange(len(last), device=last.device), last] for state in states[s]]
            empty = ~real.any(1)
            missing[s] = empty
            if self._learns_empty(s):
                missing[s] = torch.zeros_like(empty)
                learned = [self.empty[f"{s}_{m}"] for m in self.modalities]
                queries[s] = [torch.where(empty[:, None], e, q) for e, q in zip(learned, queries[s])]
        elements = SCORE_ELEMENTS if empty.device.type == "cpu" else GPU_SCORE_ELEMENTS
        step = max(SCORE_ROWS, elements // self.num_items)
        score = torch.zeros(len(batch), wanted.stop - wanted.start, dtype=self.head.scoring_type(), device=empty.device)
        for start in range(0, len(batch), step):
            part = slice(start, start + step)
            for s, weight in weights.items():
                factor = (~missing[s][part]).to(score.dtype) * weight
                self._add_probability(score[part], [q[part] for q in queries[s]], s, domain, wanted, factor)
        return score.log_()

    def _add_probability(
        self, score: Tensor, queries: list[Tensor], sequence: str, domain: int, wanted: slice, factor: Tensor
    ) -> None:
        """Add factor * P^s of the wanted items (one term of eq. 11) to the score."""
        everything, config = slice(0, self.num_items), self.config
        if sequence != "xy":
            own = sequence == ("y" if domain else "x")
            over_all = config.next_target == "merged" or (not own and config.cross_softmax == "all_items")
            self.head.add_probability(score, queries, wanted, everything if over_all else wanted, factor)
        elif config.merged_softmax == "renormalise":
            merged = torch.zeros_like(score)
            self.head.add_probability(merged, queries, wanted, everything, torch.ones_like(factor))
            total = merged.sum(1).clamp(min=torch.finfo(merged.dtype).tiny)
            score.addcmul_(merged, (factor / total)[:, None])
        else:
            over_all = config.merged_softmax == "all_items"
            self.head.add_probability(score, queries, wanted, everything if over_all else wanted, factor)


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _places(wanted: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count,) places of a flat mask that are True, in their order, then zeros; and which of them are such places."""
    rank = wanted.cumsum(0)
    slot = torch.where(wanted & (rank <= count), rank - 1, count)
    every = torch.arange(len(wanted), device=wanted.device)
    places = every.new_zeros(count + 1).scatter_(0, slot, every)[:count]
    real = torch.arange(count, device=wanted.device) < rank[-1]
    return torch.where(real, places, 0), real


def _first_items(items_BL: Tensor, pad: int) -> Tensor:
    """(R,) first item of every row that has one."""
    real = items_BL < pad
    rows = real.any(1)
    return items_BL[rows].gather(1, real[rows].int().argmax(1, keepdim=True)).squeeze(1)
