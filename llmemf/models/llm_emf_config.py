"""The configuration of LLM-EMF; each field that fills a gap of the paper names the gap.

`preset: literal` is the closest reading of the paper's letter.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from llmemf.batches import VIEWS
from llmemf.models.back_off import BackOffConfig
from llmemf.models.content import Content
from llmemf.models.item_table import Missing, Projection
from llmemf.objective_half import HALF_SCALE

MODALITIES: tuple[Literal["id", "image", "text"], ...] = ("id", "image", "text")
LITERAL = {
    "scale": "fixed",
    "scale_init": 1.0,
    "encoder": "bare",
    "encoder_layers": 1,
    "positions": False,
    "score_roles": "x_first",
    "monitor": "val_loss",
}


class LLMEMFConfig(BackOffConfig):
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
    similarity: Literal["cosine", "dot"] = "cosine"
    """Logits of the id: the scaled cosine (eq. 3), or, as ABXI and SASRec have it, the inner product over 0.75. An item's length
    then says how common it is, and with a strong decay (`l2_mode: adamw`) rare items stay short. No scale is learned for it."""
    scale_init: float = Field(1 / 0.07, gt=0, le=100)
    """Initial or fixed inverse temperature."""
    scale_max: float = Field(100.0, gt=0, le=300)
    """Upper bound of a learned scale."""
    cross_softmax: Literal["target_items", "all_items", "drop"] = "target_items"
    """P^Y(x) for x in X, undefined in eq. 11: softmax over the target's domain, over all items, or no such term."""
    merged_softmax: Literal["all_items", "renormalise", "target_items"] = "all_items"
    """P^{X+Y}: over all items; the same, renormalised in the target's domain at scoring; or over the domain throughout."""
    fusion: Literal["probabilities", "states"] = "probabilities"
    """What the sequences add for a target: probabilities (eq. 11), or, as ABXI has it, the states of S^{X+Y} and of the target
    domain's own sequence before one softmax over that domain, in loss and score; lambda2 then has no effect."""
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
    position_origin: Literal["oldest", "newest"] = "oldest"
    """Which item of a sequence has position 1."""
    share_encoders: Literal["none", "sequences", "modalities"] = "none"
    """Nine encoders; one per modality; or one per sequence (needs a projection to the id width)."""
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
    objective_precision: Literal["fp32", "fp16"] = "fp32"
    """Operands of the exact objective's products: fp32, or fp16 with sums, normaliser and gradients in fp32, which changes the
    loss by up to 1e-3."""
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
        widths = [self.id_dim] * ("id" in self.modalities)
        widths += [self.projection_dim] * (self.item_projection != "none" and set(self.modalities) != {"id"})
        for width in widths:
            if width % self.heads:
                raise ValueError(f"heads = {self.heads} does not divide the width {width} of a modality")
        if self.scale != "fixed" and self.scale_init > self.scale_max:
            raise ValueError(
                f"scale_init = {self.scale_init:g} is above scale_max = {self.scale_max:g}: raise the latter"
            )
        largest = self.scale_init if self.scale == "fixed" else self.scale_max
        is_plain = (self.similarity, self.objective, self.mixture) == ("cosine", "full", "prob")
        if self.objective_precision == "fp16" and not (is_plain and largest <= HALF_SCALE):
            raise ValueError(
                f"objective_precision = fp16 needs similarity = cosine, objective = full, mixture = prob and a scale of at most {HALF_SCALE:g} "
                "(scale_max, or scale_init where scale = fixed): set fp32"
            )
        if self.fusion == "states":
            needed = {"layout": "compact", "loss_positions": "all", "next_target": "same", "empty_sequence": "drop"}
            other = [f"{key} = {value}" for key, value in needed.items() if getattr(self, key) != value]
            other += ["all three sequences"] * (set(self.sequences) != set(VIEWS))
            if other:
                raise ValueError(f"fusion = states needs {', '.join(other)}")
        self._check_terms()
        return self

    def _check_terms(self) -> None:
        """Raise ValueError where a loss or a score would have no term left."""
        terms = {f"the loss of target {first.upper()}": self.loss_weights(first) for first in self.first_domains()}
        terms |= {f"the score of domain {'XY'[domain]}": self.score_weights(domain) for domain in (0, 1)}
        for what, weights in terms.items():
            if not weights:
                raise ValueError(
                    f"sequences = {list(self.sequences)} leave no term in {what} with lambda1 = {self.lambda1:g}, "
                    f"lambda2 = {self.lambda2:g}, eval_lambda1 = {self.eval_lambda1}, eval_lambda2 = "
                    f"{self.eval_lambda2}, cross_softmax = {self.cross_softmax}: raise a weight or add sequences"
                )

    def first_domains(self) -> tuple[str, ...]:
        """The domain with weight 1 in the loss of each separate model."""
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
