"""Which rows a scenario's features allow, what each changes, and that none is another one under a second name."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny

from llmemf.config import read_yaml
from llmemf.errors import InputError
from llmemf.models.llm_emf_config import LLMEMFConfig
from sweeps.core.settings import ScenarioFile, load_settings, scenario_files
from sweeps.groups.ablation_rows import STANDARD, ablation_rows, effective_config, full_row
from sweeps.groups.encoders import Encoders, find_encoders
from sweeps.groups.group import Group, Row
from sweeps.groups.row_sweeps import plan_search

ALL = Encoders(text="clip-title", llm="clip-title+llm", image="clip")
OFFLINE = Encoders(text="offline", image="offline", problems={"llm": "no LLM text"})
TEXT = Encoders(text="offline", problems={"llm": "no LLM text", "image": "no images"})
IDS = Encoders(problems={"text": "no texts", "llm": "no texts", "image": "no images"})
SPACE = {"lr": [1e-3, 1e-2], "alpha, beta": {"simplex": 0.1}, "lambda1": [0.1, 0.5], "lambda2": [0.1, 0.5]}


def make_record(encoders=ALL, *, tune=None, own=None, **fixed):
    return Group(
        kind="ablation", name="a1", requested="sample", scenario="sample", trials=tune, seeds=[1, 2],
        rows=[Row(name=name, model="llm_emf") for name in STANDARD], facts={"encoders": encoders.model_dump(), "own": own},
        fixed={"epochs": 2, **fixed}, space=SPACE if tune else {}, data_root="/", storage="/nowhere", tracking_uri="x",
    )  # fmt: skip


def settled_rows(record):
    return ablation_rows(record, Encoders(**record.facts["encoders"]))


def problems(record):
    return {name: row.problem for name, row in settled_rows(record).items() if row.problem}


@pytest.mark.parametrize(
    ("encoders", "full", "absent"),
    [
        (ALL, "all", set()),
        (OFFLINE, "text_image", {"text_llm", "all"}),
        (TEXT, "text", {"text_llm", "all", "image", "text_image", "image_only", "image_noise", "image_shuffled"}),
        (IDS, "ids", {"text", "text_llm", "all", "image", "text_image", "text_only", "image_only", "text_noise",
                      "text_shuffled", "image_noise", "image_shuffled"}),
    ],
)  # fmt: skip
def test_missing_features_take_rows_away_with_their_reason(encoders, full, absent):
    record = make_record(encoders)
    found = problems(record)
    assert set(found) == absent
    assert full_row(settled_rows(record)) == full
    for name, reason in found.items():
        assert reason in ("no LLM text", "no images", "no texts", "no LLM text; no images", "no texts; no images"), name


def test_table_4_as_the_paper_has_it():
    rows = settled_rows(make_record())
    made = {name: LLMEMFConfig(**make_record().config_of(rows[name])) for name in rows}
    read = {name: (made[name].modalities, made[name].text_encoder) for name in ("ids", "text", "text_llm", "image", "text_image", "all")}  # fmt: skip
    assert read == {
        "ids": (("id",), "auto"),
        "text": (("id", "text"), "clip-title"),
        "text_llm": (("id", "text"), "clip-title+llm"),
        "image": (("id", "image"), "auto"),
        "text_image": (("id", "image", "text"), "clip-title"),
        "all": (("id", "image", "text"), "clip-title+llm"),
    }
    weights = {name: config.weights() for name, config in made.items()}
    assert weights["ids"] == {"id": 1.0} and weights["text_only"] == {"text": 1.0} and weights["image_only"] == {"image": 1.0}  # fmt: skip
    assert weights["text"] == pytest.approx({"id": 4 / 7, "text": 3 / 7})
    assert made["text_only"].text_encoder == "clip-title+llm"


def test_every_other_row_differs_from_the_full_model_in_what_it_says():
    record = make_record()
    rows = settled_rows(record)
    full = LLMEMFConfig(**record.config_of(rows["all"])).to_dict()
    for name in STANDARD[8:]:
        row = rows[name]
        changed = {key: value for key, value in LLMEMFConfig(**record.config_of(row)).to_dict().items() if value != full[key]}  # fmt: skip
        said = {key: value for key, value in row.varied.items() if value is not None}
        assert changed == said, name
    in_domain = LLMEMFConfig(**record.config_of(rows["in_domain"]))
    assert in_domain.loss_weights("x") == {"x": 1.0, "y": 1.0}, "both domains are trained"
    assert [in_domain.score_weights(domain) for domain in (0, 1)] == [{"x": 1.0}, {"y": 1.0}]
    merged = LLMEMFConfig(**record.config_of(rows["no_merged"]))
    assert "xy" not in merged.loss_weights("x") and "xy" not in merged.score_weights(1)


def test_separate_models_per_domain_stay_separate():
    record = make_record(loss_roles="per_target")
    config = LLMEMFConfig(**record.config_of(settled_rows(record)["in_domain"]))
    assert config.loss_roles == "per_target" and [config.loss_weights(first) for first in "xy"] == [
        {"x": 1.0},
        {"y": 1.0},
    ]


@pytest.mark.parametrize(
    ("fixed", "row", "reason"),
    [
        ({"encoder_layers": 1}, "one_layer", "the same model as 'all': encoder_layers=1 changes nothing here"),
        ({"lambda2": 0.0}, "no_merged", "the same model as 'all'"),
        ({"lambda1": 1.0}, "x_first", "the same model as 'all'"),
        ({"scale": "fixed", "scale_init": 1.0}, "temperature_1", "the same model as 'all'"),
        ({"beta": 0.0}, "image", "image has weight 0 with alpha = 0.4, beta = 0: give --set beta=..., or --tune N"),
        ({"alpha": 0.5, "beta": 0.5}, "text", "text has weight 0"),
        ({"heads": 0}, "ids", "heads"),
    ],
)  # fmt: skip
def test_a_row_that_would_be_another_one_cannot_run(fixed, row, reason):
    try:
        found = problems(make_record(**fixed))
    except InputError as error:
        found = {row: str(error)}
    assert reason in found[row]


def test_without_a_weight_for_images_the_full_model_has_none():
    record = make_record(beta=0.0)
    rows = settled_rows(record)
    assert full_row(rows) == "text_llm" and "reads no image" in rows["image_noise"].problem


@pytest.mark.parametrize(
    ("beta", "encoders", "full", "weights"),
    [
        (0.9, ALL, "all", {"image": 0.9, "text": 0.1}),
        (0.9, OFFLINE, "text_image", {"image": 0.9, "text": 0.1}),
        (0.0, ALL, "text_llm", {"text": 1.0}),
        (1.0, ALL, "image", {"image": 1.0}),
    ],
)
def test_without_a_weight_for_ids_the_full_model_is_the_configuration_as_it_was_found(beta, encoders, full, weights):
    record = make_record(encoders, alpha=0.0, beta=beta)
    rows = settled_rows(record)
    assert full_row(rows) == full and rows[full].varied["alpha"] == 0.0
    found = LLMEMFConfig(**record.config_of(rows[full])).weights()
    assert {name: weight for name, weight in found.items() if weight} == pytest.approx(weights)
    assert not rows["ids"].problem and LLMEMFConfig(**record.config_of(rows["ids"])).weights() == {"id": 1.0}
    assert record.config_of(rows["no_merged"])["modalities"] == record.config_of(rows[full])["modalities"]


def test_a_stored_ablation_keeps_the_full_model_that_it_began_with():
    record = make_record(ALL, alpha=0.0, beta=0.9)
    record.reference = "ids"
    assert full_row(settled_rows(record)) == "ids"
    record.reference = "all"
    assert full_row(settled_rows(record)) == "all"


def test_no_two_rows_that_run_are_one_model():
    for encoders in (ALL, OFFLINE, TEXT, IDS):
        for fixed in (
            {},
            {"encoder_layers": 1},
            {"preset": "literal"},
            {"lambda1": 0.0},
            {"loss_roles": "symmetric"},
            {"alpha": 0.0},
        ):
            record = make_record(encoders, **fixed)
            rows = [row for row in settled_rows(record).values() if not row.problem]
            models = [
                json.dumps(effective_config(LLMEMFConfig(**record.config_of(row))), sort_keys=True) for row in rows
            ]
            assert len(set(models)) == len(models), (encoders, fixed)


def test_what_does_not_act_is_no_difference():
    base = LLMEMFConfig(modalities=("id", "text"))
    same = [
        base.model_copy(update={"image_encoder": "clip", "image_content": "noise"}),
        base.model_copy(update={"chunk_elements": 5}),
        base.model_copy(update={"alpha": 0.2, "beta": 0.65}),
        LLMEMFConfig(modalities=("text", "id")),
    ]
    assert all(effective_config(config) == effective_config(base) for config in same)
    other = [{"text_content": "noise"}, {"alpha": 0.5}, {"lambda1": 0.2}, {"eval_lambda2": 0.0}, {"dropout": 0.1}]
    assert all(effective_config(base.model_copy(update=change)) != effective_config(base) for change in other)


def test_own_rows_change_the_full_model():
    record = make_record(own={"wide": {"id_dim": 512}, "nothing": {"dropout": 0.3}, "bad": {"alpha": 0.9, "beta": 0.9}})
    rows = settled_rows(record)
    assert list(rows)[-3:] == ["wide", "nothing", "bad"] and rows["wide"].overrides["modalities"] == [
        "id",
        "image",
        "text",
    ]
    assert not rows["wide"].problem and "the same model as 'all'" in rows["nothing"].problem
    assert "above 1" in rows["bad"].problem


def test_a_tuned_row_searches_all_but_what_it_fixes():
    record = make_record(tune=4)
    rows = settled_rows(record)
    assert not {name for name, row in rows.items() if row.problem}
    plans = {name: plan_search(record, row) for name, row in rows.items()}
    assert {plan.trials for plan in plans.values()} == {4}
    assert set(plans["all"].space.varied_keys) == {"lr", "alpha", "beta", "lambda1", "lambda2"}
    assert set(plans["ids"].space.varied_keys) == {"lr", "lambda1", "lambda2"}
    assert set(plans["in_domain"].space.varied_keys) == {"lr", "alpha", "beta"}
    assert plans["ids"].configs[0].weights() == {"id": 1.0}
    assert plans["text_noise"].configs[0].text_content == "noise"


def save_features(scenario, folder, names):
    """Empty shells: only manifests are looked at."""
    for name, details in names.items():
        path = folder / "features" / name
        path.mkdir(parents=True)
        kind, _, encoder = name.partition(".")
        manifest = {"kind": kind, "encoder": encoder, "items_hash": "", "hash": "", "details": details}
        (path / "manifest.json").write_text(json.dumps(manifest))
    return dataclasses.replace(scenario, folder=folder)


def clip(source, weights="w1"):
    return {"family": "clip", "weights_sha256": weights, "source": source}


TITLE, BOTH, LLM = clip("title"), clip("title+llm"), clip("llm")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"text.offline": {}, "image.offline": {}}, ("offline", None, "offline")),
        ({"text.c-title": TITLE, "text.c-title+llm": BOTH, "text.offline": {}}, ("c-title", "c-title+llm", None)),
        ({"text.c-title": TITLE, "text.c-llm": LLM, "image.c": {}}, ("c-title", "c-llm", "c")),
        ({"text.c-title+llm": BOTH, "text.offline": {}}, (None, "c-title+llm", None)),
        ({"text.c-title+llm": BOTH, "text.d-title": clip("title", "w2")}, (None, None, None)),
        ({"image.imported": {}, "image.c": {}}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_which_features_stand_for_what(tmp_path, names, expected):
    scenario = save_features(tiny.make_scenario(), tmp_path, names)
    found = find_encoders(scenario)
    assert (found.text, found.llm, found.image) == expected
    assert set(found.problems) == {kind for kind in ("text", "llm", "image") if getattr(found, kind) is None}
    if "text.d-title" in names:
        assert "name one with --set text_encoder" in found.problems["text"]
        named = find_encoders(scenario, text="c-title+llm")
        assert (named.llm, named.text) == ("c-title+llm", None) and "features encode" in named.problems["text"]
    if names.keys() == {"text.c-title+llm", "text.offline"}:
        assert "--text title" in found.problems["text"], "offline text is another encoder: no row beside CLIP's"


def test_every_shipped_scenario_file_may_have_rows_of_its_own(tmp_path):
    for path in scenario_files(Path("data")).values():
        ScenarioFile(**read_yaml(path))
    path = tmp_path / "mine.yaml"
    path.write_text("trials: 3\nablations:\n  wide: {id_dim: 512}\n")
    assert ScenarioFile(**read_yaml(path)).ablations == {"wide": {"id_dim": 512}}
    assert "ablations" not in load_settings(path), "a sweep knows nothing of them"
