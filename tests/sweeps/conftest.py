"""The fakes of this folder are importable here and in Ray's workers; `tiny` of the other floor's tests is importable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Ray reads this once, when it is imported; a sweep sets it before, and tests import Ray earlier than any sweep.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
HERE = str(Path(__file__).resolve().parent)
# At the end: the commands put the project into the first place when they are imported.
sys.path.append(HERE)
sys.path.append(str(Path(HERE).parent / "llmemf"))

from finished_sweep import Made, make_finished


@pytest.fixture
def workers_find_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH", "")])))


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory: `data/` and `mlruns/` would be made here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMEMF_DATA_ROOT", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow, which takes seconds to make; tests work on copies."""
    from sweeps.tracking.mlflow_writer import mlflow_client

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def finished(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small sweep as it lies on the disk and in MLflow, with real weights (`finished_sweep.Made`)."""
    return make_finished(empty_database, tmp_path_factory.mktemp("finished"))
