"""Runs against a real HTTP server that is slow, limits, breaks off, talks garbage and dies: nothing lost or paid twice."""

from __future__ import annotations

import dataclasses
import os
import random
import threading

import pytest
from fake_openai import GOOD, Answer, FakeOpenAI, completion, good, title_of
from llm_shop import ANSWER_USD, TITLES, bounds, plan_of, records, run

from llmemf.errors import InputError, StorageError
from llmemf.features.llm_endpoint import Unusable

# Answers.

BAD_ANSWERS = {
    "empty": completion("<think>long thoughts</think>\n  "),
    "refusal": completion("I'm sorry, but I can't help with that."),
    "too long": completion("word and the " * 200),
    "wrong language": completion(
        "Dies ist die Geschichte der Stadt und der See, und sie ist von dem Dichter mit den Tieren. " * 2
    ),
    "cut off": completion("Attributes: a", finish="length"),
    "filtered": completion("Attributes: a", finish="content_filter"),
}


@pytest.mark.parametrize("verdict", BAD_ANSWERS)
def test_a_bad_answer_is_recorded_and_asked_for_once_more(shop, verdict):
    scenario = shop(["bad", "worse", "fine", "good"])

    def behave(question, before):
        bad = title_of(question) == "worse" or (title_of(question) == "bad" and before == 0)
        return Answer(body=BAD_ANSWERS[verdict]) if bad else good(question)

    with FakeOpenAI(behave) as fake:
        outcome = run(scenario, fake)
        assert outcome.statuses == ["ok", verdict, "ok", "ok"]
        assert fake.paid == {"bad": 2, "worse": 2, "fine": 1, "good": 1}
        assert (outcome.progress.ok, outcome.progress.bad) == (3, 1)
        assert outcome.progress.usd == pytest.approx(6 * ANSWER_USD)
        run(scenario, fake)
        assert sum(fake.calls.values()) == 6, "a question that failed twice is not asked again"
        run(scenario, fake, retry_failed=True)
        assert fake.calls["worse"] == 4 and sum(fake.calls.values()) == 8
    asked = [body["messages"][1]["content"] for body in fake.bodies]
    assert f"({verdict})" in [text for text in asked if "Title: bad" in text][1]


def test_reasoning_is_dropped_in_every_form(shop):
    scenario = shop(["tag", "open", "field", "channel"])
    text = GOOD.format(title="x")
    bodies = {
        "tag": completion(f"<think>secret\nthoughts</think>\n\n{text}"),
        "open": completion(f"secret thoughts</think>{text}"),
        "field": completion(text, reasoning_content="secret thoughts"),
        "channel": completion(f"<|channel|>analysis<|message|>secret<|end|><|channel|>final<|message|>{text}"),
    }
    with FakeOpenAI(lambda question, before: Answer(body=bodies[title_of(question)])) as fake:
        assert run(scenario, fake).statuses == ["ok"] * 4
    assert [record["text"] for record in records(scenario)] == [text] * 4
    assert "secret" not in (scenario.folder / "llm_cache.jsonl").read_text()


def test_a_run_that_gets_bad_answers_alone_stops_before_it_pays_for_all(shop):
    scenario = shop(TITLES * 4)
    with FakeOpenAI(lambda *_: Answer(body=BAD_ANSWERS["cut off"])) as fake:
        stop = run(scenario, fake, concurrency=4).stop
    assert stop.reason == "endpoint" and "10 cut off" in stop.message and "--max-tokens" in stop.message
    assert 20 <= sum(fake.paid.values()) <= 28


def test_a_filter_on_the_question_itself(shop):
    scenario = shop(["A", "B", "C", "D"])
    refusal = Answer(400, {"error": {"message": "content management policy", "code": "content_filter"}})
    with FakeOpenAI(lambda question, before: refusal if title_of(question) == "B" else good(question)) as fake:
        assert run(scenario, fake).statuses == ["ok", "filtered", "ok", "ok"]
    assert fake.calls["B"] == 2


def test_a_rejected_question_is_recorded_and_not_asked_again(shop):
    scenario = shop(["A", "B", "C", "D"])
    too_long = Answer(400, {"error": {"message": "context length exceeded"}})
    with FakeOpenAI(lambda question, before: too_long if title_of(question) == "A" else good(question)) as fake:
        for _ in range(2):
            statuses = run(scenario, fake).statuses
        assert statuses == ["rejected: HTTP 400: context length exceeded", "ok", "ok", "ok"]
        assert fake.calls["A"] == 1


def test_a_parameter_that_the_endpoint_rejects_poisons_no_item(shop):
    scenario = shop(TITLES)
    bad = Answer(400, {"error": {"message": "bad temperature"}})
    with FakeOpenAI(lambda *_: bad) as fake:
        for answered in (0, 3):
            with pytest.raises(Unusable, match="HTTP 400: bad temperature"):
                run(scenario, fake, concurrency=2)
            assert sum(fake.calls.values()) - answered <= 9
            assert not any(record["status"].startswith("rejected") for record in records(scenario))
            fake.calls.clear()
            fake.behave = lambda question, before: good(question)
            run(scenario, fake, limit=3)
            fake.behave = lambda *_: bad
        fake.behave = lambda question, before: good(question)
        assert run(scenario, fake).statuses == ["ok"] * 24


# Failures of the endpoint.


def test_every_kind_of_failure_in_turn_loses_nothing(shop):
    """Five kinds of failure take turns before every answer; each item still gets its text with one paid answer."""
    scenario = shop(TITLES)
    failures = [
        Answer(500, {"error": {"message": "boom"}}),
        Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}),
        Answer(body={}, drop="before"),
        Answer(503, "<html>gateway</html>"),
        Answer(529, ""),
    ]

    def behave(question, before):
        number = int(title_of(question).split()[-1])
        return failures[(number + before) % 5] if before < 2 else good(question)

    with FakeOpenAI(behave) as fake:
        outcome = run(scenario, fake)
    assert not outcome.stop.reason and outcome.statuses == ["ok"] * 24
    assert set(fake.paid.values()) == {1} and len(fake.paid) == 24
    # On a machine that is busy elsewhere a call may run into its time limit as well.
    assert outcome.progress.calls == outcome.progress.retried + 24 >= 72


def test_garbage_and_broken_bodies_are_asked_again_and_count_against_the_money(shop):
    scenario = shop(["html", "list", "half", "null", "error", "broken off"])
    bodies = {
        "html": Answer(body="<html>maintenance</html>"),
        "list": Answer(body=["no", "completion"]),
        "half": good("Title: half", usage=None),
        "null": Answer(body={"choices": None}),
        "error": Answer(body={**completion(GOOD), "error": {"message": "backend lost"}}),
        "broken off": Answer(body=completion("Attributes: a", finish="insufficient_system_resource")),
    }
    bodies["half"].drop = "middle"

    with FakeOpenAI(lambda question, before: good(question) if before else bodies[title_of(question)]) as fake:
        outcome = run(scenario, fake)
    assert outcome.statuses == ["ok"] * 6
    uncertain = [record for record in records(scenario) if record.get("uncertain")]
    assert len(uncertain) == 6 and all(0.02 < record["usd"] < 0.06 for record in uncertain), "the bound of one call"
    assert "failed: error in a reply: backend lost" in [record["status"] for record in uncertain]
    assert outcome.progress.usd == pytest.approx(sum(record["usd"] for record in records(scenario)))


def test_no_money_left_stops_at_once_also_when_a_good_status_says_so(shop):
    scenario = shop(["A", "B", "C", "D"])
    for answer in (
        Answer(402, {"error": {"message": "Insufficient Balance"}}),
        Answer(429, {"error": {"message": "quota", "code": "insufficient_quota"}}),
        Answer(200, {"error": {"message": "Insufficient credits", "code": 402}}),
    ):
        with FakeOpenAI(lambda *_, answer=answer: answer) as fake:
            with pytest.raises(Unusable, match="no money left"):
                run(scenario, fake)
            assert sum(fake.calls.values()) == 1


def test_a_silent_endpoint_times_out(shop):
    scenario = shop(["A", "B", "C", "D"])
    hold = threading.Event()

    def behave(question, before):
        return good(question) if before else dataclasses.replace(good(question), hold=hold)

    with FakeOpenAI(behave) as fake:
        outcome = run(scenario, fake, timeout=0.3)
        hold.set()
    assert outcome.statuses == ["ok"] * 4 and outcome.progress.retried >= 4
    assert set(fake.paid.values()) == {1}


def test_too_many_requests_hold_everybody_back(shop, monkeypatch):
    """Four of eight calls at once are refused for ten minutes: the other four are answered, and no call follows them."""
    monkeypatch.setattr("llmemf.features.stopping.REPORT_SECONDS", 0.01)
    scenario = shop(TITLES)
    together, refused = threading.Barrier(8), threading.Event()
    slow = Answer(429, {"error": {"message": "slow"}}, {"Retry-After": "600"})

    def behave(question, before):
        if title_of(question) == TITLES[0]:
            return good(question)
        return slow if together.wait(timeout=60) < 4 else dataclasses.replace(good(question), hold=refused)

    def on_progress(enrichment, progress):
        if progress.retried == 4:
            refused.set()
        if progress.pause > 1 and progress.ok == 5:
            enrichment.stop.request("interrupted")

    with FakeOpenAI(behave) as fake:
        outcome = run(scenario, fake, stop_when=on_progress)
        assert outcome.stop.reason == "interrupted"
        assert sum(fake.calls.values()) == 9 and sum(fake.paid.values()) == 5
        fake.behave = lambda question, before: good(question)
        assert run(scenario, fake).statuses == ["ok"] * 24
    assert set(fake.paid.values()) == {1}


def test_an_endpoint_that_dies_ends_the_run_and_the_next_one_finishes_it(shop):
    scenario = shop(TITLES)
    with FakeOpenAI(lambda question, before: good(question) if len(fake.times) <= 9 else Answer(500, "dead")) as fake:
        outcome = run(scenario, fake)
        assert outcome.stop.reason == "endpoint"
        assert fake.url in outcome.stop.message and "HTTP 500" in outcome.stop.message
        assert outcome.statuses.count("ok") == 9 and outcome.progress.done < 24
        fake.behave = lambda question, before: good(question)
        outcome = run(scenario, fake)
    assert not outcome.stop.reason and outcome.statuses == ["ok"] * 24
    assert set(fake.paid.values()) == {1} and len(fake.paid) == 24


def test_nobody_at_the_address(shop):
    scenario = shop(["A", "B", "C", "D"])
    with FakeOpenAI() as fake:
        pass
    outcome = run(scenario, fake)
    assert outcome.stop.reason == "endpoint" and "no connection" in outcome.stop.message
    assert all(status in ("", "failed: no connection") for status in outcome.statuses)
    assert outcome.usd == 0.0


# Money.


def test_a_budget_is_kept_to_the_last_cent(shop):
    """The bound of a call is far higher than its cost, so the run must settle calls before it starts new ones."""
    scenario = shop(TITLES)
    bound = max(bounds(scenario).values())
    budget = bound + 10.5 * ANSWER_USD
    with FakeOpenAI(lambda question, before: dataclasses.replace(good(question), delay=0.002)) as fake:
        outcome = run(scenario, fake, budget=budget)
        assert outcome.stop.reason == "budget" and outcome.progress.usd <= budget
        paid = sum(fake.paid.values())
        assert paid * ANSWER_USD + bound > budget - ANSWER_USD and paid >= 10, "it stops when one more might exceed it"
        outcome = run(scenario, fake, budget=budget)
        assert outcome.stop.reason == "budget" and sum(fake.paid.values()) == paid, "earlier runs count"
        outcome = run(scenario, fake, budget=10.0)
        assert not outcome.stop.reason and outcome.statuses == ["ok"] * 24
    assert set(fake.paid.values()) == {1}


@pytest.mark.parametrize("usage", [None, (0, 50), (-1000, 50), (100, -50), (100, None), ("100", "50"), (True, 1.5)])
def test_tokens_that_are_missing_or_cannot_be_true_cost_the_bound(shop, usage):
    scenario = shop(["A", "B", "C", "D"])
    budget = 2.5 * max(bounds(scenario).values())
    with FakeOpenAI(lambda question, before: good(question, usage=usage)) as fake:
        outcome = run(scenario, fake, budget=budget)
    assert outcome.stop.reason == "budget" and sum(fake.paid.values()) == 2
    assert outcome.usd <= budget
    for record in records(scenario):
        assert record["uncertain"] and record["usd"] == pytest.approx(bounds(scenario)[record["key"]])
    assert len(outcome.messages) == 1, "the user is warned once"


def test_calls_that_may_have_been_billed_never_exceed_a_budget_together(shop):
    """Every answer breaks off in the middle: each of the repeated calls is counted."""
    scenario = shop(TITLES)
    budget = 7.5 * max(bounds(scenario).values())
    with FakeOpenAI(lambda question, before: dataclasses.replace(good(question), drop="middle")) as fake:
        outcome = run(scenario, fake, budget=budget)
    assert outcome.stop.reason == "budget" and outcome.usd <= budget
    assert sum(record.get("usd", 0) > 0 for record in records(scenario)) == sum(fake.calls.values()) == 7


# Interruptions; test_enrich_processes.py kills real processes.


def test_a_stop_waits_for_what_is_paid_and_the_next_run_asks_the_rest(shop):
    scenario = shop(TITLES)

    def stop_when(enrichment, progress):
        if progress.done >= 5:
            enrichment.stop.request("interrupted")

    with FakeOpenAI(lambda question, before: dataclasses.replace(good(question), delay=0.01)) as fake:
        outcome = run(scenario, fake, concurrency=4, stop_when=stop_when)
        assert outcome.stop.reason == "interrupted"
        assert 5 <= len(records(scenario)) == sum(fake.paid.values()) <= 9
        run(scenario, fake)
    assert set(fake.paid.values()) == {1} and len(fake.paid) == 24


def test_a_stop_ends_a_long_pause_at_once(shop, monkeypatch):
    monkeypatch.setattr("llmemf.features.stopping.REPORT_SECONDS", 0.01)
    scenario = shop(["A", "B", "C", "D"])
    slow = Answer(429, {"error": {"message": "slow"}}, {"Retry-After": "600"})
    with FakeOpenAI(lambda *_: slow) as fake:
        outcome = run(
            scenario, fake, stop_when=lambda run, progress: progress.pause > 1 and run.stop.request("interrupted")
        )
    assert outcome.stop.reason == "interrupted" and sum(fake.calls.values()) == 1
    assert records(scenario) == [], "the question is open as before"


def test_wherever_a_kill_cuts_the_log_the_rest_is_asked_and_no_more(shop):
    """The log is cut at random bytes: the questions of whole lines are never asked again, all others are."""
    scenario = shop(TITLES[:8])
    path = scenario.folder / "llm_cache.jsonl"
    with FakeOpenAI() as fake:
        run(scenario, fake)
    content = path.read_bytes()
    plan = plan_of(scenario)
    for cut in random.Random(0).sample(range(len(content)), 4):
        path.write_bytes(content[:cut])
        known = {record["key"] for record in records(scenario)}
        with FakeOpenAI() as fake:
            assert run(scenario, fake).statuses == ["ok"] * 8
        assert set(fake.paid) == {title for title, key in zip(TITLES, plan.keys) if key not in known}
        assert set(fake.paid.values()) == {1}


def test_a_full_disk_stops_the_run_and_leaves_whole_lines(shop, monkeypatch):
    scenario = shop(TITLES)
    writes = []
    real = os.write

    def write(descriptor, data):
        writes.append(1)
        if len(writes) == 5:
            real(descriptor, bytes(data)[:10])
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with FakeOpenAI() as fake:
        with monkeypatch.context() as patch:
            patch.setattr("llmemf.io.os.write", write)
            with pytest.raises(StorageError, match="llm_cache.jsonl") as error:
                run(scenario, fake, concurrency=1)
            assert error.value.errno == 28
        assert len(records(scenario)) == 4
        assert run(scenario, fake).statuses == ["ok"] * 24


def test_the_run_works_off_the_main_thread_too(shop):
    scenario = shop(["A", "B", "C", "D"])
    outcomes = []
    with FakeOpenAI() as fake:
        thread = threading.Thread(target=lambda: outcomes.append(run(scenario, fake)))
        thread.start()
        thread.join()
    assert outcomes[0].statuses == ["ok"] * 4


def test_a_key_without_rights_ends_the_run_after_one_call(shop):
    scenario = shop(TITLES)
    forbidden = Answer(403, {"error": {"message": "no access"}})
    with FakeOpenAI(lambda *_: forbidden) as fake, pytest.raises(InputError, match="HTTP 403"):
        run(scenario, fake)
    assert sum(fake.calls.values()) == 1
