"""The log of answers: what is counted, what is kept, and the keys that old logs have."""

from __future__ import annotations

import hashlib
import json

import pytest

from llmemf.errors import InputError
from llmemf.features.llm_cache import AnswerCache, answer_key
from llmemf.features.prompts import prompts_for


def record(key="k", status="ok", **facts):
    return {"key": key, "model": "m", "prompt": "p", "status": status, **facts}


def test_keys_and_versions_are_those_of_old_logs():
    """Both are hashes of JSON; another form of it would ask and pay for every answer again."""
    expected = hashlib.sha256(json.dumps(["v", "m", "Title: \u00e4"]).encode()).hexdigest()[:32]
    assert answer_key("v", "m", "Title: \u00e4") == expected
    versions = [prompt.version for prompt in prompts_for(("Movies_and_TV", "toys"))]
    assert versions == ["movie-1-96d197f7", "general-1-d9ed8de6"]


def test_a_usable_answer_stays_and_money_adds_up(tmp_path):
    with AnswerCache.open(tmp_path) as cache:
        cache.add([record(status="refusal", text="x" * 600, usd=0.25), record(status="failed: HTTP 500")])
        assert (cache.entry("k").bad, cache.entry("k").settled) == (1, False)
        cache.add([record(text="good", usd=0.5, prompt_tokens=7, completion_tokens=3)])
        cache.add([record(status="cut off", text="late")])
    for found in (cache, AnswerCache.peek(tmp_path)):
        assert (found.entry("k").status, found.entry("k").text, found.usd) == ("ok", "good", 0.75)
        assert found.answers == {("m", "p"): [1, 7, 3]}
    assert len(json.loads((tmp_path / "llm_cache.jsonl").read_bytes().split(b"\n")[0])["text"]) == 500


def test_a_negative_cost_in_an_old_log_lowers_nothing(tmp_path):
    lines = [record(text="a", usd=0.5), record("l", text="b", usd=-3.0)]
    (tmp_path / "llm_cache.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert AnswerCache.peek(tmp_path).usd == 0.5


def test_a_lone_surrogate_in_an_old_log_becomes_a_question_mark(tmp_path):
    (tmp_path / "llm_cache.jsonl").write_text(json.dumps(record(text="a film \ud83d of the sea")) + "\n")
    assert AnswerCache.peek(tmp_path).entry("k").text == "a film ? of the sea"


def test_one_writer_and_any_number_of_readers(tmp_path):
    with AnswerCache.open(tmp_path) as cache:
        cache.add([record(text="a")])
        with pytest.raises(InputError, match="llm_cache.jsonl"):
            AnswerCache.open(tmp_path)
        assert AnswerCache.peek(tmp_path).entry("k").text == "a"
    AnswerCache.open(tmp_path).close()
