"""Fetch the images of a scenario's items by their addresses."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urljoin, urlsplit

import httpx2
import pandas as pd

from llmemf import __version__
from llmemf.errors import InputError
from llmemf.features.addresses import GuardedBackend, GuardedTransport
from llmemf.features.image_content import ImageFacts, NoImage, check_image
from llmemf.features.image_limits import FetchSettings
from llmemf.features.image_table import OK, ImageStore
from llmemf.features.retries import RequestFailed, Retries, retry_after
from llmemf.features.stopping import Stop, workers
from llmemf.scenarios.images import is_address
from llmemf.scenarios.scenario import Scenario

REFUSALS = 10
"""So many times one address may be refused with "too many requests"."""
UNREACHED = 50
"""So many addresses in a row that cannot be reached mean that this machine is offline; the run ends."""
LONGEST_WAIT = 120.0
"""If a server asks to wait longer, the address fails in this run."""
REDIRECTS = 5
BAD_ADDRESS = "bad address"
UNREACHABLE = ("unknown host", "no connection")
"""Reasons that may mean that this machine is offline."""
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
TRANSIENT_ERRORS = {
    httpx2.TimeoutException: "timeout",
    httpx2.ConnectError: "no connection",
    httpx2.NetworkError: "broken connection",
    httpx2.RemoteProtocolError: "broken connection",
}
"""Reasons of failures that a later try may mend; the first that fits."""
HEADERS = {
    "User-Agent": f"llmemf/{__version__}",
    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/*;q=0.5",
    "Accept-Encoding": "identity",
}


@dataclass
class FetchProgress:
    """Addresses in all, done, with an image, failed; bytes of the images."""

    total: int
    done: int = 0
    ok: int = 0
    failed: int = 0
    bytes: int = 0


@dataclass
class ImageFetch:
    """One run over the addresses of a scenario.

    Attributes:
        scenario: saved on disk; `image` holds addresses, or paths below its folder.
        settings: limits.
        on_progress: called after every address and every second.
        on_interrupt: called at the first Ctrl-C with the number of requests that the run still waits for.
        backend: opens connections, None for the guarded one that the settings ask for.
        backoff: the first pause after a failure takes up to so many seconds.
    """

    scenario: Scenario
    settings: FetchSettings
    on_progress: Callable[[FetchProgress], None] = lambda progress: None
    on_interrupt: Callable[[int], None] = lambda under_way: None
    backend: GuardedBackend | None = None
    backoff: float = 0.5
    stop: Stop = field(default_factory=Stop)

    async def run(self) -> pd.DataFrame:
        """Fetch what is missing and write the table, also when the run is stopped.

        Returns:
            the table that was written.

        Raises:
            InputError: no item names an image, or the folder cannot be written or is in use.
        """
        self._addresses = self.scenario.items.image.astype(str).str.strip().tolist()
        if not any(self._addresses):
            raise InputError(
                f"no item of scenario {self.scenario.name!r} names an image; take them from a folder by external id: "
                "--folder FOLDER"
            )
        with ImageStore(self.scenario) as self._store:
            waiting = self._missing()
            try:
                if waiting:
                    await self._fetch(waiting)
            finally:
                table = self._store.write_table(self._addresses)
        return table

    def _missing(self) -> dict[str, list[int]]:
        """Addresses to fetch, each with its items; cells that are no address get their outcome at once."""
        missing: dict[str, list[int]] = defaultdict(list)
        outcomes = self._store.outcomes
        for item, address in enumerate(self._addresses):
            if item in outcomes and outcomes[item]["address"] != address:
                del outcomes[item]
            if not address or self._store.has_image(item):
                continue
            record = outcomes.get(item, {"status": OK})
            if record["status"] != OK and not record["transient"] and not self.settings.retry_failed:
                continue
            if is_address(address):
                missing[address].append(item)
                continue
            try:
                data = self._local(address)
                self._store.keep([item], address, data, check_image(data, self.settings), path=address)
            except NoImage as error:
                self._store.note([item], address, str(error))
        return missing

    def _local(self, address: str) -> bytes:
        """The bytes of a path below the scenario's folder, where an import has put the file.

        Raises:
            NoImage: it is no such path, or there is no such file.
        """
        if re.match(r"//|[A-Za-z][A-Za-z0-9+.-]+:", address):
            raise NoImage(BAD_ADDRESS)
        folder = self._store.folder.resolve()
        try:
            path = (folder / address).resolve()
            if not path.is_relative_to(folder):
                raise NoImage("path outside the scenario's folder")
            return path.read_bytes()
        except (OSError, ValueError):
            raise NoImage("no such file") from None

    async def _fetch(self, waiting: dict[str, list[int]]) -> None:
        settings = self.settings
        self._progress = FetchProgress(len(waiting))
        self._hosts: dict[str, Retries] = defaultdict(lambda: Retries(self.stop.event, self.backoff))
        self._unreached = self._under_way = 0
        transport = GuardedTransport(
            self.backend or GuardedBackend(allow_private=settings.allow_private), settings.concurrency
        )
        queue = iter(waiting.items())
        # Few images are decoded at once: each may take three bytes for each of max_pixels.
        with ThreadPoolExecutor(max_workers=4) as self._decoders:
            async with (
                httpx2.AsyncClient(transport=transport, timeout=settings.timeout, headers=HEADERS) as self._client,
                workers(self.stop, self._report, lambda: self.on_interrupt(self._under_way)) as group,
            ):
                for _ in range(min(settings.concurrency, len(waiting))):
                    group.create_task(self._work(queue))
        self._report()

    async def _work(self, queue: Iterator[tuple[str, list[int]]]) -> None:
        try:
            while not self.stop and (entry := next(queue, None)) is not None:
                await self._settle(*entry)
        except InputError as error:
            self.stop.request("error", error=error)

    async def _settle(self, address: str, items: list[int]) -> None:
        """Fetch one address, after as many tries as the settings allow, and note the outcome for all its items."""
        failures: Counter[bool] = Counter()

        def is_last(error: RequestFailed) -> bool:
            failures[error.limited] += 1
            too_long = (error.wait or 0.0) > LONGEST_WAIT
            return too_long or failures[True] >= REFUSALS or failures[False] >= self.settings.tries

        try:
            host = self._hosts[urlsplit(address).netloc.lower()]
            data, facts = await host.run(partial(self._try, address), is_last)
        except NoImage as error:
            if self.stop and error.transient:
                return
            self._store.note(items, address, str(error), transient=error.transient)
            self._progress.failed += 1
            self._check_network(str(error))
        else:
            self._store.keep(items, address, data, facts)
            self._progress.ok += 1
            self._progress.bytes += len(data)
            self._unreached = 0
        self._progress.done += 1
        self._report()

    async def _try(self, address: str) -> tuple[bytes, ImageFacts]:
        if self.stop:
            raise NoImage("stopped", transient=True)
        self._under_way += 1
        try:
            async with asyncio.timeout(self.settings.timeout):
                data = await get_image(self._client, address, self.settings.max_bytes)
        except TimeoutError:
            raise NoImage("timeout", transient=True) from None
        finally:
            self._under_way -= 1
        return data, await asyncio.get_running_loop().run_in_executor(self._decoders, check_image, data, self.settings)

    def _check_network(self, reason: str) -> None:
        self._unreached = self._unreached + 1 if reason in UNREACHABLE else 0
        if self._unreached >= UNREACHED:
            text = f"{UNREACHED} addresses in a row could not be reached ({reason}); is this machine online?"
            self.stop.request("endpoint", text)

    def _report(self) -> None:
        self.on_progress(self._progress)


async def get_image(client: httpx2.AsyncClient, address: str, max_bytes: int) -> bytes:
    """The bytes behind an address; every redirect meets the same checks, and its own body is never read.

    Raises:
        NoImage: with the reason.
    """
    try:
        for _ in range(REDIRECTS + 1):
            if not is_address(address):
                raise NoImage(BAD_ADDRESS)
            async with client.stream("GET", address) as response:
                if not response.has_redirect_location:
                    return await _read(response, max_bytes)
                address = urljoin(address, response.headers["location"])
    except tuple(TRANSIENT_ERRORS) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise NoImage("bad certificate") from None
        reason = next(reason for kind, reason in TRANSIENT_ERRORS.items() if isinstance(error, kind))
        raise NoImage(reason, transient=True) from None
    except (httpx2.InvalidURL, httpx2.HTTPError, ValueError):
        raise NoImage(BAD_ADDRESS) from None
    raise NoImage("too many redirects")


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    status = response.status_code
    if status != 200:
        transient = status in TRANSIENT_STATUS or status >= 520
        wait = retry_after(response.headers)
        raise NoImage(f"HTTP {status}", transient=transient, limited=status == 429, wait=wait)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise NoImage("compressed transfer")
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise NoImage("too large")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            raise NoImage("too large")
    return bytes(data)
