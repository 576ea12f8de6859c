"""Fetch the images of a scenario's items by their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx2
import pandas as pd

from llmemf import __version__
from llmemf.errors import InputError
from llmemf.features.addresses import GuardedBackend, GuardedTransport
from llmemf.features.image_content import BadImage, ImageFacts, check_image
from llmemf.features.image_request import BAD_ADDRESS, Failed, get_image, is_address, names_a_scheme
from llmemf.features.image_table import (
    FOLDER,
    LOG,
    NOT_FETCHED,
    OK,
    image_name,
    image_table,
    is_kept,
    latest_outcomes,
    write_image_table,
)
from llmemf.features.pace import Pace, sleep
from llmemf.features.stopping import Stop, listening
from llmemf.io import AppendOnlyLog, write_with
from llmemf.scenarios.scenario import Scenario

LIMITED = 10
"""Times that one address may meet "too many requests"."""
UNREACHED = 50
"""So many addresses in a row that nobody answered at: the network is down, and the run ends in order."""
UNREACHABLE = ("unknown host", "no connection")
LONGEST_WAIT = 120.0
"""A server that asks to wait longer fails the address for this run."""


@dataclass(frozen=True)
class FetchSettings:
    """Limits of a run.

    Attributes:
        concurrency: requests at once.
        tries: per address, for failures that may pass.
        timeout: seconds for one try in all, redirects included.
        max_bytes, max_pixels, min_side: of an image; see `check_image`.
        allow_private: fetch from private, loopback and link-local addresses too.
        retry_failed: try failures of earlier runs again that cannot pass by themselves.
        backoff: seconds of the first pause after a failure.
    """

    concurrency: int = 16
    tries: int = 4
    timeout: float = 30.0
    max_bytes: int = 10_000_000
    max_pixels: int = 40_000_000
    min_side: int = 8
    allow_private: bool = False
    retry_failed: bool = False
    backoff: float = 0.5


@dataclass
class FetchProgress:
    """Where a run stands: addresses in all, done, with an image, failed; items that needed nothing; bytes."""

    total: int
    done: int = 0
    ok: int = 0
    failed: int = 0
    retried: int = 0
    kept: int = 0
    bytes: int = 0


@dataclass
class ImageFetch:
    """One run over the addresses of a scenario.

    Attributes:
        scenario: saved on disk; `image` holds addresses, or paths below its folder.
        settings: limits.
        on_progress: called after every address and every second.
        on_interrupt: called at the first Ctrl-C with the number of requests that are waited for.
        backend: opens connections, None for the guarded one that the settings ask for.
    """

    scenario: Scenario
    settings: FetchSettings = FetchSettings()
    on_progress: Callable[[FetchProgress], None] = lambda progress: None
    on_interrupt: Callable[[int], None] = lambda under_way: None
    backend: GuardedBackend | None = None
    stop: Stop = field(default_factory=Stop)

    async def run(self) -> pd.DataFrame:
        """Fetch what is missing and write the table; also when the run is stopped.

        Returns:
            the table that was written.

        Raises:
            InputError: no item names an image, or the folder cannot be written or is in use.
        """
        folder = self.scenario.folder
        if not (self.scenario.items.image.astype(str).str.strip() != "").any():
            raise InputError(
                f"no item of scenario {self.scenario.name!r} names an image; take them from a folder by external id: "
                "--folder FOLDER"
            )
        try:
            (folder / FOLDER).mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder / FOLDER} cannot be written: {error.strerror or error}") from None
        with AppendOnlyLog(folder / LOG, durable=False, lock=True) as self._log:
            self._outcomes = latest_outcomes(self._log.read())
            self._progress = FetchProgress(total=0)
            waiting = self._open_addresses()
            self._progress.total = len(waiting)
            try:
                await self._fetch(waiting)
            finally:
                table = image_table(self.scenario, self._outcomes, NOT_FETCHED)
                write_image_table(self.scenario, table)
        if self.stop.error:
            raise self.stop.error
        return table

    def _open_addresses(self) -> dict[str, list[int]]:
        """Addresses to fetch with the items that name them; local paths are settled at once."""
        addresses = self.scenario.items.image.astype(str).str.strip().tolist()
        waiting: dict[str, list[int]] = {}
        settled: list[dict] = []
        for item, address in enumerate(addresses):
            record = self._outcomes.get(item)
            if record and record["address"] != address:
                del self._outcomes[item]
                record = None
            if not address or is_kept(self.scenario.folder, record):
                self._progress.kept += bool(address)
                continue
            if record and record["status"] != OK and not record["transient"] and not self.settings.retry_failed:
                continue
            if not is_address(address):
                facts = {"status": BAD_ADDRESS} if names_a_scheme(address) else self._local(address)
                settled.append(self._outcome(item, address, **facts))
                continue
            waiting.setdefault(address, []).append(item)
        self._note(settled)
        return waiting

    def _local(self, address: str) -> dict:
        """The outcome of a path below the scenario's folder, where an import has put it."""
        folder = self.scenario.folder.resolve()
        try:
            path = (folder / address).resolve()
            if not path.is_relative_to(folder):
                return {"status": "path outside the scenario's folder"}
            data = path.read_bytes()
            facts = check_image(data, max_pixels=self.settings.max_pixels, min_side=self.settings.min_side)
        except (OSError, ValueError):
            return {"status": "no such file"}
        except BadImage as error:
            return {"status": str(error)}
        return {"status": OK, "path": address, "bytes": len(data), "width": facts.width, "height": facts.height}

    @staticmethod
    def _outcome(item: int, address: str, status: str, path: str = "", transient: bool = False, **facts) -> dict:
        return {"item": item, "path": path, "status": status, "address": address, "transient": transient, **facts}

    def _note(self, records: list[dict]) -> None:
        """Log outcomes, then count them."""
        if records:
            self._log.append(records)
            self._outcomes.update((record["item"], record) for record in records)

    async def _fetch(self, waiting: dict[str, list[int]]) -> None:
        if not waiting:
            return
        settings = self.settings
        backend = self.backend or GuardedBackend(allow_private=settings.allow_private)
        transport = GuardedTransport(backend, settings.concurrency)
        self._pace = Pace(settings.concurrency, settings.backoff)
        self._pace.limit = settings.concurrency
        self._unreached = 0
        queue = iter(waiting.items())
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="decode") as self._decoders:
            async with httpx2.AsyncClient(
                transport=transport,
                follow_redirects=False,
                timeout=settings.timeout,
                headers={
                    "User-Agent": f"llmemf/{__version__}",
                    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/*;q=0.5",
                    "Accept-Encoding": "identity",
                },
            ) as client:
                with listening(self.stop, lambda: self.on_interrupt(self._pace.under_way)):
                    workers = [
                        asyncio.create_task(self._work(client, queue))
                        for _ in range(min(settings.concurrency, len(waiting)))
                    ]
                    ticker = asyncio.create_task(self._tick())
                    try:
                        await asyncio.gather(*workers)
                    except asyncio.CancelledError:
                        if self.stop.reason != "interrupted":
                            raise
                    finally:
                        for task in [*workers, ticker]:
                            task.cancel()
                        await asyncio.gather(*workers, ticker, return_exceptions=True)
        self.on_progress(self._progress)

    async def _work(self, client: httpx2.AsyncClient, queue) -> None:
        try:
            while not self.stop and (entry := next(queue, None)) is not None:
                await self._settle(client, *entry)
        except InputError as error:
            self.stop.request("error", error=error)

    async def _settle(self, client: httpx2.AsyncClient, address: str, items: list[int]) -> None:
        """Fetch one address, with retries, and note the outcome for all items that name it."""
        failures = limited = 0
        while (began := await self._pace.enter(self.stop.event)) is not None:
            try:
                async with asyncio.timeout(self.settings.timeout):
                    data = await get_image(client, address, self.settings.max_bytes)
                facts = await asyncio.get_running_loop().run_in_executor(self._decoders, self._check, data)
            except TimeoutError:
                failure = Failed("timeout", transient=True)
            except Failed as error:
                failure = error
            except BadImage as error:
                failure = Failed(str(error))
            else:
                self._pace.succeeded()
                self._keep(address, items, data, facts)
                self._unreached = 0
                break
            finally:
                self._pace.leave()
            failures += not failure.limited
            limited += failure.limited
            too_long = failure.wait is not None and failure.wait > LONGEST_WAIT
            if not failure.transient or too_long or failures >= self.settings.tries or limited >= LIMITED:
                self._note([self._outcome(item, address, str(failure), transient=failure.transient) for item in items])
                self._progress.failed += 1
                self._check_network(str(failure))
                break
            self._progress.retried += 1
            if failure.limited:
                self._pace.refused(failure.wait, limited, began)
            else:
                await sleep(max(failure.wait or 0.0, self._pace.backoff(failures)), self.stop.event)
        else:
            return
        self._progress.done += 1
        self.on_progress(self._progress)

    def _check_network(self, reason: str) -> None:
        self._unreached = self._unreached + 1 if reason in UNREACHABLE else 0
        if self._unreached >= UNREACHED:
            text = f"{UNREACHED} addresses in a row could not be reached ({reason}); is this machine online?"
            self.stop.request("endpoint", text)

    def _keep(self, address: str, items: list[int], data: bytes, facts: ImageFacts) -> None:
        """Write an image, then note it for all items that name its address."""
        path = image_name(items[0], facts.suffix)
        write_with(self.scenario.folder / path, lambda temporary: temporary.write_bytes(data))
        known = {"path": path, "bytes": len(data), "width": facts.width, "height": facts.height}
        self._note([self._outcome(item, address, OK, **known) for item in items])
        self._progress.ok += 1
        self._progress.bytes += len(data)

    def _check(self, data: bytes) -> ImageFacts:
        return check_image(data, max_pixels=self.settings.max_pixels, min_side=self.settings.min_side)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.on_progress(self._progress)
