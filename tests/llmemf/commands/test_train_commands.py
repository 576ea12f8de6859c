"""`llmemf train` and `llmemf evaluate` as a user meets them."""

import dataclasses
import re

import pytest
from command_calls import call, refuse
from tiny import make_features_of_both_kinds, make_scenario

from llmemf.scenarios.scenario import Scenario

SMALL = ["id_dim=6", "epochs=2", "batch_size=16", "encoder_layers=1", "device=cpu"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with the scenario `tiny` and both kinds of features."""
    folder = make_scenario().save(tmp_path / "data")
    scenario = Scenario.load(folder)
    for matrix in make_features_of_both_kinds(scenario).values():
        matrix.save(scenario)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def settings(*more):
    return [part for value in [*SMALL, *more] for part in ("--set", value)]


def test_train_writes_a_checkpoint_that_evaluate_reproduces(root, tmp_path):
    printed = call("train", "tiny", *settings(), "--output", tmp_path / "run")
    assert (tmp_path / "run" / "best.safetensors").exists()
    best = re.findall(r"film MRR (\d\.\d{4}) HR@10 full (\d\.\d{4}).*best so far", printed)[-1]
    scored = call("evaluate", tmp_path / "run", "tiny", "--split", "valid")
    film = [line for line in scored.splitlines() if "film" in line]
    assert best[0] in film[0] and best[1] in film[1]


def test_train_leaves_out_the_modalities_that_no_item_has(tmp_path, capsys):
    scenario = make_scenario(name="bare")
    dataclasses.replace(scenario, items=scenario.items.assign(title="")).save(tmp_path / "data")
    more = ("--data-root", tmp_path / "data")
    printed = call("train", "bare", *settings(), *more)
    assert "no item of bare has" in printed and "features: none" in printed
    assert "no text features" in refuse(capsys, "train", "bare", *settings("modalities=id,text"), *more)


def test_resume_goes_on_after_the_last_epoch(root, tmp_path, capsys):
    call("train", "tiny", *settings(), "--output", tmp_path / "run")
    assert "holds a checkpoint already" in refuse(capsys, "train", "tiny", *settings(), "--output", tmp_path / "run")
    printed = call("train", "tiny", *settings("epochs=3"), "--output", tmp_path / "run", "--resume")
    assert "epoch 3/3" in printed and "epoch 2/3" not in printed


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("alphaa=0.5", "did you mean 'alpha'"),
        ("lr=-1", "lr = -1"),
        ("alpha=0.9", "alpha + beta = 1.2"),
        ("text_encoder=clip", "no text features from encoder 'clip'"),
        ("heads=4", "heads = 4 does not divide"),
    ],
)
def test_a_mistake_is_one_line(root, capsys, assignment, expected):
    assert expected in refuse(capsys, "train", "tiny", *settings(assignment))


def test_unknown_scenario_offers_the_nearest(root, capsys):
    assert "did you mean 'tiny'" in refuse(capsys, "train", "tinny", *settings())


def test_divergence_names_the_settings(root, capsys):
    error = refuse(capsys, "train", "tiny", *settings("lr=1e30", "epochs=5"))
    assert "epoch" in error and "lr = 1e+30" in error and "lower the learning rate" in error


def test_evaluate_without_a_checkpoint_says_so(root, tmp_path, capsys):
    assert "config.yaml" in refuse(capsys, "evaluate", tmp_path, "tiny")


def test_one_modality_needs_no_brackets(root):
    assert "features: none" in call("train", "tiny", *settings("modalities=id"))


def test_another_system_is_named_by_an_option(root, capsys):
    assert "popularity on tiny" in call("train", "tiny", "--model", "popularity", "--set", "device=cpu")
    assert "sasrec" in refuse(capsys, "train", "tiny", "--model", "sasrek")
