"""The rows of an ablation: the paper's table 4, parts taken away, single modalities, and features without content.

A row is a set of settings laid over the configuration that all rows share. Rows of table 4 name their modalities; all
others change the full model, which is the richest row of table 4 that this scenario's features allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
PAPER, ALONE, OWN = "the paper's table 4", "one modality alone", "own rows"
PARTS, CONTROLS = "a part taken away or simplified", "features without their content"
TABLE4: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "ids": ("ids only", ("id",), None),
    "text": ("+ text", ("id", "text"), "text"),
    "text_llm": ("+ text + LLM", ("id", "text"), "llm"),
    "image": ("+ image", ("id", "image"), None),
    "text_image": ("+ text + image", MODALITIES, "text"),
    "all": ("all", MODALITIES, "llm"),
}
"""Name -> title as the paper prints it, modalities, and which text they read. The last one that can run is the full model."""
CHANGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no_merged": (PARTS, "without the merged sequence", {"sequences": ["x", "y"]}),
    "in_domain": (
        PARTS,
        "in-domain only (lambda1 = lambda2 = 0)",
        {"lambda1": 0.0, "lambda2": 0.0, "eval_lambda1": None, "eval_lambda2": None, "loss_roles": "symmetric"},
    ),
    "x_first": (PARTS, "X-first scores (eq. 11 literally)", {"score_roles": "x_first"}),
    "temperature_1": (PARTS, "temperature 1 (eq. 3 literally)", {"scale": "fixed", "scale_init": 1.0}),
    "one_layer": (PARTS, "one attention layer", {"encoder_layers": 1}),
    "bare_attention": (PARTS, "one bare attention layer (eq. 4 literally)", {"encoder": "bare", "encoder_layers": 1}),
    "text_noise": (CONTROLS, "text as noise of the same norms", {"text_content": "noise"}),
    "text_shuffled": (CONTROLS, "text rows shuffled between items", {"text_content": "shuffled"}),
    "image_noise": (CONTROLS, "image as noise of the same norms", {"image_content": "noise"}),
    "image_shuffled": (CONTROLS, "image rows shuffled between items", {"image_content": "shuffled"}),
}
"""Name -> section, title, and what differs from the full model. With lambda1 = 0 the loss as printed would leave Y untrained,
hence the symmetric one."""
IDS_UNREAD = "id has weight 0"
"""How the problem of a row begins whose configuration gives a weight to all of its modalities but ids."""
STANDARD = (*TABLE4, "text_only", "image_only", *CHANGES)
"""Names of the rows that every scenario has, in the order of the table."""


def ablation_rows(group: Group, encoders: Encoders) -> dict[str, Row]:
    """All rows by name, in the order of the table, with the reasons of those that cannot run.

    A row that would be another one under a second name cannot run: its numbers would look like a finding.

    Raises:
        InputError: not even the first row can run.
    """
    known: dict[str, Row] = {}
    made = {row.name: _judged(group, row, known) for row in _table4_rows(group, encoders)}
    unread = [row for row in made.values() if row.problem.startswith(IDS_UNREAD)]
    is_settled = group.reference in made and not made[group.reference].problem
    if unread and not is_settled:
        # Without a weight of ids no other row of table 4 is the chosen configuration: the richest is, as it was found.
        row = unread[-1]
        row.problem, row.varied = _problem(group, row, known, needs_ids=False), {**row.varied, "alpha": 0.0}
    full = made[full_row(made)]
    return made | {row.name: _judged(group, row, known) for row in _other_rows(group, full, encoders)}


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
    group: Group, name: str, section: str, title: str, settings: Mapping[str, Any], problem: str = "",
    full: Mapping[str, Any] | None = None,
) -> Row:  # fmt: skip
    """A row that lays `settings` over the shared ones and those of the full model; what is searched cuts its space."""
    overrides = {**(full or {}), **settings}
    # Two separate models train both domains already.
    if name == "in_domain" and group.fixed.get("loss_roles") == "per_target":
        del overrides["loss_roles"]
    searched = space_keys(group.space)
    space = merged_space(group.space, {key: value for key, value in overrides.items() if key in searched})
    return Row(
        name=name, title=title, model=MODEL, overrides=overrides, space=space, problem=problem, section=section,
        varied=dict(settings),
    )  # fmt: skip


def _table4_rows(group: Group, encoders: Encoders) -> Iterator[Row]:
    for name, (title, modalities, text) in TABLE4.items():
        settings: dict[str, Any] = {"modalities": list(modalities)}
        if text:
            settings["text_encoder"] = getattr(encoders, text)
        if "image" in modalities:
            settings["image_encoder"] = encoders.image
        if name == "ids":
            settings |= {"alpha": 1.0, "beta": 0.0}
        sources = [text or "", "image" if "image" in modalities else ""]
        problems = dict.fromkeys(encoders.problems[source] for source in sources if source in encoders.problems)
        yield _row(group, name, PAPER, title, settings, "; ".join(problems))


def _other_rows(group: Group, full: Row, encoders: Encoders) -> Iterator[Row]:
    """The rows beside table 4, each the full model but for one thing; the last ones are those of the scenario's file."""
    whole = full.overrides
    for modality, encoder, beta in (("text", encoders.best_text, 0.0), ("image", encoders.image, 1.0)):
        settings = {"modalities": [modality], f"{modality}_encoder": encoder, "alpha": 0.0, "beta": beta}
        problem = encoders.problems.get(modality, "") if encoder is None else ""
        yield _row(group, f"{modality}_only", ALONE, f"{modality} only", settings, problem)
    for name, (section, title, settings) in CHANGES.items():
        modality = name.partition("_")[0]
        problem = encoders.problems.get(modality) or f"the full model reads no {modality} features"
        is_absent = section == CONTROLS and modality not in whole["modalities"]
        yield _row(group, name, section, title, settings, problem if is_absent else "", whole)
    for name, settings in (group.facts.get("own") or {}).items():
        yield _row(group, name, OWN, name, settings, full=whole)


def _judged(group: Group, row: Row, known: dict[str, Row]) -> Row:
    """The row, with the reason if it cannot run; `known` collects the effective configurations of the rows so far."""
    row.problem = row.problem or _problem(group, row, known)
    return row


def _problem(group: Group, row: Row, known: dict[str, Row], needs_ids: bool = True) -> str:
    searched: tuple[str, ...] = ()
    try:
        if group.trials is None:
            values = {"model": MODEL, "seed": group.seed, **group.config_of(row)}
            config = build_config(LLMEMFConfig, values, where=row.name)
        else:
            search = plan_new_search(group, row)
            config, searched = cast(LLMEMFConfig, search.configs[0]), search.space.varied_keys
    except InputError as error:
        return str(error)
    if row.section == PAPER and not config.learn_weights:
        weights = f"alpha = {config.alpha:g}, beta = {config.beta:g}"
        unread = [modality for modality, weight in config.weights().items() if not weight]
        for modality in sorted(unread, key="id".__eq__):
            if modality == "id" and not needs_ids:
                continue
            key, start = {"image": "beta"}.get(modality, "alpha"), f"{modality} has weight 0"
            return f"{start} with {weights}: give --set {key}=..., or --tune N"
    same = f"{sorted(effective_config(config).items())} {searched}"
    if same in known:
        changes = text_format.settings(row.shown)
        return f"the same model as {known[same].title!r}: {changes} changes nothing here"
    known[same] = row
    return ""


def effective_config(config: TrialConfig) -> dict[str, Any]:
    """The settings that have an effect in a configuration: two that agree in them are one model, however they are written."""
    values = config.to_dict()
    if not isinstance(config, LLMEMFConfig):
        return values
    weights = config.weights()
    used = [m for m in MODALITIES if m in weights and (weights[m] > 0 or config.learn_weights)]
    scores = [config.score_weights(domain) for domain in (0, 1)]
    losses = {first: config.loss_weights(first) for first in config.first_domains()}
    only_ids, sequences = used == ["id"], {name for given in (*scores, *losses.values()) for name in given}
    without_effect = {
        "preset alpha beta modalities sequences lambda1 lambda2 eval_lambda1 eval_lambda2 loss_roles score_roles": True,
        "chunk_elements": True,
        "text_encoder text_content": "text" not in used,
        "image_encoder image_content": "image" not in used,
        "id_dim tied_ids": "id" not in used,
        "item_projection projection_dim missing": only_ids,
        "projection_dim": config.item_projection == "none",
        "scale scale_init scale_max": config.similarity == "dot" and only_ids,
        "scale_max": config.scale == "fixed",
        "sampled_negatives": config.objective == "full",
        "merged_softmax": "xy" not in sequences,
    }
    dropped = {key for keys, is_dropped in without_effect.items() if is_dropped for key in keys.split()}
    shown = {key: value for key, value in values.items() if key not in dropped}
    return {**shown, "weights": {m: round(weights[m], 9) for m in used}, "scores": scores, "losses": losses}
