"""A small OpenAI-compatible server over real HTTP that answers, stalls, refuses, breaks off and counts what it did.

A behaviour is a function from (question, how often it was asked before) to a `Answer`. Counts of answers that were
sent completely with status 200 are kept per question: that is what a provider would bill.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

KEY = "sk-test-0123456789abcdef"

GOOD = (
    "Attributes: a warm drama in which the hero and the town find peace. Keywords: family, sea, hope, winter, ship, "
    "storm, love, war. Summary: This is a story of {title} and of the people in it. Potential users: readers who like "
    "the sea and films with a slow pace."
)


@dataclass
class Answer:
    """What the server does with one call.

    Attributes:
        status, body, headers: of the response; a body that is no string is sent as JSON.
        delay: seconds before it answers; a client that has gone away meanwhile is not answered and not counted.
        hold: an event that it waits for first, with the same condition.
        drop: "" | "before" (close without a byte) | "middle" (close in the middle of the body).
    """

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hold: threading.Event | None = None
    drop: str = ""


def completion(
    text: str | None, *, finish: str = "stop", usage: tuple[object, object] | None = (100, 50), **message
) -> dict[str, object]:
    """A chat completion; `usage` holds the tokens of the prompt and of the answer, None leaves them out."""
    body = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return body


def good(question: str, **changes) -> Answer:
    """A usable answer about the question's item."""
    return Answer(body=completion(GOOD.format(title=title_of(question)), **changes))


def title_of(question: str) -> str:
    return re.search(r"Title: (.*)", question)[1]


class FakeOpenAI:
    """The server; use it as a context manager.

    Attributes:
        behave: decides about every call of the chat interface.
        calls: calls per title; paid: complete answers with status 200 per title.
        most_at_once: the most calls that were under way together.
        bodies: every request as it came.
    """

    def __init__(self, behave: Callable[[str, int], Answer] = lambda question, before: good(question)) -> None:
        self.behave = behave
        self.calls: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.times: list[tuple[float, str]] = []
        self.bodies: list[dict] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        fake = self

        class Handler(_Handler):
            server_state = fake

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: FakeOpenAI
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, answer: Answer) -> bool:
        """Send an answer; whether the client has got all of it."""
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        data = body.encode()
        if answer.drop == "before":
            self.close_connection = True
            return False
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.drop == "middle":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return False
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return False
        return True

    def _client_is_there(self) -> bool:
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1, 2) != b""  # 2 is MSG_PEEK
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.connection.setblocking(True)

    def _authorised(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {KEY}":
            return True
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self._send(
            Answer(401, {"error": {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}})
        )
        return False

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._authorised():
            return
        if self.path == "/v1/chat/completions":
            self._chat(json.loads(data))
        else:
            self._send(Answer(404, {"error": {"message": "no such route"}}))

    def _chat(self, body: dict) -> None:
        state = self.server_state
        question = body["messages"][1]["content"]
        title = title_of(question)
        with state.lock:
            before = state.calls[title]
            state.calls[title] += 1
            state.times.append((time.monotonic(), title))
            state.bodies.append(body)
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
        try:
            answer = state.behave(question, before)
            if answer.delay or answer.hold:
                if answer.hold:
                    answer.hold.wait(30)
                time.sleep(answer.delay)
                if not self._client_is_there():
                    self.close_connection = True
                    return
            if self._send(answer) and answer.status == 200:
                with state.lock:
                    state.paid[title] += 1
        finally:
            with state.lock:
                state.at_once -= 1
