"""The two commands of the README: one plans a sweep in an empty folder, the other is what CI runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readme_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    found = re.search(r"grep -m1 -- '(.*)' README.md", script)
    assert found, "the CI script takes the command from the README"
    matching = [line for line in README.splitlines() if re.search(found[1], line)]
    assert len(matching) == 1 and matching[0].startswith("python3 -m venv") and '".[test]"' in matching[0]


@pytest.mark.slow
def test_main_command_of_the_readme_plans_the_sample(tmp_path):
    line = next(line for line in README.splitlines() if line.startswith("python3 -m venv") and "grid.py" in line)
    arguments = shlex.split(line.rsplit("&&", 1)[1])[1:]
    arguments[0] = str(ROOT / arguments[0])
    done = subprocess.run(
        [sys.executable, *arguments, "--dry-run"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "sample" in done.stdout and not (tmp_path / "mlruns").exists()
