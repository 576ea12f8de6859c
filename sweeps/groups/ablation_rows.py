"""The rows of an ablation: the paper's table 4, parts taken away, single modalities, and features without content.

A row is a set of settings laid over the configuration that all rows share. Rows of table 4 name their modalities; all
others change the full model, which is the richest row of table 4 that this scenario's features allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmemf import text_format
from llmemf.config import TrialConfig, build_config
from llmemf.errors import InputError
from llmemf.models.llm_emf_config import MODALITIES, LLMEMFConfig
from sweeps.core.settings import merged_space, space_keys
from sweeps.groups.encoders import Encoders
from sweeps.groups.group import Group, Row
from sweeps.groups.row_sweeps import plan_new_search

MODEL = "llm_emf"
SECTIONS = {
    "table4": "the paper's table 4",
    "alone": "one modality alone",
    "parts": "a part taken away or simplified",
    "controls": "features without their content",
    "own": "own rows",
}


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
    "no_merged": ("without the merged sequence", {"sequences": ["x", "y"]}),
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


def ablation_rows(group: Group, encoders: Encoders) -> dict[str, Row]:
    """All rows by name, in the order of the table, with the reasons of those that cannot run.

    A row that would be another one under a second name cannot run: its numbers would look like a finding.

    Raises:
        InputError: not even the first row can run.
    """
    made: dict[str, Row] = {}
    known: dict[str, Row] = {}
    for row in _table4_rows(group, encoders):
        made[row.name] = _judged(group, row, known)
    full = made[full_row(made)]
    own = group.facts.get("own") or {}
    for row in _other_rows(group, full, encoders, own):
        made[row.name] = _judged(group, row, known)
    return {name: made[name] for name in (*STANDARD, *own)}


def full_row(rows: Mapping[str, Row]) -> str:
    """The richest row of table 4 that can run.

    Raises:
        InputError: none can.
    """
    able = [name for name in TABLE4 if not rows[name].problem]
    if not able:
        raise InputError(rows[next(iter(TABLE4))].problem)
    return able[-1]


def _row(
    group: Group, name: str, title: str, section: str, settings: dict[str, Any], varied: dict[str, Any],
    problem: str = "",
) -> Row:  # fmt: skip
    """A row that lays `settings` over the shared ones; those among them that are searched cut its space."""
    settings = dict(settings)
    # Two separate models train both domains already.
    if name == "in_domain" and group.fixed.get("loss_roles") == "per_target":
        del settings["loss_roles"]
    searched = space_keys(group.space)
    space = merged_space(group.space, {key: value for key, value in settings.items() if key in searched})
    return Row(
        name=name, title=title, model=MODEL, overrides=settings, space=space, problem=problem, section=section,
        varied=varied,
    )  # fmt: skip


def _table4_rows(group: Group, encoders: Encoders) -> list[Row]:
    rows = []
    for name, (title, modalities, text) in TABLE4.items():
        settings: dict[str, Any] = {"modalities": list(modalities)}
        if text:
            settings["text_encoder"] = getattr(encoders, text)
        if "image" in modalities:
            settings["image_encoder"] = encoders.image
        if name == "ids":
            settings |= {"alpha": 1.0, "beta": 0.0}
        sources = [text or "", "image" if "image" in modalities else ""]
        problems = [encoders.problems[source] for source in sources if source in encoders.problems]
        rows.append(_row(group, name, title, "table4", settings, settings, "; ".join(dict.fromkeys(problems))))
    return rows


def _other_rows(group: Group, full: Row, encoders: Encoders, own: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The rows beside table 4, each the full model but for one thing; `own` are those of the scenario's file."""

    def changed(name: str, title: str, section: str, varied: Mapping[str, Any], problem: str = "") -> Row:
        return _row(group, name, title, section, {**full.overrides, **varied}, dict(varied), problem)

    rows = []
    for modality, encoder, beta in (("text", encoders.best_text, 0.0), ("image", encoders.image, 1.0)):
        settings = {"modalities": [modality], f"{modality}_encoder": encoder, "alpha": 0.0, "beta": beta}
        problem = encoders.problems.get(modality, "") if encoder is None else ""
        rows.append(_row(group, f"{modality}_only", f"{modality} only", "alone", settings, settings, problem))
    rows += [changed(name, title, "parts", varied) for name, (title, varied) in PARTS.items()]
    for modality in ("text", "image"):
        absent = modality not in full.overrides["modalities"]
        problem = encoders.problems.get(modality) or f"the full model reads no {modality} features"
        for content, words in CONTENTS.items():
            name, varied = f"{modality}_{content}", {f"{modality}_content": content}
            rows.append(changed(name, f"{modality} {words}", "controls", varied, problem if absent else ""))
    return rows + [changed(name, name, "own", settings) for name, settings in own.items()]


def _judged(group: Group, row: Row, known: dict[str, Row]) -> Row:
    """The row, with the reason if it cannot run; `known` collects the effective configurations of the rows so far."""
    problem = row.problem or _problem(group, row, known)
    return row.model_copy(update={"problem": problem})


def _problem(group: Group, row: Row, known: dict[str, Row]) -> str:
    try:
        config, searched = _typical(group, row)
    except InputError as error:
        return str(error)
    if row.section == "table4" and not config.learn_weights:
        for modality in [modality for modality, weight in config.weights().items() if not weight]:
            key, weights = {"image": "beta"}.get(modality, "alpha"), f"alpha = {config.alpha:g}, beta = {config.beta:g}"
            return f"{modality} has weight 0 with {weights}: give --set {key}=..., or --tune N"
    same = f"{sorted(effective_config(config).items())} {searched}"
    if same in known:
        changes = text_format.settings(row.shown)
        return f"the same model as {known[same].title!r}: {changes} changes nothing here"
    known[same] = row
    return ""


def _typical(group: Group, row: Row) -> tuple[LLMEMFConfig, list[str]]:
    """A configuration of the row, and what its search varies."""
    if group.trials is None:
        values = {"model": MODEL, "seed": group.seed, **group.config_of(row)}
        return build_config(LLMEMFConfig, values, where=row.name), []
    plan = plan_new_search(group, row)
    return cast(LLMEMFConfig, plan.configs[0]), list(plan.space.varied_keys)


def effective_config(config: TrialConfig) -> dict[str, Any]:
    """The settings that have an effect in a configuration: two that agree in them are one model, however they are written."""
    values = config.to_dict()
    if not isinstance(config, LLMEMFConfig):
        return values
    weights = config.weights()
    used = [m for m in MODALITIES if m in weights and (weights[m] > 0 or config.learn_weights)]
    scores = [config.score_weights(domain) for domain in (0, 1)]
    losses = {first: config.loss_weights(first) for first in config.first_domains()}
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
    dropped |= {"loss_roles", "score_roles", "chunk_elements"}
    for modality in {"text", "image"} - set(used):
        dropped |= {f"{modality}_encoder", f"{modality}_content"}
    if "id" not in used:
        dropped |= {"id_dim", "tied_ids"}
    if used == ["id"]:
        dropped |= {"item_projection", "projection_dim", "missing"}
    if config.item_projection == "none":
        dropped.add("projection_dim")
    if config.similarity == "dot" and used == ["id"]:
        dropped |= {"scale", "scale_init", "scale_max"}
    if config.scale == "fixed":
        dropped.add("scale_max")
    if config.objective == "full":
        dropped.add("sampled_negatives")
    if "xy" not in {s for given in (*scores, *losses.values()) for s in given}:
        dropped.add("merged_softmax")
    shown = {key: value for key, value in values.items() if key not in dropped}
    shares = {m: round(weights[m], 9) for m in used}
    return {**shown, "weights": shares, "scores": scores, "losses": losses}
