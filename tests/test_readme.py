"""What the README tells the user to type exists: options, sub-commands, the two commands, and what CI runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from llmemf.__main__ import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith(".venv/bin/")
]


def options_of(command):
    return {option for parameter in command.params for option in parameter.opts}


def test_there_are_commands_to_check():
    assert len([line for line in COMMANDS if "llmemf" in line.split()[0]]) >= 5


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith(".venv/bin/llmemf ")])
def test_every_llmemf_command_and_option_exists(line):
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{words[0]} is no command: {line}"
        command, words = command.commands[words[0]], words[1:]
    unknown = {word for word in words if word.startswith("--")} - options_of(command)
    assert not unknown, f"the README names options that do not exist: {unknown}"


def test_every_sweep_option_in_the_readme_exists():
    from sweeps.cli.sweep import app as grid

    options = options_of(typer.main.get_command(grid))
    table = re.findall(r"^\|.*", README, flags=re.MULTILINE)
    lines = [line for line in COMMANDS if "sweeps/grid.py" in line]
    named = set(re.findall(r"--[a-z][a-z-]+", " ".join([*table, *lines])))
    assert named, "the README's table of options was not found"
    assert named <= options, f"the README names options that do not exist: {named - options}"


def test_ci_runs_the_readme_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    found = re.search(r"grep -m1 -- '(.*)' README.md", script)
    assert found, "the CI script takes the command from the README"
    matching = [line for line in README.splitlines() if re.search(found[1], line)]
    assert len(matching) == 1 and matching[0].startswith("python3 -m venv") and '".[test]"' in matching[0]


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
