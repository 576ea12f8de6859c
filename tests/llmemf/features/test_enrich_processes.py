"""Real processes of `features enrich` that are killed and interrupted: nothing that was paid for is lost or asked again."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from fake_openai import FakeOpenAI, good
from llm_shop import TITLES, plan_of, records, run

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "llmemf", "features", "enrich", "shop", "--model", "m", "--concurrency", "4"]


def start(fake, *options):
    return subprocess.Popen(
        [*COMMAND, "--base-url", fake.url, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_a_run_killed_while_the_endpoint_is_slow_pays_nothing_twice(shop):
    """Six answers arrive, then every call hangs; the kill breaks those off, and the next run asks exactly for the rest."""
    scenario = shop(TITLES)
    hold = threading.Event()

    def behave(question, before):
        return good(question) if len(fake.times) <= 6 else dataclasses.replace(good(question), hold=hold)

    with FakeOpenAI(behave) as fake:
        child = start(fake)
        wait_for(lambda: len(records(scenario)) == 6 and fake.at_once == 4)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        hold.set()
        wait_for(lambda: fake.at_once == 0)
        # A kill can also come in the middle of a line.
        with (scenario.folder / "llm_cache.jsonl").open("a") as file:
            file.write('{"key": "abc", "status": "ok", "te')
        fake.behave = lambda question, before: good(question)
        outcome = run(scenario, fake)
    assert outcome.statuses == ["ok"] * 24 and outcome.progress.total == 18
    assert set(fake.paid.values()) == {1} and len(fake.paid) == 24
    assert sum(fake.calls.values()) == 28, "only the four that hung were called again"


def test_a_run_killed_at_any_moment_repeats_nothing_that_was_written(shop):
    """Answers keep arriving while the kill falls: what is in the cache then is never asked again."""
    scenario = shop(TITLES)
    with FakeOpenAI(lambda question, before: dataclasses.replace(good(question), delay=0.03)) as fake:
        child = start(fake)
        wait_for(lambda: len(records(scenario)) >= 10)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        wait_for(lambda: fake.at_once == 0)
        calls, known = fake.calls.copy(), {record["key"] for record in records(scenario)}
        outcome = run(scenario, fake)
    assert outcome.statuses == ["ok"] * 24 and outcome.progress.total == 24 - len(known)
    plan = plan_of(scenario)
    repeated = [title for title, key in zip(TITLES, plan.keys) if fake.calls[title] > calls[title] and key in known]
    assert not repeated
    assert sum(fake.paid.values()) - 24 <= 4, "at most the answers that had arrived but were not yet written"


def test_ctrl_c_waits_for_what_is_paid_and_the_next_run_asks_the_rest(shop):
    scenario = shop(TITLES)
    with FakeOpenAI(lambda question, before: dataclasses.replace(good(question), delay=0.2)) as fake:
        child = start(fake)
        wait_for(lambda: len(records(scenario)) >= 5)
        child.send_signal(signal.SIGINT)
        printed, errors = child.communicate(timeout=60)
        assert child.returncode == 130 and not errors
        assert "stopping after 4 answers" in printed
        paid = sum(fake.paid.values())
        assert len(records(scenario)) == paid < 24
        assert (pd.read_parquet(scenario.folder / "llm_text.parquet").status == "ok").sum() == paid
        run(scenario, fake)
    assert set(fake.paid.values()) == {1} and len(fake.paid) == 24


def test_a_second_ctrl_c_leaves_at_once_and_counts_what_may_have_been_billed(shop):
    scenario = shop(TITLES)
    hold = threading.Event()

    def behave(question, before):
        return good(question) if len(fake.times) <= 2 else dataclasses.replace(good(question), hold=hold)

    with FakeOpenAI(behave) as fake:
        child = start(fake, "--price-in", "10", "--price-out", "100", "--max-tokens", "200")
        wait_for(lambda: len(records(scenario)) == 2 and fake.at_once == 4)
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        hold.set()
    assert child.returncode == 130 and not errors
    assert [record["status"] for record in records(scenario)] == ["ok"] * 2 + ["failed: interrupted"] * 4
    assert all(record["usd"] > 0.02 for record in records(scenario)[2:])
