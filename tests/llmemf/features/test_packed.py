"""Packed features: what is written, who maps it, and that models compute what they compute from the same rows unpacked."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from tiny import (
    NO_IMAGE,
    make_config,
    make_features,
    make_features_of_both_kinds,
    make_model,
    make_scenario,
    make_sequences,
    whole,
)
from typer.testing import CliRunner

from llmemf.__main__ import app
from llmemf.batches import TrialData
from llmemf.errors import InputError
from llmemf.features.finding import find_features, is_offline
from llmemf.features.matrix import FeatureMatrix
from llmemf.features.packed import pack
from llmemf.scenarios.scenario import find_scenario
from llmemf.training import Trainer


@pytest.fixture
def scenario(tmp_path):
    """The scenario of `tiny.py` on disk, with features of both kinds that lack some items."""
    made = make_scenario()
    made.save(tmp_path / "data")
    saved = find_scenario("tiny", tmp_path / "data")
    for matrix in make_features_of_both_kinds(saved).values():
        matrix.save(saved)
    return saved


def packed_and_plain(scenario, precision="fp16"):
    """Trial data from packed features, and the same rows as ordinary fp32 features."""
    packed = {kind: pack(find_features(scenario, kind, "random"), scenario, precision) for kind in ("image", "text")}
    data = TrialData.build(scenario, **packed)
    plain = {
        kind: dataclasses.replace(matrix, rows=np.array(matrix.rows, np.float32)) for kind, matrix in packed.items()
    }
    return data, dataclasses.replace(data, **plain)


@pytest.mark.parametrize(("precision", "kind", "error"), [("fp16", np.float16, 2**-11), ("fp32", np.float32, 0)])
def test_rows_have_unit_length_and_stand_for_the_original(scenario, precision, kind, error):
    original = find_features(scenario, "image", "random")
    packed = pack(original, scenario, precision)
    expected = np.array(original.rows, dtype=np.float64)
    expected[packed.has] /= np.linalg.norm(expected[packed.has], axis=1, keepdims=True)
    distance = np.linalg.norm(packed.rows - expected, axis=1)
    assert packed.rows.dtype == kind and isinstance(packed.rows, np.memmap)
    assert distance.max() <= error + 1e-6 and not packed.rows[list(NO_IMAGE)].any()
    facts = packed.details["packed"]
    assert facts["largest_change"] == pytest.approx(distance.max(), abs=1e-6)
    assert (facts["from"], facts["hash"], packed.name) == ("random", original.hash(), f"image.random-{precision}")
    assert sorted(path.name for path in scenario.folder.glob(".*")) == []


def test_auto_takes_the_original_where_it_is_there(scenario):
    packed = pack(find_features(scenario, "text"), scenario)
    assert find_features(scenario, "text").encoder == "random"
    assert find_features(scenario, "text", packed.encoder).rows.dtype == np.float16
    for file in (folder := scenario.folder / "features" / "text.random").iterdir():
        file.unlink()
    folder.rmdir()
    assert find_features(scenario, "text").encoder == "random-fp16"


def test_offline_features_stay_what_they_are_when_they_are_packed(scenario):
    """They stand behind pretrained ones, and are told as what they are."""
    original = find_features(scenario, "text", "random")
    packed = pack(dataclasses.replace(original, encoder="offline"), scenario)
    assert find_features(scenario, "text").encoder == "random"
    assert is_offline(packed.encoder) and not is_offline("random-fp16")


def test_what_cannot_be_packed_is_refused(scenario):
    packed = pack(find_features(scenario, "text"), scenario)
    with pytest.raises(InputError, match="text.random-fp16 are packed already, from random"):
        pack(packed, scenario)
    with pytest.raises(InputError, match="exist already; give --overwrite"):
        pack(find_features(scenario, "text", "random"), scenario)
    pack(find_features(scenario, "text", "random"), scenario, overwrite=True)


def test_a_process_gets_the_name_of_the_file_and_maps_it(scenario):
    data, _ = packed_and_plain(scenario)
    assert isinstance(data.image.rows, np.memmap), "nothing was copied"
    sent = pickle.dumps(data.image)
    assert len(sent) < 500 and len(pickle.dumps(make_features(scenario, "image"))) > data.image.rows.nbytes
    found = pickle.loads(sent)
    assert isinstance(found.rows, np.memmap) and np.array_equal(found.rows, data.image.rows)
    assert found.hash() == data.image.hash() and found.details == data.image.details
    changed = dataclasses.replace(data.image, rows=np.array(data.image.rows) * 2)
    assert np.array_equal(pickle.loads(pickle.dumps(changed)).rows, changed.rows), "rows in memory travel themselves"


def test_a_file_that_is_gone_or_another_one_is_told(scenario):
    data, _ = packed_and_plain(scenario)
    sent = pickle.dumps(data.text)
    original = find_features(scenario, "text", "random")
    pack(dataclasses.replace(original, rows=original.rows[:, ::-1]), scenario, overwrite=True)
    with pytest.raises(InputError, match="were replaced while they were in use"):
        pickle.loads(sent)
    scenario.folder.rename(scenario.folder.with_name("elsewhere"))
    with pytest.raises(InputError, match="which this machine does not see: mount the data root at the same path"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "sampled", "sampled_negatives": 20},
        {"missing": "domain_mean"},
        {"missing": "learned"},
        {"item_projection": "linear", "projection_dim": 6},
        {"mixture": "logit"},
        {"text_content": "shuffled"},
    ],
)
def test_a_model_computes_what_it_computes_from_the_same_rows_in_fp32(scenario, settings):
    found = []
    for data in packed_and_plain(scenario):
        model = make_model(data, **settings)
        batch = whole(make_sequences(data, "train"))
        torch.manual_seed(5)
        loss = model.train().training_loss(batch)
        loss.backward()
        cases = whole(make_sequences(data, "valid"))
        with torch.inference_mode():
            scores = [model.eval().score_all(cases, domain) for domain in (0, 1)]
        found.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None], scores))
    (loss, gradients, scores), (true_loss, true_gradients, true_scores) = found
    # The mean of a domain is rounded to half precision as well.
    tolerance = 1e-3 if settings.get("missing") == "domain_mean" else 1e-6
    torch.testing.assert_close(loss, true_loss, rtol=tolerance, atol=0)
    for one, two in zip([*gradients, *scores], [*true_gradients, *true_scores], strict=True):
        torch.testing.assert_close(one, two, rtol=20 * tolerance, atol=10 * tolerance)


@pytest.mark.slow
def test_trials_train_and_score_alike(scenario):
    data, plain = packed_and_plain(scenario)
    one, two = (list(Trainer(make_config(dropout=0.2), each).epochs()) for each in (data, plain))
    for packed, expected in zip(one, two, strict=True):
        assert packed["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-6)
        assert packed["val/mrr"] == pytest.approx(expected["val/mrr"], rel=1e-5)


def test_scoring_never_holds_a_half_table_in_single_precision(scenario, monkeypatch):
    """Blocks of the table are as large as said, and their number does not change the scores."""
    from llmemf.models import mixture

    data, _ = packed_and_plain(scenario)
    model, cases = make_model(data), whole(make_sequences(data, "valid"))
    with torch.inference_mode():
        whole_scores = model.score_all(cases, 0)
        held = model.towers[0].head.scoring_rows()
        monkeypatch.setattr(mixture, "BLOCK", 7)
        torch.testing.assert_close(model.score_all(cases, 0), whole_scores)
    assert [table.dtype for table in held] == [torch.float32, torch.float16, torch.float16]
    assert held[1].data_ptr() == model.towers[0].tables["image"].rows.data_ptr()


def test_the_command_says_how_to_go_on(scenario):
    result = CliRunner().invoke(
        app, ["features", "pack", "tiny", "--data-root", str(scenario.folder.parent)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "--set text_encoder=random-fp16 --set image_encoder=random-fp16" in result.output
    assert FeatureMatrix.load(scenario.folder / "features" / "text.random-fp16", verify=True).packed
