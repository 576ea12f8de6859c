"""The endpoint of a language model, or the disk below its answers, fails at every operation, once or for ever: nothing is lost, and
nothing is paid twice but what the disk did not take.
"""

from __future__ import annotations

import dataclasses

import pytest
from durable_events import ERRORS, Recorder, fails_at
from fake_openai import Answer, FakeOpenAI, good
from llm_shop import records, run, write_shop

from llmemf.errors import StorageError

TITLES = ["A", "B", "C", "D"]
FAULTS = {
    "HTTP 429": Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}),
    "HTTP 500": Answer(500, {"error": {"message": "boom"}}),
    "timeout": dataclasses.replace(good("Title: late"), delay=3.0),
}
SECONDS = {"timeout": 1.0}
"""How long a run waits for an answer."""
QUICK = ["HTTP 429", "HTTP 500", pytest.param("timeout", marks=pytest.mark.slow)]


@pytest.mark.parametrize("fault", QUICK)
@pytest.mark.parametrize("number", range(1, len(TITLES) + 1))
def test_an_endpoint_that_fails_once_at_any_request_is_asked_again(quick_folder, fault, number):
    scenario = write_shop(quick_folder, TITLES)
    with FakeOpenAI(lambda question, before: FAULTS[fault] if len(fake.times) == number else good(question)) as fake:
        outcome = run(scenario, fake, concurrency=1, timeout=SECONDS.get(fault, 5.0))
    assert not outcome.stop.reason and outcome.statuses == ["ok"] * len(TITLES)
    assert fake.paid == dict.fromkeys(TITLES, 1) and sum(fake.calls.values()) == len(TITLES) + 1


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    "fault", ["HTTP 500", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("HTTP 429", "timeout"))]
)
def test_an_endpoint_that_fails_for_ever_leaves_what_the_next_run_completes(quick_folder, fault, number):
    scenario = write_shop(quick_folder, TITLES)
    with FakeOpenAI(lambda question, before: FAULTS[fault] if len(fake.times) >= number else good(question)) as fake:
        first = run(scenario, fake, concurrency=1, timeout=SECONDS.get(fault, 5.0))
        others = [status for status in first.statuses if status != "ok"]
        assert len(others) == len(TITLES) - number + 1 and all(s == "" or s.startswith("failed") for s in others)
        fake.behave = lambda question, before: good(question)
        assert run(scenario, fake, concurrency=1).statuses == ["ok"] * len(TITLES)
    assert fake.paid == dict.fromkeys(TITLES, 1)


@pytest.mark.parametrize("for_ever", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "for ever"])
def test_a_disk_that_is_full_at_any_operation_costs_one_answer_at_most(quick_folder, for_ever):
    failed = 0
    for number in range(1, 40):
        scenario = write_shop(quick_folder / str(number), TITLES)
        fails = (lambda n, number=number: n >= number) if for_ever else (lambda n, number=number: n == number)
        raised = None
        with FakeOpenAI() as fake:
            with Recorder(scenario.folder, fails_at(fails, ERRORS["ENOSPC"]), disk=False) as recorder:
                try:
                    run(scenario, fake, concurrency=1)
                except StorageError as error:
                    raised = error
            kept = {record["key"] for record in records(scenario)}
            assert run(scenario, fake, concurrency=1).statuses == ["ok"] * len(TITLES)
        assert kept <= {record["key"] for record in records(scenario)}
        assert len(fake.paid) == len(TITLES) and sum(fake.paid.values()) <= len(TITLES) + 1
        if len(recorder.events) < number:
            break
        assert raised and raised.errno == ERRORS["ENOSPC"] and "llm_cache.jsonl" in str(raised), recorder.events[
            number - 1
        ]
        failed += 1
    assert failed > len(TITLES), "every answer is written and flushed"
