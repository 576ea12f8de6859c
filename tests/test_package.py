"""What is installed from a wheel: all files of both packages that git tracks, and one version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import Distribution

import llmemf

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(monkeypatch) -> Distribution:
    """The project as setuptools reads it from `pyproject.toml`."""
    monkeypatch.chdir(ROOT)
    found = Distribution({"script_name": "setup.py"})
    found.parse_config_files()
    return found


def test_every_tracked_file_of_the_packages_is_in_the_wheel(project):
    build = project.get_command_obj("build_py")
    build.ensure_finalized()
    data = {Path(folder) / name for _, folder, _, names in build.data_files for name in names}
    packed = data | {Path(path) for _, _, path in build.find_all_modules()}
    listed = subprocess.run(["git", "ls-files", "-z", "llmemf", "sweeps"], check=False, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"git does not know these files: {listed.stderr.strip()}")
    tracked = {Path(name) for name in listed.stdout.split("\0") if name}
    assert len(tracked) > 100
    assert sorted(name for name in tracked - packed if name.exists()) == [], (
        "name their kind in [tool.setuptools.package-data]"
    )


def test_the_version_is_stated_once(project):
    assert project.get_version() == llmemf.__version__
    stated = [
        path
        for path in (ROOT / "pyproject.toml", *ROOT.glob("*/__init__.py"))
        if f'"{llmemf.__version__}"' in path.read_text()
    ]
    assert stated == [ROOT / "llmemf" / "__init__.py"]


def test_help_starts_without_heavy_libraries(tmp_path):
    heavy = ["torch", "ray", "mlflow", "optuna", "pandas", "numpy", "scipy", "sklearn", "pyarrow"]
    commands = [["--help"], ["sweep", "--help"], ["data", "prepare", "amazon", "--help"]]
    script = (
        "import sys\nfrom sweeps.cli.main import main\n"
        f"for words in {commands}:\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        f"    print('loaded', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("loaded ")] == ["loaded []"] * len(commands)
