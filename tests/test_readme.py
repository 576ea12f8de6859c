"""The two commands of the README: one plans a sweep in an empty folder, the other is what CI runs."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from sweeps.cli.main import run_script

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readme_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    found = re.search(r"grep -m1 -- '(.*)' README.md", script)
    assert found, "the CI script takes the command from the README"
    matching = [line for line in README.splitlines() if re.search(found[1], line)]
    assert len(matching) == 1 and matching[0].startswith("python3 -m venv") and '".[test]"' in matching[0]


def test_main_command_of_the_readme_plans_the_sample(tmp_path, monkeypatch, capsys):
    line = next(line for line in README.splitlines() if line.startswith("python3 -m venv") and "grid.py" in line)
    python, script, *arguments = shlex.split(line.rsplit("&&", 1)[1])
    assert python.endswith("python") and (ROOT / script).is_file()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMEMF_DATA_ROOT", raising=False)
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--dry-run"])
    with pytest.raises(SystemExit) as end:
        run_script(Path(script).name)
    assert not end.value.code
    assert "sample" in capsys.readouterr().out and not (tmp_path / "mlruns").exists()
