"""The report of a sweep as a page on this machine that follows the sweep while it runs; it reads files and nothing else."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llmemf.errors import InputError
from llmemf.pages.page import as_html
from sweeps.reporting.conclusions import Conclusions
from sweeps.reporting.content import report_page
from sweeps.reporting.gather import gather
from sweeps.reporting.tracked import Tracked, find_runs
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.references import FILE as REFERENCES
from sweeps.state.sweep_record import RECORD, SweepRecord

SECONDS = 3
"""After so long a page asks again whether there is something new."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class LivePage:
    """The page of a sweep, drawn anew when its files have changed.

    Args:
        record: of the sweep.

    Attributes:
        tag: what tells this page from an earlier one.
    """

    def __init__(self, record: SweepRecord) -> None:
        self.folder = record.folder
        self.tag = ""
        self._page = b""
        self._seen: object = None
        self._drawing = threading.Lock()
        self._tracked: Tracked | None = None

    def draw(self) -> bytes:
        """The page as it is now.

        Raises:
            InputError: the sweep's files are damaged.
        """
        with self._drawing:
            paths = [self.folder / name for name in (EVENT_LOG, RECORD, REFERENCES)]
            seen = [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()]
            if seen != self._seen:
                record = SweepRecord.load(self.folder)
                if self._tracked is None or not self._tracked.run:
                    self._tracked = find_runs(record)
                found = Conclusions(gather(record), self._tracked, None, is_live=True)
                self._page = as_html(report_page(found), live=SECONDS).encode()
                self.tag = f'"{hashlib.sha256(self._page).hexdigest()[:16]}"'
                self._seen = seen
            return self._page


def make_server(record: SweepRecord, host: str, port: int) -> ThreadingHTTPServer:
    """A server that answers at once with the page of a sweep, at `/` only.

    Args:
        host: address to listen at; other machines reach it only where it is none of `LOOPBACK`.
        port: 0 takes a free one.

    Raises:
        InputError: the port is taken, or the address is none of this machine.
    """
    page = LivePage(record)
    page.draw()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            # A page of another site that lets its own name lead to this machine reads nothing.
            name = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
            if host in LOOPBACK and name not in LOOPBACK:
                return self.send_error(403)
            if self.path.split("?")[0] != "/":
                return self.send_error(404)
            try:
                body = page.draw()
            except (InputError, OSError) as error:
                return self.send_error(503, explain=str(error))
            known = self.headers.get("If-None-Match") == page.tag
            self.send_response(304 if known else 200)
            self.send_header("ETag", page.tag)
            self.send_header("Cache-Control", "no-cache")
            if not known:
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body and not known:
                self.wfile.write(body)
            return None

        def log_message(self, *words: object) -> None:
            """Nothing: the terminal shows the address alone."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InputError(
            f"no page can be served at {host}, port {port} ({error.strerror}): give another --port or --host"
        ) from None
