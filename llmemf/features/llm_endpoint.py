"""One OpenAI-compatible endpoint: a question in, a reply or one of four kinds of failure out.

The key is handed to the client and nowhere else. Messages of the endpoint are shown only after everything that looks
like a key has been taken out of them, and those that come with a refused key are not shown at all: some endpoints
repeat the key there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from llmemf.errors import InputError
from llmemf.features.llm_cost import approximate_tokens
from llmemf.features.pace import retry_after
from llmemf.features.prompts import messages

DEFAULT_MODEL = "deepseek-reasoner"
DEEPSEEK_URL = "https://api.deepseek.com"
OPENAI_URL = "https://api.openai.com/v1"


class Unusable(InputError):
    """The endpoint will answer no question: wrong key, unknown model, no money left. The run stops."""


class Rejected(Exception):
    """The endpoint will not answer this question, however often it is asked."""


class Filtered(Exception):
    """The endpoint's content filter refused the question itself."""


class Transient(Exception):
    """The call failed and may work later.

    Attributes:
        limited: the endpoint said "too many requests".
        wait: seconds that it asks to wait, None if it does not say.
        billed: whether the call may have been billed although nothing usable came back.
    """

    def __init__(self, reason: str, *, limited: bool = False, wait: float | None = None, billed: bool = False) -> None:
        super().__init__(reason)
        self.limited = limited
        self.wait = wait
        self.billed = billed


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered; token counts are its own, or approximated where it gives none."""

    content: str | None
    finish_reason: str | None
    refusal: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        base_url: address of the interface, without user name, password, query.
        model: as the endpoint names it.
        key: secret; never part of a representation.
        max_tokens: limit of completion tokens that is sent; 0 sends none.
        token_parameter: its name, "max_tokens" or "max_completion_tokens".
        temperature: None sends none.
        timeout: seconds for one call in all.
    """

    base_url: str
    model: str
    key: str = field(repr=False)
    max_tokens: int = 4000
    token_parameter: str = "max_tokens"
    temperature: float | None = 0.0
    timeout: float = 600.0

    @classmethod
    def from_environment(cls, *, base_url: str | None, model: str, key_env: str, **settings: Any) -> Self:
        """Read key and, where no address is given, OPENAI_BASE_URL from the environment.

        Raises:
            InputError: no key, no usable address.
        """
        key = os.environ.get(key_env, "").strip()
        address = check_address(base_url or os.environ.get("OPENAI_BASE_URL", "").strip(), model)
        if not key:
            raise InputError(
                f"no key: set the environment variable {key_env}, or name another one with --key-env (an endpoint "
                "that needs no key takes any value)"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"the key in {key_env} holds characters that no key has; copy it again")
        return cls(base_url=address, model=model, key=key, **settings)

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc

    @property
    def in_the_clear(self) -> bool:
        """Whether the key leaves this machine unencrypted."""
        parts = urlsplit(self.base_url)
        return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")

    def body(self, question: str) -> dict[str, Any]:
        """The request of one question, as chat completions take it."""
        body: dict[str, Any] = {"model": self.model, "messages": messages(question)}
        if self.max_tokens:
            body[self.token_parameter] = self.max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        return body

    def client(self):
        """An `openai.AsyncOpenAI` that makes one call per call: its own retries are off."""
        import openai

        return openai.AsyncOpenAI(
            api_key=self.key, base_url=self.base_url, max_retries=0, timeout=openai.Timeout(self.timeout, connect=15.0)
        )

    async def ask(self, client, question: str) -> Reply:
        """One call.

        Raises:
            Unusable, Rejected, Filtered, Transient: see there.
        """
        import asyncio

        import openai

        try:
            async with asyncio.timeout(self.timeout):
                raw = await client.chat.completions.with_raw_response.create(**self.body(question))
        except TimeoutError:
            raise Transient(f"no answer within {self.timeout:g} s", billed=True) from None
        except openai.APIError as error:
            raise self.failure(error) from None
        return parse_reply(raw.http_response.text, question)

    def failure(self, error: Exception) -> Exception:
        """Which kind of failure an exception of the client is."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self.status_failure(error.status_code, error.body, error.response.headers)
        if isinstance(error, openai.APIConnectionError):
            return _connection_failure(error)
        return Transient("the answer was no JSON", billed=True)

    def status_failure(self, status: int, body: object, headers: Mapping[str, str]) -> Exception:
        """Which kind of failure an HTTP status with its message is."""
        code = str(body.get("code") or body.get("type") or "") if isinstance(body, dict) else ""
        where = f"endpoint {self.host} (HTTP {status})"
        said = self.redact(_message(body))
        if status == 401:
            return Unusable(f"{where} does not accept the key: check the variable that holds it, and --base-url")
        if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"):
            return Unusable(f"{where} says that there is no money left: {said}")
        if status == 404:
            return Unusable(
                f"{where} does not know model {self.model!r}, or {self.base_url} is not the address of its interface "
                f"(it often ends in /v1): {said}"
            )
        if code == "content_filter" or "content_filter" in code or "content management policy" in said.lower():
            return Filtered(said)
        if status == 403:
            return Unusable(f"{where} forbids this: {said}")
        if status == 429:
            return Transient("too many requests", limited=True, wait=retry_after(headers))
        if status in (408, 409, 425) or status >= 500:
            return Transient(f"HTTP {status}", wait=retry_after(headers))
        return Rejected(f"HTTP {status}: {said}")

    def redact(self, text: str) -> str:
        """A message of the endpoint, on one line, without anything that looks like a key."""
        text = " ".join(text.replace(self.key, "***").split())
        text = re.sub(r"\b(?:sk|pk|rk|key|gsk|xai|hf)[-_][\w*-]{4,}", "***", text)
        text = re.sub(r"(?i)bearer\s+\S+", "Bearer ***", text)
        return text[:300]


def check_address(base_url: str, model: str) -> str:
    """The address to use; a DeepSeek model never sends its key to the default address of another provider.

    Raises:
        InputError: no address for a model that is not OpenAI's, or something that is no address.
    """
    if not base_url:
        if "deepseek" in model.lower():
            raise InputError(
                f"where is {model!r}? Give --base-url {DEEPSEEK_URL}, or the address of another OpenAI-compatible "
                "endpoint (or set OPENAI_BASE_URL)"
            )
        return OPENAI_URL
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--base-url {base_url!r}: an address like {DEEPSEEK_URL} is needed")
    if parts.username or parts.password or parts.query:
        raise InputError("--base-url: leave user name, password and query out; the key goes into --key-env's variable")
    return base_url.rstrip("/")


def parse_reply(text: str, question: str) -> Reply:
    """Read a chat completion.

    Raises:
        Transient: it is none, or the endpoint broke off on its side.
    """
    try:
        content = json.loads(text)
        choice = content["choices"][0]
        message = choice["message"]
        answer, refusal = message.get("content"), message.get("refusal")
        if not isinstance(answer, str | None) or not isinstance(refusal, str | None):
            raise TypeError
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise Transient("the answer was no chat completion", billed=True) from None
    if choice.get("finish_reason") == "insufficient_system_resource":
        raise Transient("the endpoint ran out of resources", billed=True)
    usage = content.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt_tokens, int):
        prompt_tokens = approximate_tokens(messages(question)[0]["content"] + question)
    if not isinstance(completion_tokens, int):
        completion_tokens = approximate_tokens((answer or "") + str(reasoning))
    return Reply(answer, choice.get("finish_reason"), refusal, prompt_tokens, completion_tokens)


def _connection_failure(error: Exception) -> Transient:
    """A failed connection; only what failed before the question was sent is surely not billed."""
    import httpx2
    import openai

    cause = error.__cause__
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Transient("no connection in time")
    if isinstance(cause, httpx2.ConnectError):
        return Transient("no connection")
    if isinstance(error, openai.APITimeoutError):
        return Transient("no answer in time", billed=True)
    return Transient("the connection broke", billed=True)


def _message(body: object) -> str:
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        return str(message or body)
    return str(body or "no further message")
