"""The fakes of this folder are importable here and in Ray's workers; `tiny` of the other floor's tests is importable."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Tests put other databases under a name that MLflow has open.
os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
HERE = str(Path(__file__).resolve().parent)
# At the end: the commands put the project into the first place when they are imported.
sys.path.append(HERE)
sys.path.append(str(Path(HERE).parent / "llmemf"))

from finished_sweep import Made, make_finished


@pytest.fixture(autouse=True)
def _no_power_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a disk; what a crash leaves is tested in `tests/reliability`."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def workers_find_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH", "")])))


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory: `data/` and `mlruns/` would be made here. A plan checks few of its points."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.search.grid_points.CHECKED_POINTS", 100)
    monkeypatch.delenv("LLMEMF_DATA_ROOT", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A database of MLflow, which takes seconds to make: tests work on copies."""
    from sweeps.tracking.mlflow_runs import mlflow_client

    return made_once("empty_mlflow.db", lambda path: mlflow_client(f"sqlite:///{path}").search_experiments())


@pytest.fixture
def sweep_folder(empty_database: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a command finds the sample and MLflow's database, which it would spend most of its time to make."""
    monkeypatch.delenv("LLMEMF_DATA_ROOT", raising=False)
    (tmp_path / "mlruns").mkdir()
    shutil.copyfile(empty_database, tmp_path / "mlruns" / "mlflow.db")
    (tmp_path / "data").symlink_to(sample_root)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small sweep as it lies on the disk and in MLflow, with real weights (`finished_sweep.Made`)."""
    return make_finished(empty_database, tmp_path_factory.mktemp("finished"))
