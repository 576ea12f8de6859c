"""Every system as a folder: the same numbers and scores as the model in training, without the scenario."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_USERS, NUM_X, make_features_of_both_kinds, make_scenario, random_rows

from llmemf.batches import Batch, SequenceView, TrialData
from llmemf.checkpoint import evaluate_checkpoint
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.export.evaluation import compare_with_logged, evaluate_export
from llmemf.export.folder import CARD, DATA, MANIFEST, ExportedModel, export_checkpoint
from llmemf.export.recommendation import Recommendations
from llmemf.features.matrix import FeatureMatrix, profiles_hash
from llmemf.models import MODELS, model_class
from llmemf.training import Trainer

SMALL = {"batch_size": 16, "eval_batch_size": 8, "epochs": 1, "max_length": 6, "device": "cpu", "lr": 0.01, "seed": 3,
         "encoder_layers": 1}  # fmt: skip
WIDTHS = ("dim", "id_dim")
VARIANTS = {
    **{name: {"model": name} for name in MODELS},
    "bprmf by id": {"model": "bprmf", "user_mode": "id"},
    "lecdsr with profiles": {"model": "lecdsr", "profile": "llm"},
    "lecdsr with a table": {"model": "lecdsr", "profile": "table"},
    "llm_emf aligned": {"model": "llm_emf", "layout": "aligned", "item_projection": "linear", "projection_dim": 5},
    "llm_emf per domain": {"model": "llm_emf", "selection": "per_domain", "epochs": 3},
    "tri_cdr": {"model": "tri_cdr", "epochs": 2},
    "mifn with texts": {"model": "mifn", "kg": "cooc_text"},
}
STRANGER = NUM_USERS - 1
"""A user without training sequences."""
HISTORY = [3, NUM_X + 4, 7, NUM_X + 9, 11, 2, NUM_X + 1, 19]


@pytest.fixture(scope="module")
def scenario():
    return make_scenario(rows={"train": random_rows(np.random.default_rng(5), NUM_USERS - 4, 9)})


@pytest.fixture(scope="module")
def features(scenario):
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(NUM_USERS, 7)).astype(np.float32)
    has = np.arange(NUM_USERS) != STRANGER
    rows[~has] = 0
    profiles = FeatureMatrix("profile", "random", rows, has, profiles_hash(scenario))
    return {**make_features_of_both_kinds(scenario), "profile": profiles}


class Exported:
    """A system that was trained, and what became of it."""

    def __init__(self, folder, scenario, features, given):
        kind = model_class(given["model"])
        widths = {key: 6 for key in WIDTHS if key in kind.config_class.model_fields}
        values = {key: v for key, v in {**SMALL, **widths}.items() if key in kind.config_class.model_fields}
        config = build_config(kind.config_class, {**values, **given})
        self.features = {name: features[name] for name in kind.needs(config)}
        self.trainer = Trainer(config, TrialData.build(scenario, **self.features))
        epochs = list(self.trainer.epochs())
        self.checkpoint = folder / "checkpoint"
        self.trainer.save(self.checkpoint)
        best = epochs[-1]["best_epoch"]
        self.metrics = {"valid": {k: v for k, v in epochs[best - 1].items() if k.startswith("val")}}
        self.folder = export_checkpoint(
            self.checkpoint,
            scenario,
            self.features,
            folder / "model",
            metrics=self.metrics,
            source={"trial": "t01"},
            notes=["A note."],
        )
        self.model = ExportedModel.load(self.folder, device="cpu")

    def best_model(self, domain=0):
        """The trained model with its best weights, as training holds it."""
        names = list(self.trainer.best)
        self.trainer.model.load_state_dict(self.trainer.best[names[domain] if len(names) > 1 else names[0]]["weights"])
        return self.trainer.model.eval()


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture(params=sorted(VARIANTS))
def exported(request, made, scenario, features, tmp_path_factory):
    if request.param not in made:
        folder = tmp_path_factory.mktemp("exported")
        made[request.param] = Exported(folder, scenario, features, VARIANTS[request.param])
    return made[request.param]


def batch_of(history, user, width, layout):
    """A batch of one history, built by hand."""
    history = history[-width:] if layout == "aligned" else history
    views = {}
    for view, member in (("x", lambda i: i < NUM_X), ("y", lambda i: i >= NUM_X), ("xy", lambda i: True)):
        if layout == "aligned":
            kept = [item if member(item) else NUM_ITEMS for item in history]
        else:
            kept = [item for item in history if member(item)][-width:]
        items = torch.tensor([kept])
        views[view] = SequenceView(items, torch.full_like(items, NUM_ITEMS), torch.full_like(items, NUM_ITEMS))
    return Batch(torch.tensor([user]), views, None)


def test_validation_and_test_numbers_are_the_same_floats(exported, scenario):
    config = exported.trainer.config
    for split in ("test", "valid"):
        expected = evaluate_checkpoint(exported.checkpoint, scenario, exported.features, split, device="cpu")
        found = evaluate_export(exported.model, scenario, split)
        assert found == expected
    comparison = compare_with_logged(exported.model, found, "valid")
    if config.selection == "per_domain":
        assert comparison is None
        return
    assert {name.replace("valid", "val", 1): value for name, value in found.items()} == exported.metrics["valid"]
    assert (comparison.equal, comparison.largest) == (len(exported.metrics["valid"]), 0)


def test_an_unknown_user_is_scored_as_in_training(exported):
    config = exported.trainer.config
    batch = batch_of(HISTORY, STRANGER, config.max_length, getattr(config, "layout", "compact"))
    for domain in (0, 1):
        with torch.inference_mode():
            expected = exported.best_model(domain).score_all(batch, domain)[0].double().numpy()
        found = Recommendations(exported.model).scores([HISTORY], domain)[0].double().numpy()
        np.testing.assert_array_equal(found, expected)


def test_an_answer_holds_the_highest_scores_of_the_domain_without_the_history(exported):
    service = Recommendations(exported.model)
    answer = service.answer({"history": [f"i{item}" for item in HISTORY], "domain": "book", "k": 6})
    scores = service.scores([HISTORY], 1)[0].double().numpy()
    allowed = [place for place in range(NUM_ITEMS - NUM_X) if NUM_X + place not in HISTORY]
    best = sorted(allowed, key=lambda place: (-scores[place], place))[:6]
    assert [item["id"] for item in answer["items"]] == [f"i{NUM_X + place}" for place in best]
    assert [item["score"] for item in answer["items"]] == [scores[place] for place in best]
    assert [item["title"] for item in answer["items"]] == [f"title {NUM_X + place}" for place in best]


def test_the_folder_is_plain_and_whole(exported):
    names = {path.name for path in exported.folder.iterdir()}
    assert names == {
        "README.md",
        "model.json",
        "config.yaml",
        "best.safetensors",
        DATA,
        "items.parquet",
        "metrics.json",
    }
    for name in ("config.yaml", "best.safetensors"):
        assert (exported.folder / name).read_bytes() == (exported.checkpoint / name).read_bytes()
    card = (exported.folder / CARD).read_text()
    assert exported.model.manifest["fingerprint"] in card and "A note." in card and "| valid | film |" in card


BUILT_ON_TRAINING = {"bprmf", "c2dsr", "item_knn", "mifn", "ncf_mlp", "popularity", "transitions"}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_training_sequences_travel_only_with_systems_that_are_built_on_them(name, made, scenario, features, tmp_path):
    given = made.get(name) or Exported(tmp_path, scenario, features, VARIANTS[name])
    assert given.model.manifest["training_sequences"] == (name in BUILT_ON_TRAINING)
    assert ("share it as you would share the data" in (given.folder / CARD).read_text()) == (name in BUILT_ON_TRAINING)


@pytest.fixture(scope="module")
def small(scenario, features, tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("small"), scenario, features, {"model": "llm_emf", "modalities": ["id"]})


def test_another_scenario_is_refused(small):
    with pytest.raises(InputError, match="was trained on data"):
        evaluate_export(small.model, make_scenario(seed=9), "valid")
    with pytest.raises(InputError, match="export it with the data"):
        export_checkpoint(small.checkpoint, make_scenario(seed=9), {}, small.folder, metrics={}, source={}, notes=[],
                          overwrite=True)  # fmt: skip


def test_other_features_are_refused(scenario, features, tmp_path):
    given = Exported(tmp_path, scenario, features, {"model": "llm_emf", "modalities": ["id", "text"]})
    rows = features["text"].rows + features["text"].has[:, None].astype(np.float32)
    other = FeatureMatrix("text", "other", rows, features["text"].has, features["text"].items_hash)
    with pytest.raises(InputError, match="other text features"):
        export_checkpoint(given.checkpoint, scenario, {"text": other}, tmp_path / "b", metrics={}, source={}, notes=[])
    assert not (tmp_path / "b").exists()


def test_what_exists_is_replaced_only_if_asked_and_only_if_it_is_a_model(small, scenario, tmp_path):
    common = {"metrics": {}, "source": {}, "notes": []}
    with pytest.raises(InputError, match="exists already"):
        export_checkpoint(small.checkpoint, scenario, {}, small.folder, **common)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="holds no exported model"):
        export_checkpoint(small.checkpoint, scenario, {}, tmp_path / "photos", overwrite=True, **common)
    target = export_checkpoint(small.checkpoint, scenario, {}, tmp_path / "m", **common)
    export_checkpoint(small.checkpoint, scenario, {}, target, overwrite=True, **common)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "photos"]


@pytest.mark.parametrize("name", ["best.safetensors", DATA, "items.parquet", "config.yaml"])
def test_a_changed_or_missing_file_is_named(small, scenario, tmp_path, name):
    folder = export_checkpoint(small.checkpoint, scenario, {}, tmp_path / "m", metrics={}, source={}, notes=[])
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} was changed"):
        ExportedModel.load(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        ExportedModel.load(folder)


def test_another_format_and_no_model_are_refused(small, scenario, tmp_path):
    folder = export_checkpoint(small.checkpoint, scenario, {}, tmp_path / "m", metrics={}, source={}, notes=[])
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match="has format 99"):
        ExportedModel.load(folder)
    for wrong in ([], {**manifest, "num_x": "many"}, {**manifest, "domains": ["x"]}, {**manifest, "files": None}):
        (folder / MANIFEST).write_text(json.dumps(wrong))
        with pytest.raises(InputError, match="model.json.*export the model again"):
            ExportedModel.load(folder)
    with pytest.raises(InputError, match="holds no exported model"):
        ExportedModel.load(tmp_path)


def test_differences_are_told(small, scenario):
    found = evaluate_export(small.model, scenario, "valid")
    name = next(iter(found))
    comparison = compare_with_logged(small.model, {**found, name: found[name] + 0.25}, "valid")
    assert (comparison.equal, comparison.total) == (len(found) - 1, len(found)) and comparison.largest == pytest.approx(
        0.25
    )
    assert "differ by 0.2" in str(comparison)
    assert compare_with_logged(small.model, found, "test") is None


def test_no_module_of_the_sweeps_is_needed():
    source = "".join(path.read_text() for path in (Path(export_checkpoint.__code__.co_filename).parent).glob("*.py"))
    assert "sweeps" not in source.replace("sweeps/export.py", "")
