"""What an endpoint's replies and failures are taken for."""

from __future__ import annotations

import asyncio
import email.utils
import time

import pytest
from fake_openai import KEY, Answer, FakeOpenAI, completion

from llmemf.errors import InputError
from llmemf.features.llm_endpoint import (
    DEEPSEEK_URL,
    OPENAI_URL,
    Endpoint,
    Filtered,
    Rejected,
    Reply,
    Transient,
    Unusable,
    check_address,
)


def ask(answer: Answer) -> Reply:
    """One call that gets this answer."""
    with FakeOpenAI(lambda question, before: answer) as fake:
        endpoint = Endpoint(base_url=fake.url, model="m", key=KEY, timeout=5.0)

        async def one():
            async with endpoint.client() as client:
                return await endpoint.ask(client, "Title: A")

        return asyncio.run(one())


def test_a_reply():
    reply = ask(Answer(body=completion("A", reasoning="hm")))
    assert reply == Reply("A", "stop", None, (100, 50), "hm")


@pytest.mark.parametrize(
    ("answer", "kind", "billed"),
    [
        (Answer(500), Transient, False),
        (Answer(429), Transient, False),
        (Answer(401), Unusable, None),
        (Answer(403), Unusable, None),
        (Answer(404), Unusable, None),
        (Answer(429, {"error": {"code": "insufficient_quota"}}), Unusable, None),
        (Answer(400, {"error": {"code": "content_filter"}}), Filtered, None),
        (Answer(400, {"error": {"message": "too long"}}), Rejected, None),
        (Answer(200, {"error": {"message": "lost", "code": 502}}), Transient, True),
        (Answer(200, {"error": {"message": "slow", "code": 429}}), Transient, False),
        (Answer(200, {"error": {"message": "who", "code": 401}}), Unusable, None),
        (Answer(200, {"error": {"message": "long", "code": "400"}}), Rejected, None),
        (Answer(200, {"error": "lost"}), Transient, True),
        (Answer(200, {"error": {"code": 1302}, **completion("A")}), Transient, True),
        (Answer(200, completion("A", finish="error")), Transient, True),
        (Answer(200, completion(["A"])), Transient, True),
        (Answer(200, "<html>"), Transient, True),
        (Answer(200, completion("A"), drop="middle"), Transient, True),
    ],
)
def test_kinds_of_failure(answer, kind, billed):
    with pytest.raises(kind) as error:
        ask(answer)
    assert type(error.value) is kind and (billed is None or error.value.billed is billed)


def test_an_empty_error_field_is_no_error():
    assert ask(Answer(body={**completion("A"), "error": None})).content == "A"


def test_retry_after_in_seconds_and_as_a_date():
    for value, low, high in (("7", 7, 7), (email.utils.formatdate(time.time() + 100, usegmt=True), 80, 100)):
        with pytest.raises(Transient) as error:
            ask(Answer(429, headers={"Retry-After": value}))
        assert error.value.limited and low <= error.value.wait <= high
    with pytest.raises(Transient) as error:
        ask(Answer(503, headers={"retry-after-ms": "1500"}))
    assert error.value.wait == 1.5


def test_the_key_is_taken_out_of_messages():
    with pytest.raises(Rejected) as error:
        ask(Answer(400, {"error": {"message": f"{KEY} or sk-abcdef123 or Bearer xyz\nare \ud800 bad"}}))
    assert str(error.value) == "HTTP 400: *** or *** or Bearer *** are ? bad"
    assert KEY not in repr(Endpoint(base_url="http://h", model="m", key=KEY))


def test_addresses():
    assert check_address("https://h/v1/", "m") == "https://h/v1"
    assert check_address("", "gpt") == OPENAI_URL
    with pytest.raises(InputError, match=DEEPSEEK_URL):
        check_address("", "deepseek-chat")
    for address in ("h:80", "ftp://h", "http://", "http://h:0/", "http://h:x/", "http://127.0.0.1:99999/v1"):
        with pytest.raises(InputError) as error:
            check_address(address, "m", "OPENAI_BASE_URL")
        assert f"OPENAI_BASE_URL {address!r}" in str(error.value)
    with pytest.raises(InputError) as error:
        check_address("http://me:secret@h:99999/v1", "m")
    assert "secret" not in str(error.value)
