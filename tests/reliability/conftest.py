"""The helpers of this folder and the fakes of both floors' tests are importable."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "sweeps", HERE.parent / "llmemf"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder that does not exist yet, in memory where the system has one; see `durable_events.memory_folder`."""
    from durable_events import memory_folder

    folder = memory_folder()
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake Tune has no clock: what waits for a machine to recover is due at once."""
    monkeypatch.setattr("sweeps.search.search.RETRY_SECONDS", {})
