"""One OpenAI-compatible endpoint: a question in, a reply or one of four kinds of failure out.

The key is handed to the client and nowhere else. Messages of the endpoint are shown only after everything that looks
like a key has been taken out of them, and those that come with a refused key are not shown at all: some endpoints
repeat the key there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from llmemf.errors import InputError
from llmemf.features.prompts import messages
from llmemf.features.retries import RequestFailed, retry_after

if TYPE_CHECKING:
    import openai

DEEPSEEK_URL = "https://api.deepseek.com"
OPENAI_URL = "https://api.openai.com/v1"
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")
BROKEN_OFF = ("error", "insufficient_system_resource")
"""Finish reasons of an answer that the endpoint broke off by its own fault."""


class Unusable(InputError):
    """The endpoint will answer no question: wrong key, unknown model, no money left. The run stops."""


class Rejected(Exception):
    """The endpoint will not answer this question, however often it is asked."""


class Filtered(Exception):
    """The endpoint's content filter refused the question itself."""


class Transient(RequestFailed):
    """The call failed, and the same call may succeed later."""

    def __init__(self, reason: str, **facts: Any) -> None:
        super().__init__(reason, transient=True, **facts)


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered.

    Attributes:
        content, finish_reason, refusal: as they came.
        tokens: of the prompt and of the answer as the endpoint counted them; None where it does not say, or where its
            numbers cannot be true.
        reasoning: the reasoning where it has a field of its own, else "".
    """

    content: str | None
    finish_reason: str | None
    refusal: str | None
    tokens: tuple[int, int] | None
    reasoning: str = ""


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
        source = "--base-url" if base_url else "OPENAI_BASE_URL"
        address = check_address(base_url or os.environ.get("OPENAI_BASE_URL", "").strip(), model, source)
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

    def client(self) -> openai.AsyncOpenAI:
        """A client that makes one call per call: a budget must see every call that may be billed, also a repeated one."""
        import openai

        return openai.AsyncOpenAI(
            api_key=self.key, base_url=self.base_url, max_retries=0, timeout=openai.Timeout(self.timeout, connect=15.0)
        )

    async def ask(self, client: openai.AsyncOpenAI, question: str) -> Reply:
        """One call.

        Raises:
            Unusable, Rejected, Filtered, Transient: see there.
        """
        import openai

        body: dict[str, Any] = {"model": self.model, "messages": messages(question)}
        if self.max_tokens:
            body[self.token_parameter] = self.max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        try:
            async with asyncio.timeout(self.timeout):
                raw = await client.chat.completions.with_raw_response.create(**body)
        except TimeoutError:
            raise Transient(f"no answer within {self.timeout:g} s", billed=True) from None
        except openai.APIStatusError as error:
            raise self._failure(error.status_code, error.body, error.response.headers) from None
        except openai.APIConnectionError as error:
            raise _connection_failure(error) from None
        return self._reply(raw.http_response.text)

    def _reply(self, text: str) -> Reply:
        """Read a chat completion.

        Raises:
            Unusable, Rejected, Filtered, Transient: it is none, or it holds an error.
        """
        try:
            body = json.loads(text)
            if body.get("error"):
                raise self._failure(200, body["error"], {})
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
            if not isinstance(content, str | None) or not isinstance(refusal, str | None):
                raise TypeError
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
            finish_reason = choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise Transient("the answer was no chat completion", billed=True) from None
        if finish_reason in BROKEN_OFF:
            raise Transient("the endpoint broke the answer off", billed=True)
        return Reply(content, finish_reason, refusal, _tokens(body.get("usage")), str(reasoning))

    def _failure(self, status: int, error: object, headers: Mapping[str, str]) -> Exception:
        """Which kind of failure an HTTP status with its message is; an error in a reply of status 200 names its own."""
        if isinstance(error, dict) and isinstance(error.get("error"), dict | str):
            error = error["error"]
        facts = error if isinstance(error, dict) else {"message": error}
        code = str(facts.get("code") or facts.get("type") or "")
        in_reply = status == 200
        if in_reply and re.fullmatch("[45][0-9][0-9]", code):
            status = int(code)
        where = f"endpoint {self.host} (HTTP {status})"
        said = self._redact(str(facts.get("message") or error or "no further message"))
        if status == 401:
            return Unusable(f"{where} does not accept the key: check the variable that holds it, and --base-url")
        if status == 402 or code in NO_MONEY:
            return Unusable(f"{where} says that there is no money left: {said}")
        if status == 404:
            return Unusable(
                f"{where} does not know model {self.model!r}, or {self.base_url} is not the address of its interface "
                f"(it often ends in /v1): {said}"
            )
        if "content_filter" in code or "content management policy" in said.lower():
            return Filtered(said)
        if status == 403:
            return Unusable(f"{where} forbids this: {said}")
        if status == 429:
            return Transient("too many requests", limited=True, wait=retry_after(headers))
        if status in (200, 408, 409, 425) or status >= 500:
            reason = f"error in a reply: {said}" if in_reply else f"HTTP {status}"
            return Transient(reason, billed=in_reply, wait=retry_after(headers))
        return Rejected(f"HTTP {status}: {said}")

    def _redact(self, text: str) -> str:
        """A message of the endpoint, on one line, without anything that looks like a key."""
        text = " ".join(text.replace(self.key, "***").split())
        text = re.sub(r"\b(?:sk|pk|rk|key|gsk|xai|hf)[-_][\w*-]{4,}", "***", text)
        text = re.sub(r"(?i)bearer\s+\S+", "Bearer ***", text)
        return text[:300].encode("utf-8", "replace").decode()


def check_address(base_url: str, model: str, source: str = "--base-url") -> str:
    """The address to use; a DeepSeek model never sends its key to the default address of another provider.

    Args:
        source: where `base_url` comes from, for messages.

    Raises:
        InputError: no address for a model that is not OpenAI's, or something that is no address.
    """
    if not base_url:
        if "deepseek" not in model.lower():
            return OPENAI_URL
        raise InputError(
            f"where is {model!r}? Give --base-url {DEEPSEEK_URL}, or the address of another OpenAI-compatible endpoint "
            "(or set OPENAI_BASE_URL)"
        )
    try:
        parts = urlsplit(base_url)
        if parts.username or parts.password or parts.query:
            raise InputError(
                f"{source}: leave user name, password and query out; the key goes into --key-env's variable"
            )
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", base_url):
        raise InputError(f"{source} {base_url!r}: an address like {DEEPSEEK_URL} is needed")
    return base_url.rstrip("/")


def _tokens(usage: object) -> tuple[int, int] | None:
    """Tokens of prompt and answer, None where a number is missing or cannot be true."""
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    # JSON's true would pass for the number 1; no prompt takes no token.
    if type(prompt) is not int or type(completion) is not int or prompt < 1 or completion < 0:
        return None
    return prompt, completion


def _connection_failure(error: openai.APIConnectionError) -> Transient:
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
