"""LLM-EMF against its plain NumPy twin in `reference.py`, and what every option must and must not change."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from reference import Reference
from tiny import (
    NUM_ITEMS,
    NUM_X,
    NUM_Y,
    make_config,
    make_data,
    make_features,
    make_model,
    make_scenario,
    make_sequences,
    whole,
)

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import mixture
from llmemf.models.llm_emf import LLMEMF
from llmemf.models.llm_emf_config import LITERAL, LLMEMFConfig
from llmemf.models.llm_emf_encoders import ROW_MULTIPLE

PROJECTED = {"item_projection": "linear", "projection_dim": 6}
OPTIONS = [
    {},
    {"preset": "literal"},
    {"modalities": ["id"]},
    {"modalities": ["text", "image"]},
    {"modalities": ["id", "text"]},
    {"sequences": ["x", "y"]},
    {"sequences": ["xy"]},
    {"sequences": ["y", "xy"]},
    {"alpha": 0.7, "beta": 0.3},
    {"alpha": 0.1, "beta": 0.2},
    {"learn_weights": True, "alpha": 0.5, "beta": 0.5},
    {"mixture": "logit"},
    {"mixture": "logit", "learn_weights": True},
    {"lambda1": 0.0, "lambda2": 0.0},
    {"lambda1": 1.5, "lambda2": 5.0},
    {"eval_lambda1": 0.9},
    {"eval_lambda2": 0.0},
    {"loss_roles": "symmetric"},
    {"score_roles": "x_first"},
    {"scale": "shared"},
    {"scale": "fixed", "scale_init": 1.0},
    {"scale": "fixed", "scale_init": 80.0},
    {"scale_init": 30.0, "scale_max": 30.0},
    {"cross_softmax": "all_items"},
    {"cross_softmax": "drop"},
    {"merged_softmax": "renormalise"},
    {"merged_softmax": "target_items"},
    {"loss_positions": "last"},
    {"loss_positions": "last10"},
    {"next_target": "merged"},
    {"next_target": "merged", "merged_softmax": "target_items"},
    {"layout": "aligned"},
    {"encoder": "bare"},
    {"encoder": "bare", "positions": False},
    {"encoder_layers": 1},
    {"encoder_layers": 3},
    {"heads": 2},
    {"positions": False},
    {"share_encoders": "sequences"},
    {"share_encoders": "modalities", **PROJECTED},
    {"id_dim": 10},
    {"tied_ids": False},
    {"item_projection": "linear", "projection_dim": 5},
    {"item_projection": "mlp", "projection_dim": 5},
    {"item_projection": "mlp", "projection_dim": 6, "scale": "fixed", "scale_init": 50.0},
    {"missing": "domain_mean"},
    {"missing": "learned"},
    {"missing": "learned", **PROJECTED},
    {"text_content": "noise"},
    {"text_content": "shuffled", "image_content": "noise"},
    {"image_content": "shuffled", "missing": "domain_mean"},
    {"empty_sequence": "learned"},
    {"chunk_elements": 1},
    {"chunk_elements": 200},
    {"position_origin": "newest"},
    {"fusion": "states"},
    {"fusion": "states", "loss_roles": "symmetric", "position_origin": "newest"},
    {"popularity_weight": 2.0},
    {"transition_weight": 0.5, "popularity_weight": 0.1},
    {"neighbour_weight": 0.5, "transition_weight": 0.2},
    {"text_weight": 0.7},
    {
        "text_weight": 0.3,
        "modalities": ["id"],
        "text_scale": 5.0,
        "text_items": 2,
        "text_decay": 0.5,
        "text_trust": 1.0,
    },
    {"similarity": "dot"},
    {"similarity": "dot", "modalities": ["id"], "cross_softmax": "all_items"},
    {"similarity": "dot", "mixture": "logit", "tied_ids": False},
    {"similarity": "dot", "fusion": "states", "scale": "shared"},
    {"objective_precision": "fp32"},
    {"objective_precision": "fp16"},
    {"objective_precision": "fp16", "chunk_elements": 300, "scale_init": 70.0},
    {"objective_precision": "fp16", "item_projection": "mlp", "projection_dim": 5, "missing": "learned"},
]


def name_of(options):
    return ",".join(f"{key}={value}" for key, value in options.items()) or "default"


@pytest.fixture(scope="module")
def data():
    return make_data()


LOSS_ROWS = 9
"""Training sequences whose loss is compared; four of them lie in one domain alone."""
SCORED_ROWS = 6
"""Validation cases whose scores are compared."""
SAMPLED = (
    {},
    {"mixture": "logit"},
    {"scale": "fixed", "scale_init": 80.0},
    {"next_target": "merged", "merged_softmax": "target_items"},
    {"loss_positions": "last"},
    {"layout": "aligned"},
    {"tied_ids": False},
    {"missing": "learned", **PROJECTED},
    {"empty_sequence": "learned"},
    {"fusion": "states"},
    {"similarity": "dot"},
)
"""Options that the sampled objective meets in code of its own."""


def train_rows(data):
    return rows_of(data.train)[:LOSS_ROWS]


def rows_of(sequences):
    return [sequences.row(index).tolist() for index in range(len(sequences))]


def scores_of(model, data, split="valid", **changes):
    """Scores of both domains for every case of a split."""
    batch = whole(make_sequences(data, split, config=model.config, **changes))
    with torch.inference_mode():
        return [model.score_all(batch, domain).double().numpy() for domain in (0, 1)]


def loss_of(model, data):
    """The training loss of the first sequences as one batch, in training mode."""
    sequences = make_sequences(data, "train", config=model.config)
    return model.train().training_loss(sequences.batch(torch.arange(LOSS_ROWS)))


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_scores_and_loss_equal_the_plain_formulas(data, options):
    model = make_model(data, **options)
    reference = Reference(model, data)
    for domain, scores in enumerate(scores_of(model, data)):
        assert scores.shape == (len(data.valid), (NUM_X, NUM_Y)[domain])
        expected = np.stack([reference.score(row[:-1], domain) for row in rows_of(data.valid)[:SCORED_ROWS]])
        np.testing.assert_allclose(scores[:SCORED_ROWS], expected, atol=1e-4, rtol=0)
    loss = loss_of(model, data)
    tolerance = 1e-3 if options.get("objective_precision") == "fp16" else 1e-5
    assert loss.item() == pytest.approx(reference.loss(train_rows(data)), rel=tolerance)
    loss.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert touched == {name for name, p in model.named_parameters() if p.requires_grad} - idle(model)


@pytest.mark.parametrize("options", [{}, {"scale": "fixed", "scale_init": 80.0}, {"similarity": "dot"}], ids=name_of)
def test_the_first_items_are_those_of_the_plain_formulas_however_many_cases_and_items_are_scored_at_once(
    data, monkeypatch, options
):
    model = make_model(data, **options)
    reference, cases = Reference(model, data), rows_of(data.valid)[:SCORED_ROWS]
    whole_scores = scores_of(model, data)
    for name, value in {"SCORE_ELEMENTS": 1, "SCORE_ROWS": 4, "BLOCK": 7}.items():
        monkeypatch.setattr(mixture, name, value)
    for domain, scores in enumerate(scores_of(model, data)):
        np.testing.assert_allclose(scores, whole_scores[domain], rtol=1e-5, atol=1e-5)
        expected = np.stack([reference.score(row[:-1], domain) for row in cases])
        first = np.argsort(-expected, 1, kind="stable")[:, :10]
        np.testing.assert_array_equal(np.argsort(-scores[:SCORED_ROWS], 1, kind="stable")[:, :10], first)


def idle(model):
    """Parameters that the loss cannot reach: encoders of sequences without weight."""
    if model.config.share_encoders == "sequences":
        return set()
    weights = model.towers[0].loss_weights
    names = [name for name, _ in model.named_parameters() if ".encoders." in name]
    return {name for name in names if name.split(".")[3].split("_")[0] not in weights}


def test_the_options_above_cover_every_value_of_every_choice():
    own = set(LLMEMFConfig.model_fields) - set(LLMEMFConfig.__base__.model_fields)
    for name in own:
        choices = [c for c in get_args(LLMEMFConfig.model_fields[name].annotation) if isinstance(c, str)]
        default = LLMEMFConfig.model_fields[name].default
        missing = {c for c in choices if c != default} - {str(options.get(name)) for options in OPTIONS}
        assert not missing - {"per_target", "sampled"}, f"{name}: no test with {missing}"


def test_without_missing_features_all_is_as_with_the_rule_for_missing(data):
    full = make_data(missing=False)
    expected = scores_of(make_model(full), full)
    for missing in ("domain_mean", "renormalise"):
        actual = scores_of(make_model(full, missing=missing), full)
        for a, e in zip(actual, expected):
            np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("mixture", ["prob", "logit"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0])
def test_probabilities_sum_to_one_over_the_items(mixture, scale):
    full = make_data(missing=False)
    options = {"mixture": mixture, "scale_init": scale, "eval_lambda1": 0.0, "eval_lambda2": 0.5}
    for scores, domain in zip(scores_of(make_model(full, sequences=["x", "y"], **options), full), "xy"):
        nonempty = [any((i < NUM_X) == (domain == "x") for i in row[:-1]) for row in rows_of(full.valid)]
        np.testing.assert_allclose(np.exp(scores[nonempty]).sum(1), 1, rtol=1e-5)
        assert np.isneginf(scores[~np.array(nonempty)]).all()
    x, y = scores_of(make_model(full, sequences=["xy"], **options), full)
    np.testing.assert_allclose(np.exp(x).sum(1) + np.exp(y).sum(1), 0.5, rtol=1e-5)


def test_aligned_columns_score_and_cost_as_compact_ones_where_nothing_is_cut(data):
    compact, aligned = make_model(data, layout="compact"), make_model(data, layout="aligned")
    for a, e in zip(scores_of(aligned, data), scores_of(compact, data)):
        np.testing.assert_allclose(a, e, atol=1e-5)
    assert loss_of(aligned, data).item() == pytest.approx(loss_of(compact, data).item(), rel=1e-6)


def test_two_models_one_per_target_domain(data):
    model = make_model(data, loss_roles="per_target")
    single = {name: make_model(data) for name in "xy"}
    for number, name in enumerate("xy"):
        prefix = f"towers.{number}."
        state = {k.replace(prefix, "towers.0."): v for k, v in model.state_dict().items() if k.startswith(prefix)}
        single[name].load_state_dict(state)
    x, y = scores_of(model, data)
    np.testing.assert_array_equal(x, scores_of(single["x"], data)[0])
    np.testing.assert_array_equal(y, scores_of(single["y"], data)[1])
    assert not np.allclose(y, scores_of(single["x"], data)[1], atol=1e-2)
    second = Reference(single["y"], data)
    mirrored = (
        sum(
            weight * sum(second.sequence_loss(row, s) for row in train_rows(data))
            for s, weight in (("y", 1.0), ("x", model.config.lambda1), ("xy", model.config.lambda2))
        )
        / LOSS_ROWS
    )
    expected = Reference(single["x"], data).loss(train_rows(data)) + mirrored
    assert loss_of(model, data).item() == pytest.approx(expected, rel=1e-5)


def test_sampled_objective_with_many_draws_is_close_to_the_full_one(data):
    full = loss_of(make_model(data, scale_init=3.0), data).item()
    model = make_model(data, scale_init=3.0, objective="sampled", sampled_negatives=3_000)
    torch.manual_seed(1)
    sampled = [loss_of(model, data).item() for _ in range(8)]
    assert np.mean(sampled) == pytest.approx(full, rel=2e-3)
    assert np.std(sampled) > 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, marks=[] if options in SAMPLED else pytest.mark.slow)
        for options in OPTIONS
        if options.get("objective_precision") != "fp16"
    ],
    ids=name_of,
)
def test_sampled_objective_has_finite_gradients_with_every_option(data, options):
    model = make_model(data, objective="sampled", sampled_negatives=13, **options)
    loss = loss_of(model, data)
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 0
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    full = make_model(data, **options)
    for a, e in zip(scores_of(model.eval(), data), scores_of(full, data)):
        np.testing.assert_array_equal(a, e)


PADDED = [
    {},
    {"loss_positions": "last", "layout": "aligned"},
    {"merged_softmax": "target_items", "missing": "learned"},
    {"next_target": "merged", "empty_sequence": "learned"},
    {"empty_sequence": "learned"},
    {"objective_precision": "fp16"},
]


@pytest.mark.parametrize("options", PADDED, ids=name_of)
def test_steps_of_a_known_number_of_rows_have_the_same_loss_and_gradients(data, options):
    """A GPU pads every step to the rows of the largest batch, so that the host never waits for their number."""
    packed, padded = make_model(data, **options), make_model(data, **options)
    sequences = make_sequences(data, "train", config=padded.config)
    padded.towers[0].count_rows(sequences, torch.arange(len(sequences)), batch_size=LOSS_ROWS)
    counts = padded.towers[0].row_counts
    assert counts and all(count % ROW_MULTIPLE == 0 for count in counts.values())
    expected, loss = loss_of(packed, data), loss_of(padded, data)
    tolerance = 1e-3 if options.get("objective_precision") == "fp16" else 1e-4
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    expected.backward(), loss.backward()
    for (name, one), other in zip(packed.named_parameters(), padded.parameters()):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            assert (one.grad - other.grad).norm() <= 10 * tolerance * one.grad.norm() + 1e-6, name


def test_a_batch_with_more_rows_than_were_counted_is_never_cut_in_silence(data):
    model = make_model(data)
    sequences = make_sequences(data, "train", config=model.config)
    model.towers[0].count_rows(sequences, torch.arange(len(sequences)), batch_size=1)
    model.towers[0].row_counts = dict.fromkeys(model.towers[0].row_counts, 5)
    assert math.isnan(loss_of(model, data).item())


@pytest.mark.parametrize("options", [{}, PROJECTED, {"encoder": "bare"}], ids=name_of)
def test_bfloat16_arithmetic_of_the_encoders_changes_the_loss_a_little(data, options):
    expected = loss_of(make_model(data, scale_init=3.0, **options), data).item()
    model = make_model(data, scale_init=3.0, **options)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, data)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=2e-2) and loss.item() != expected
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_weights_of_the_score_do_not_touch_the_loss(data):
    plain = make_model(data)
    for change in ({"eval_lambda1": 0.9}, {"eval_lambda2": 0.9}, {"score_roles": "x_first"}, {"cross_softmax": "drop"}):
        changed = make_model(data, **change)
        assert loss_of(changed, data).item() == loss_of(plain, data).item(), change
        different = [
            not np.allclose(a, e) for a, e in zip(scores_of(changed.eval(), data), scores_of(plain.eval(), data))
        ]
        assert different == [change.get("score_roles") is None, True], change


def test_lambda_of_the_score_follows_that_of_the_loss_until_it_is_set(data):
    tied, untied = make_model(data, lambda1=0.8), make_model(data, lambda1=0.2, eval_lambda1=0.8)
    for a, e in zip(scores_of(tied, data), scores_of(untied, data)):
        np.testing.assert_array_equal(a, e)
    assert loss_of(tied, data).item() != loss_of(untied, data).item()


def test_dropping_the_cross_term_is_a_score_with_lambda1_zero(data):
    dropped, zero = make_model(data, cross_softmax="drop"), make_model(data, eval_lambda1=0.0)
    for a, e in zip(scores_of(dropped, data), scores_of(zero, data)):
        np.testing.assert_array_equal(a, e)


def test_x_first_without_a_cross_term_leaves_lambda1_to_y_targets(data):
    model = make_model(data, cross_softmax="drop", score_roles="x_first", lambda2=0.0, lambda1=0.25)
    plain = make_model(data, cross_softmax="drop", lambda2=0.0, lambda1=0.25)
    for domain, (a, e) in enumerate(zip(scores_of(model, data), scores_of(plain, data))):
        np.testing.assert_allclose(a, e + (math.log(0.25) if domain else 0), atol=1e-6)


def test_literal_preset_sets_exactly_its_values_and_yields_to_explicit_ones():
    literal, default = make_config(preset="literal"), make_config()
    assert LITERAL == {
        "scale": "fixed",
        "scale_init": 1.0,
        "encoder": "bare",
        "encoder_layers": 1,
        "positions": False,
        "score_roles": "x_first",
        "monitor": "val_loss",
    }
    for key, value in default.to_dict().items():
        assert literal.to_dict()[key] == {**LITERAL, "preset": "literal"}.get(key, value), key
    assert make_config(preset="literal", encoder_layers=3).encoder_layers == 3
    assert build_config(LLMEMFConfig, literal.to_dict()) == literal


def test_literal_preset_has_no_positions_norms_or_networks(data):
    names = set(make_model(data, preset="literal").state_dict())
    assert not [name for name in names if any(part in name for part in ("positions", "norm", "inner", "outer", "out."))]
    assert len([name for name in names if name.endswith("query.weight")]) == 9


def test_shared_encoders_share(data):
    count = {
        share: len(
            {
                name.split(".")[3]
                for name in make_model(data, share_encoders=share, **PROJECTED).state_dict()
                if "encoders" in name
            }
        )
        for share in ("none", "sequences", "modalities")
    }
    assert count == {"none": 9, "sequences": 3, "modalities": 3}


def test_a_modality_of_weight_zero_is_not_built():
    scenario = make_scenario()
    data = TrialData.build(scenario)
    model = make_model(data, alpha=1.0, beta=0.0)
    assert model.towers[0].modalities == ["id"]
    assert LLMEMF.needs(make_config()) == {"image", "text"}
    assert LLMEMF.needs(make_config(modalities=["id", "text"])) == {"text"}


def test_learned_scale_stays_within_its_bound_and_comes_back(data):
    model = make_model(data, scale_init=30.0, scale_max=30.0)
    head = model.towers[0].head
    with torch.no_grad():
        head.log_scale.fill_(math.log(90.0))
    np.testing.assert_allclose(head.scales().detach(), 30.0, rtol=1e-6)
    loss_of(model, data).backward()
    assert bool((head.log_scale.grad != 0).all()), "beyond the bound the scale would never move again"


def test_scores_of_the_training_mode_are_not_kept_over_a_step(data):
    model = make_model(data).train()
    batch = whole(make_sequences(data, "valid"))
    with torch.no_grad():
        before = model.score_all(batch, 0)
        model.towers[0].head.tables["id"].input.add_(torch.randn(NUM_ITEMS, 6))
        after = model.score_all(batch, 0)
        expected = model.eval().score_all(batch, 0)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("lambda1", [0.3, 20.0])
def test_a_domain_without_any_image_trains_and_scores(lambda1):
    scenario = make_scenario()
    features = {
        "image": make_features(scenario, "image", missing=tuple(range(NUM_X))),
        "text": make_features(scenario, "text"),
    }
    data = TrialData.build(scenario, **features)
    model = make_model(data, lambda1=lambda1)
    reference = Reference(model, data)
    for domain, scores in enumerate(scores_of(model, data)):
        expected = np.stack([reference.score(row[:-1], domain) for row in rows_of(data.valid)])
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    loss = loss_of(model, data)
    assert loss.item() == pytest.approx(reference.loss(train_rows(data)), rel=1e-5)
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alpha": 0.8, "beta": 0.3}, ["alpha + beta", "1.1"]),
        ({"objective_precision": "fp16", "objective": "sampled"}, ["objective_precision", "objective = full"]),
        ({"objective_precision": "fp16", "scale_max": 200.0}, ["objective_precision", "100"]),
        ({"objective_precision": "fp16", "mixture": "logit"}, ["objective_precision", "mixture = prob"]),
        ({"alpha": -0.1}, ["alpha", "-0.1", "greater than or equal to 0"]),
        ({"modalities": []}, ["modalities"]),
        ({"modalities": ["id", "id"]}, ["modalities", "once"]),
        ({"modalities": ["sound"]}, ["modalities", "sound"]),
        ({"sequences": []}, ["sequences"]),
        ({"modalities": ["image"], "alpha": 1.0, "beta": 0.0}, ["modalities", "weight"]),
        ({"lr": -1e-3}, ["lr", "-0.001", "greater than 0"]),
        ({"scale_init": 50.0, "scale_max": 20.0}, ["scale_init", "scale_max"]),
        ({"share_encoders": "modalities"}, ["share_encoders", "item_projection"]),
        ({"sequences": ["y"], "lambda1": 0.0}, ["sequences", "lambda1"]),
        ({"sequences": ["xy"], "lambda2": 0.0}, ["sequences", "lambda2"]),
        ({"sequences": ["x"], "lambda1": 0.0}, ["sequences", "lambda1"]),
        ({"sequences": ["x"], "cross_softmax": "drop"}, ["sequences", "cross_softmax"]),
        ({"monitor": "val_loss", "selection": "per_domain"}, ["selection", "monitor"]),
        ({"lambda1": float("inf")}, ["lambda1", "finite"]),
        ({"alhpa": 0.3}, ["alhpa", "alpha"]),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_before_anything_runs(values, words):
    with pytest.raises(InputError) as caught:
        build_config(LLMEMFConfig, values, where="sweep.yaml")
    message = str(caught.value)
    assert message.startswith("sweep.yaml") and "\n" not in message
    assert all(word in message for word in words), message


def test_settings_that_do_not_fit_the_data_are_refused(data):
    with pytest.raises(InputError, match="heads = 3 does not divide the width 4"):
        LLMEMF(make_config(heads=3), data)
    with pytest.raises(InputError, match="'image'.*not given"):
        LLMEMF(make_config(), TrialData.build(make_scenario()))
