"""What all tests share: one thread per process, and the marks `data` and `gpu` that depend on the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Tests compute little, and threads of several processes on two cores wait for one another. Read once, when torch is
# imported; processes that tests start have it from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes read these packages: the first one compiles them for all, also where the environment forbids it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose mark asks for what this machine lacks."""
    if item.get_closest_marker("data"):
        folder = os.environ.get("LLMEMF_REAL_DATA")
        if not folder or not Path(folder).is_dir():
            pytest.skip(f"LLMEMF_REAL_DATA={folder or ''}: no folder with the real data")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch finds no NVIDIA GPU")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data, for tests with the mark `data`."""
    return Path(os.environ["LLMEMF_REAL_DATA"])
