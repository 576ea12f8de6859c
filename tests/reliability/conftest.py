"""The helpers of this folder and the fakes of both floors' tests are importable."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Ray reads this once, when it is imported.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "sweeps", HERE.parent / "llmemf"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder in memory where the system has one: what is flushed there costs no time."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "root"
        return
    folder = Path(tempfile.mkdtemp(dir=memory, prefix="reliability-"))
    yield folder / "root"
    shutil.rmtree(folder)
