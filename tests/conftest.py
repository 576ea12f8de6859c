"""What all tests share: one thread per process, what is made once for all, and the marks `data` and `gpu`."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

# Tests compute little, and threads of several processes on two cores wait for one another. Read once, when torch is
# imported; processes that tests start have it from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray reads this once, when it is imported; a sweep sets it before, and tests import Ray earlier than any sweep.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Hundreds of processes read these packages: the first one compiles them for all, also where the environment forbids it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports make objects that stay: to look for garbage among them takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Function that gives the path of this name, which the first process of the tests that asks for it has made."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def find(name: str, make: Callable[[Path], object]) -> Path:
        path = root / name
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                made = tmp_path_factory.mktemp("made") / name
                make(made)
                made.rename(path)
        return path

    return find


@pytest.fixture(scope="session")
def sample_root(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A data folder with the sample and its features; nobody writes into it."""
    from llmemf.scenarios.sample import prepare_sample

    return made_once("sample", prepare_sample)
