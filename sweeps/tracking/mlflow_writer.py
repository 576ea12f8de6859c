"""Writes to MLflow, in order, from a thread of the driver: a slow or absent server never holds up a trial.

A write that fails waits, in order, and is tried again now and then and at the end. Every write can be repeated without a
duplicate: metrics carry the time of their event, runs are looked up by tag before they are created again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llmemf import text_format
from sweeps.tracking.addresses import one_line
from sweeps.tracking.mlflow_runs import MlflowRuns, NoRun, Operation, TrackingTarget

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""What arrives after a quiet time is written so much later: the driver has first to answer the trial that reported."""
RETRY_SECONDS = 10.0
FINAL_ATTEMPTS = 8
"""At the end of a sweep a write that fails so often is given up, if the server answers."""
FINAL_SECONDS = 60.0
"""At the end of a sweep a server that does not answer is given up after so long."""
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's answers to a write that will never succeed."""


class MlflowWriter(MlflowRuns):
    """The queue of writes and the thread that empties it.

    Attributes:
        failures: writes that failed at least once.
        lost: kind and reason of those that were given up.
    """

    def __init__(self, target: TrackingTarget, client: Callable[[], Any] | None = None) -> None:
        super().__init__(target, client)
        self.waiting: deque[Operation] = deque()
        self.failures = 0
        self.lost: list[tuple[str, str]] = []
        self._trouble = ""
        self._arrived = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        """One line while the server does not answer, "" otherwise."""
        return f"{self._trouble}; {text_format.plural(len(self.waiting), 'write')} wait" if self._trouble else ""

    def write(self, kind: str, run: str, **content: Any) -> None:
        """Queue a write; returns at once."""
        with self._arrived:
            self.waiting.append(Operation(kind, run, content))
            self._arrived.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()

    def close(self) -> str:
        """Try everything that waits once more; says in one line what failed ("" if nothing)."""
        self._closing.set()
        with self._arrived:
            self._arrived.notify()
        if self._thread is not None:
            self._thread.join()
        self._deliver_last()
        if not self.failures:
            return ""
        count = text_format.plural(self.failures, "write")
        if not self.lost:
            return f"tracking: {count} failed, all delivered later"
        kinds, (_, reason) = ", ".join(dict.fromkeys(kind for kind, _ in self.lost)), self.lost[-1]
        return (
            f"tracking: {count} failed, {len(self.lost)} not delivered ({kinds}: {reason}); --resume writes them again"
        )

    def _work(self) -> None:
        """Deliver in order until the end is near; the order within a run must stay (create, metrics, end)."""
        while not self._closing.is_set():
            with self._arrived:
                idle = not self.waiting
                while not self.waiting and not self._closing.is_set():
                    self._arrived.wait()
            if idle:
                self._closing.wait(PAUSE_SECONDS)
            if self._closing.is_set():
                return
            write = self.waiting[0]
            try:
                self.deliver(write)
                self._trouble = ""
            except Exception as error:  # noqa: BLE001  nothing of tracking may end a sweep
                self._failed(write, error)
                if not _is_refused(error):
                    self._trouble = f"tracking does not answer ({one_line(error)[:80]})"
                    self._closing.wait(RETRY_SECONDS)
                    continue
                self._lose(write, error)
            self.waiting.popleft()

    def _deliver_last(self) -> None:
        """Deliver what waits: an absent server is waited for, a write that fails alone does not hold up the others."""
        end, attempt = time.monotonic() + FINAL_SECONDS, 0
        while self.waiting:
            try:
                self.deliver(self.waiting[0])
            except Exception as error:  # noqa: BLE001
                attempt += 1
                self._failed(self.waiting[0], error)
                given_up = time.monotonic() > end
                fails_alone = _is_refused(error) or (attempt >= FINAL_ATTEMPTS and self._answers())
                if not given_up and not fails_alone:
                    time.sleep(0.2 * attempt)
                    continue
                for write in list(self.waiting) if given_up else [self.waiting[0]]:
                    self._lose(write, error)
                if given_up:
                    self.waiting.clear()
                    return
            else:
                end = time.monotonic() + FINAL_SECONDS
            self.waiting.popleft()
            attempt = 0

    def _answers(self) -> bool:
        """Whether the server answers at all."""
        try:
            self.client.get_experiment_by_name(self.target.experiment)
        except Exception:  # noqa: BLE001
            return False
        return True

    def _failed(self, write: Operation, error: Exception) -> None:
        # A write counts once, however often it is tried.
        self.failures += write.attempts == 0
        write.attempts += 1
        log.warning(
            "tracking: %s of %s failed (attempt %d): %s", write.kind, write.run, write.attempts, one_line(error)
        )

    def _lose(self, write: Operation, error: Exception) -> None:
        self.failures += write.attempts == 0
        self.lost.append((write.kind, one_line(error)))
        if write.kind == "metrics":
            self.incomplete.add(write.run)


def _is_refused(error: Exception) -> bool:
    return isinstance(error, NoRun) or getattr(error, "error_code", None) in REFUSED
