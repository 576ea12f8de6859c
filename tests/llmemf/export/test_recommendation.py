"""Requests to an exported model: what is answered, and what is refused with which words."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, NUM_Y, make_scenario

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.export.folder import export_checkpoint
from llmemf.export.recommendation import Recommendations
from llmemf.models import model_class
from llmemf.training import Trainer


def exported(folder, scenario, **values):
    config = build_config(model_class(values["model"]).config_class, {"device": "cpu", "epochs": 1, **values})
    trainer = Trainer(config, TrialData.build(scenario))
    list(trainer.epochs())
    trainer.save(folder / "checkpoint")
    target = folder / "model"
    export_checkpoint(folder / "checkpoint", scenario, {}, target, metrics={}, source={}, notes=[])
    return Recommendations.load(target, device="cpu")


@pytest.fixture(scope="module")
def popular(tmp_path_factory):
    """Popularity: the same scores for every history, known from counts."""
    scenario = make_scenario()
    return exported(tmp_path_factory.mktemp("popular"), scenario, model="popularity"), np.bincount(
        scenario.train.items, minlength=NUM_ITEMS
    )


def ids(answer):
    return [item["id"] for item in answer["items"]]


def by_count(counts, low, high, without=()):
    places = [place for place in range(low, high) if place not in without]
    return [f"i{place}" for place in sorted(places, key=lambda place: (-counts[place], place))]


def test_the_most_popular_come_first_and_the_history_is_left_out(popular):
    service, counts = popular
    history = [by_count(counts, NUM_X, NUM_ITEMS)[0], "i3"]
    answer = service.answer({"history": history, "domain": "book", "k": 5})
    left_out = {int(history[0][1:])}
    assert ids(answer) == by_count(counts, NUM_X, NUM_ITEMS, left_out)[:5]
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
    first = answer["items"][0]
    assert first["title"] == f"title {first['id'][1:]}"
    assert first["score"] == pytest.approx(math.log(counts[int(first["id"][1:])] + 1))
    kept = service.answer({"history": history, "domain": "book", "k": 5, "exclude_history": False})
    assert ids(kept) == by_count(counts, NUM_X, NUM_ITEMS)[:5]


def test_ten_items_without_a_number_of_the_domain_that_was_asked_for(popular):
    service, counts = popular
    answer = service.answer({"history": ["i40"], "domain": "film"})
    assert answer["domain"] == "film" and ids(answer) == by_count(counts, 0, NUM_X)[:10]


def test_unknown_items_are_skipped_and_named(popular):
    service, _ = popular
    known = service.answer({"history": ["i3", "i41"], "domain": "film"})
    answer = service.answer({"history": ["i3", "nothing", "i41", "i9999"], "domain": "film"})
    assert answer["unknown_items"] == ["nothing", "i9999"] and answer["known_items"] == 2
    assert answer["items"] == known["items"] and known["unknown_items"] == []


@pytest.mark.parametrize("history", [[], ["nobody", "i9999"]])
def test_of_nobody_known_the_answer_is_what_is_popular_and_says_so(tmp_path, history):
    scenario = make_scenario()
    counts = np.bincount(scenario.train.items, minlength=NUM_ITEMS)
    service = exported(tmp_path, scenario, model="llm_emf", modalities=["id"], id_dim=4)
    answer = service.answer({"history": history, "domain": "book", "k": 5})
    assert answer["fallback"] == "popularity" and answer["unknown_items"] == history and answer["known_items"] == 0
    assert ids(answer) == by_count(counts, NUM_X, NUM_ITEMS)[:5]
    assert [item["score"] for item in answer["items"]] == [counts[int(name[1:])] for name in ids(answer)]
    assert "fallback" not in service.answer({"history": ["i3"], "domain": "book"})
    # A folder of an earlier version does not know what is popular.
    old = Recommendations(dataclasses.replace(service.model, counts=None))
    assert "export it again" in old.answers([{"history": history, "domain": "book"}])[0]["error"]


def test_requests_of_one_call_are_answered_together_and_apart(popular, monkeypatch):
    service, _ = popular
    requests = [
        {"history": [f"i{n}", f"i{n + 30}"], "domain": "film" if n % 3 else "book", "k": n + 1} for n in range(9)
    ]
    alone = [service.answer(request) for request in requests]
    secret = {"history": ["the secret of another user"], "domain": "music"}
    monkeypatch.setattr("llmemf.export.recommendation.BATCH_HISTORIES", 4)
    batches = []
    monkeypatch.setattr(
        service, "scores", lambda h, d: (batches.append(len(h)), Recommendations.scores(service, h, d))[1]
    )
    found = service.answers([requests[0], secret, *requests[1:], "i3"])
    assert [found[0], *found[2:-1]] == alone
    assert list(found[1]) == list(found[-1]) == ["error"] and "secret" not in str(found[0]) + str(found[2:])
    assert sorted(batches) == [2, 3, 4]


def test_equal_scores_stand_in_the_order_of_the_table(popular, monkeypatch):
    service, _ = popular
    scores = torch.zeros(1, NUM_Y)
    scores[0, [5, 7]] = torch.tensor([2.0, 1.0])
    monkeypatch.setattr(service, "scores", lambda histories, domain: scores.clone())
    answer = service.answer({"history": [f"i{NUM_X + 1}"], "domain": "book", "k": 5})
    assert ids(answer) == [f"i{NUM_X + place}" for place in (5, 7, 0, 2, 3)]


def test_all_items_of_a_domain_can_be_asked_for(popular):
    service, _ = popular
    assert len(service.answer({"history": ["i3"], "domain": "book", "k": NUM_Y})["items"]) == NUM_Y
    with pytest.raises(InputError, match=f"k = {NUM_Y} is too large: domain 'book' has 41 items of which 1 stand"):
        service.answer({"history": ["i50"], "domain": "book", "k": NUM_Y})


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"history": ["i3"], "domain": "boook"}, "unknown domain 'boook': did you mean 'book'"),
        ({"history": ["i3"], "domain": 7}, "unknown domain 7"),
        ({"history": ["i3"], "domain": ["book"]}, "unknown domain"),
        ({"history": "i3,i4", "domain": "book"}, "history must be a list of item ids; this is a text"),
        ({"history": {"i3": 1}, "domain": "book"}, "history must be a list of item ids; this is an object"),
        ({"history": ["i3", None], "domain": "book"}, r"history\[1\] = None is no item id"),
        ({"history": [["i3"]], "domain": "book"}, r"history\[0\] = \['i3'\] is no item id"),
        ({"history": [True], "domain": "book"}, r"history\[0\] = True is no item id"),
        ({"history": ["i3"], "domain": "book", "k": 42}, "k = 42 is too large: domain 'book' has 41 items$"),
        ({"history": ["i3"], "domain": "book", "k": 0}, "k = 0: a whole number from 1 on"),
        ({"history": ["i3"], "domain": "book", "k": 2.5}, "k = 2.5: a whole number"),
        ({"history": ["i3"], "domain": "book", "k": True}, "k = True: a whole number"),
        ({"history": ["i3"], "domain": "book", "k": "10"}, "k = '10': a whole number"),
        ({"history": ["i3"], "domain": "book", "exclude_history": "no"}, "true or false is expected"),
        ({"history": ["i3"]}, "domain is missing"),
        ({"domain": "book"}, "history is missing"),
        ({"history": ["i3"], "domain": "book", "top": 3}, "unknown key 'top'"),
        (["i3"], "a request is an object with history, domain, k, exclude_history; this is a list"),
        (None, "this is nothing"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(popular, request_, message):
    with pytest.raises(InputError, match=message):
        popular[0].answer(request_)


def test_ids_that_are_numbers_are_read_as_text(tmp_path):
    scenario = make_scenario()
    items = scenario.items.assign(external_id=[str(1000 + number) for number in range(NUM_ITEMS)])
    service = exported(tmp_path, dataclasses.replace(scenario, items=items), model="popularity")
    assert service.answer({"history": [1003, "1041"], "domain": "film"})["known_items"] == 2


def test_an_id_of_both_domains_needs_its_domain(tmp_path):
    scenario = make_scenario()
    items = scenario.items.assign(external_id=[f"i{n if n < NUM_X else n - NUM_X}" for n in range(NUM_ITEMS)])
    items.loc[NUM_ITEMS - 1, "external_id"] = "a:b"
    service = exported(tmp_path, dataclasses.replace(scenario, items=items), model="item_knn")
    with pytest.raises(InputError, match="'i3' stands for 2 items: write film:i3 or book:i3"):
        service.answer({"history": ["i3"], "domain": "film"})
    assert service._find("film:i3") == 3 and service._find("book:i3") == NUM_X + 3
    assert service._find("a:b") == NUM_ITEMS - 1 and service._find("c:i3") is None


def test_items_without_a_probability_are_left_out(tmp_path):
    """Of a history in X alone, a model of the target's own sequence says nothing about Y."""
    values = {"modalities": ["id"], "sequences": ["x", "y"], "cross_softmax": "drop", "lambda2": 0.0, "id_dim": 4}
    scenario = make_scenario()
    service = exported(tmp_path, scenario, model="llm_emf", **values)
    answer = service.answer({"history": ["i3"], "domain": "book"})
    assert answer["fallback"] == "popularity" and answer["known_items"] == 1
    counts = np.bincount(scenario.train.items, minlength=NUM_ITEMS)
    assert ids(answer) == by_count(counts, NUM_X, NUM_ITEMS)[:10]
    assert len(service.answer({"history": ["i3", "i40"], "domain": "book"})["items"]) == 10


def test_only_the_latest_items_count(tmp_path):
    service = exported(tmp_path, make_scenario(), model="item_knn", max_length=2)
    long, short = ["i5", "i9", "i40", "i3"], ["i40", "i3"]
    first, second = (service.answer({"history": h, "domain": "book", "exclude_history": False}) for h in (long, short))
    assert first["items"] == second["items"]
