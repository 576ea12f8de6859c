"""`llmemf recommend`, and `llmemf evaluate` of an exported model, as a user meets them."""

import json
import re

import pytest
from command_calls import call, refuse
from tiny import make_features_of_both_kinds, make_scenario

from llmemf.commands.recommend import read_history
from llmemf.config import read_yaml
from llmemf.export.evaluation import evaluate_export
from llmemf.export.folder import ExportedModel, export_checkpoint
from llmemf.export.recommendation import Recommendations
from llmemf.scenarios.scenario import Scenario

SMALL = ["id_dim=6", "epochs=2", "batch_size=16", "encoder_layers=1", "device=cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data root with a scenario, a checkpoint trained on it, and the exported model."""
    folder = tmp_path_factory.mktemp("commands")
    scenario = Scenario.load(make_scenario().save(folder / "data"))
    features = make_features_of_both_kinds(scenario)
    for matrix in features.values():
        matrix.save(scenario)
    words = [part for value in SMALL for part in ("--set", value)]
    call("train", "tiny", *words, "--output", folder / "run", "--data-root", folder / "data")
    kinds = read_yaml(folder / "run" / "config.yaml")["features"]
    given = {kind: features[kind] for kind in kinds}
    common = {"source": {"trained by": "llmemf train"}, "notes": []}
    export_checkpoint(folder / "run", scenario, given, folder / "draft", metrics={}, **common)
    found = evaluate_export(ExportedModel.load(folder / "draft"), scenario, "valid")
    logged = {name.replace("valid", "val", 1): value for name, value in found.items()}
    export_checkpoint(folder / "run", scenario, given, folder / "model", metrics={"valid": logged}, **common)
    return folder


def test_evaluate_reads_the_folder_and_compares_with_what_was_logged(place, monkeypatch):
    common = ("--data-root", place / "data")
    printed = call("evaluate", place / "model", "tiny", "--split", "valid", *common)
    # With the folder's name the same weights; the rows of the checkpoint's own table are the same.
    table = call("evaluate", place / "run", "tiny", "--split", "valid", *common)
    numbers = re.findall(r"\d\.\d{4}", table)
    assert len(numbers) == 36 and re.findall(r"\d\.\d{4}", printed)[:36] == numbers
    assert "all 40 logged numbers come out the same" in printed
    assert "no numbers of this split were logged" in call("evaluate", place / "model", "tiny", *common)


def test_evaluate_refuses_another_scenario(place, tmp_path, capsys):
    make_scenario(seed=4).save(tmp_path)
    assert "was trained on data" in refuse(capsys, "evaluate", place / "model", "tiny", "--data-root", tmp_path)


def test_recommend_prints_a_table(place):
    printed = call("recommend", "--model", place / "model", "--history", "i3, i40,nobody", "--domain", "book", "--k", 4)
    answer = Recommendations.load(place / "model").answer({"history": ["i3", "i40"], "domain": "book", "k": 4})
    lines = [line.split() for line in printed.splitlines()]
    for item in answer["items"]:
        assert [str(item["rank"]), item["id"], "title", item["id"][1:], f"{item['score']:.4f}"] in lines
    assert "from 2 known items of the history, 1 unknown and skipped: nobody" in printed


def test_recommend_as_json_from_a_file_and_from_standard_input(place, tmp_path):
    words = ("recommend", "--model", place / "model", "--domain", "film", "--json", "--keep-history")
    request = {"history": ["i3", "i40"], "domain": "film", "exclude_history": False}
    expected = Recommendations.load(place / "model").answer(request)
    (tmp_path / "history.txt").write_text("i3\n i40 \n\n")
    assert json.loads(call(*words, "--history", f"@{tmp_path / 'history.txt'}")) == expected
    assert json.loads(call(*words, "--history", "-", input="i3,i40\n")) == expected
    assert json.loads(call(*words, "--history", '["i3", "i40"]')) == expected


def test_a_list_may_hold_ids_with_commas_and_an_id_brackets():
    assert read_history('["a,b", "c"]') == ["a,b", "c"]
    assert read_history("[a], b") == ["[a]", "b"]


def test_titles_with_markup_are_shown_as_they_are(tmp_path, place):
    import dataclasses

    from llmemf.batches import TrialData
    from llmemf.config import build_config
    from llmemf.models.popularity import PopularityConfig
    from llmemf.training import Trainer

    scenario = make_scenario()
    scenario = dataclasses.replace(scenario, items=scenario.items.assign(title="[bold]<b>Café</b> \U0001f680[/bold]"))
    trainer = Trainer(build_config(PopularityConfig, {"model": "popularity"}), TrialData.build(scenario))
    list(trainer.epochs())
    trainer.save(tmp_path / "run")
    export_checkpoint(tmp_path / "run", scenario, {}, tmp_path / "model", metrics={}, source={}, notes=[])
    printed = call("recommend", "--model", tmp_path / "model", "--history", "i3", "--domain", "book", "--k", "1")
    assert "[bold]<b>Café</b> \U0001f680[/bold]" in printed


def test_a_history_of_strangers_is_answered_with_what_is_popular(place):
    printed = call("recommend", "--model", place / "model", "--history", "nobody", "--domain", "book")
    assert "most popular" in printed and "1 unknown and skipped: nobody" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--history", "i3", "--domain", "books"), "did you mean 'book'"),
        (("--history", "i3", "--domain", "book", "--k", "500"), "k = 500 is too large"),
        (("--history", "@nowhere.txt", "--domain", "book"), "--history @nowhere.txt: the file cannot be read"),
    ],
)
def test_a_mistake_is_one_line(place, capsys, words, expected):
    assert expected in refuse(capsys, "recommend", "--model", place / "model", *words)


def test_a_folder_without_a_model_is_named(place, capsys):
    words = ("recommend", "--model", place / "run", "--history", "i3", "--domain", "book")
    assert "holds no exported model" in refuse(capsys, *words)
