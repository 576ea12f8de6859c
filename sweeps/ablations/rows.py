"""The rows of an ablation: the paper's table 4, parts taken away, single modalities, and features without content.

A row is a set of settings laid over the configuration that all rows share. Rows of table 4 name their modalities; all
others change the full model, which is the richest row of table 4 that this scenario's features allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llmemf.config import TrialConfig
from llmemf.models.llm_emf_config import MODALITIES, LLMEMFConfig
from sweeps.ablations.encoders import Encoders

GROUPS = {
    "table4": "the paper's table 4",
    "alone": "one modality alone",
    "parts": "a part taken away or simplified",
    "controls": "features without their content",
    "own": "own rows",
}


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        settings: laid over the shared configuration.
        changed: those of them in which it differs from the full model; of a row of table 4 all.
        problem: why it cannot run here, "" where it can.
    """

    name: str
    title: str
    group: Literal["table4", "alone", "parts", "controls", "own"]
    settings: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def shown(self) -> dict[str, Any]:
        """What it changes, for the eye: settings that go back to their neutral value None are left out."""
        return {key: value for key, value in self.changed.items() if value is not None}

    def without(self, problem: str) -> Row:
        return replace(self, problem=problem)


TABLE4: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "ids": ("ids only", ("id",), None),
    "text": ("+ text", ("id", "text"), "text"),
    "text_llm": ("+ text + LLM", ("id", "text"), "llm"),
    "image": ("+ image", ("id", "image"), None),
    "text_image": ("+ text + image", MODALITIES, "text"),
    "all": ("all", MODALITIES, "llm"),
}
"""Name -> title as the paper prints it, modalities, and which text they read. The last one that can run is the full model."""
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no_merged": ("without S^{X+Y}", {"sequences": ["x", "y"]}),
    "in_domain": (
        "in-domain only (lambda1 = lambda2 = 0)",
        {"lambda1": 0.0, "lambda2": 0.0, "eval_lambda1": None, "eval_lambda2": None, "loss_roles": "symmetric"},
    ),
    "x_first": ("X-first scores (eq. 11 literally)", {"score_roles": "x_first"}),
    "temperature_1": ("temperature 1 (eq. 3 literally)", {"scale": "fixed", "scale_init": 1.0}),
    "one_layer": ("one attention layer", {"encoder_layers": 1}),
    "bare_attention": ("one bare attention layer (eq. 4 literally)", {"encoder": "bare", "encoder_layers": 1}),
}
"""Name -> title and settings. With lambda1 = 0 the loss as printed would leave Y untrained, hence the symmetric one."""
CONTENTS = {"noise": "as noise of the same norms", "shuffled": "rows shuffled between items"}
STANDARD = (
    *TABLE4,
    "text_only",
    "image_only",
    *PARTS,
    *(f"{modality}_{content}" for modality in ("text", "image") for content in CONTENTS),
)
"""Names of the rows that every scenario has, in the order of the table."""


def table4_rows(encoders: Encoders) -> list[Row]:
    """The rows of the paper's table 4, with the reasons of those whose features are missing."""
    rows = []
    for name, (title, modalities, text) in TABLE4.items():
        settings: dict[str, Any] = {"modalities": list(modalities)}
        problems = []
        if text:
            settings["text_encoder"] = getattr(encoders, text)
            problems.append(encoders.problems.get(text, ""))
        if "image" in modalities:
            settings["image_encoder"] = encoders.image
            problems.append(encoders.problems.get("image", ""))
        if name == "ids":
            settings |= {"alpha": 1.0, "beta": 0.0}
        rows.append(Row(name, title, "table4", settings, settings, "; ".join(filter(None, dict.fromkeys(problems)))))
    return rows


def other_rows(full: Row, encoders: Encoders, own: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The rows beside table 4, each the full model but for one thing.

    Args:
        full: the row of table 4 that is the full model.
        own: name -> settings of the scenario's own rows.
    """
    weights = {"text": {"alpha": 0.0, "beta": 0.0}, "image": {"alpha": 0.0, "beta": 1.0}}
    names = {"text": encoders.best_text, "image": encoders.image}
    rows = []
    for modality in ("text", "image"):
        settings = {"modalities": [modality], f"{modality}_encoder": names[modality], **weights[modality]}
        problem = encoders.problems.get(modality, "") if names[modality] is None else ""
        rows.append(Row(f"{modality}_only", f"{modality} only", "alone", settings, settings, problem))
    for name, (title, changed) in PARTS.items():
        rows.append(Row(name, title, "parts", {**full.settings, **changed}, changed))
    for modality in ("text", "image"):
        for content, words in CONTENTS.items():
            changed = {f"{modality}_content": content}
            absent = modality not in full.settings["modalities"]
            problem = encoders.problems.get(modality) or f"the full model reads no {modality} features"
            title = f"{modality} {words}"
            settings = {**full.settings, **changed}
            rows.append(Row(f"{modality}_{content}", title, "controls", settings, changed, problem if absent else ""))
    rows += [Row(name, name, "own", {**full.settings, **settings}, dict(settings)) for name, settings in own.items()]
    return rows


def effective_config(config: TrialConfig) -> dict[str, Any]:
    """What of a configuration acts: two that agree in it are one model, however they are written."""
    values = config.to_dict()
    if not isinstance(config, LLMEMFConfig):
        return values
    weights = config.weights()
    used = [m for m in MODALITIES if m in weights and (weights[m] > 0 or config.learn_weights)]
    scores = [config.score_weights(domain) for domain in (0, 1)]
    losses = {first: config.loss_weights(first) for first in config.towers()}
    dropped = {
        "preset",
        "alpha",
        "beta",
        "modalities",
        "sequences",
        "lambda1",
        "lambda2",
        "eval_lambda1",
        "eval_lambda2",
    }
    dropped |= {"loss_roles", "score_roles", "chunk_elements", "compile"}
    for modality in {"text", "image"} - set(used):
        dropped |= {f"{modality}_encoder", f"{modality}_content"}
    if "id" not in used:
        dropped |= {"id_dim", "tied_ids"}
    if used == ["id"]:
        dropped |= {"item_projection", "projection_dim", "missing"}
    if config.item_projection == "none":
        dropped.add("projection_dim")
    if config.scale == "fixed":
        dropped.add("scale_max")
    if config.objective == "full":
        dropped.add("sampled_negatives")
    if "xy" not in {s for given in (*scores, *losses.values()) for s in given}:
        dropped.add("merged_softmax")
    shown = {key: value for key, value in values.items() if key not in dropped}
    shares = {m: round(weights[m], 9) for m in used}
    return {**shown, "weights": shares, "scores": scores, "losses": losses}
