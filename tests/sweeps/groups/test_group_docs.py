"""Every command line that the pages and docstrings on comparisons, ablations and reruns show is one that exists."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer.main

from sweeps.ablations.rows import STANDARD
from sweeps.cli.main import single

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("ablation", "compare", "rerun")
TEXTS = {
    **{f"{name}.md": (ROOT / "docs" / f"{name}.md").read_text() for name in ("ablation", "comparison", "rerun")},
    **{f"{name}.py": ast.get_docstring(ast.parse((ROOT / "sweeps" / f"{name}.py").read_text())) for name in NAMES},
}
LINES = [
    (place, line.split("  ")[0].split(" #")[0])
    for place, text in TEXTS.items()
    for line in re.findall(r"^python sweeps/.*", text, flags=re.MULTILINE)
]


def test_there_are_lines_to_check():
    assert len(LINES) >= 20


@pytest.mark.parametrize(("place", "line"), LINES)
def test_every_option_exists(place, line, monkeypatch):
    # A command puts the project's folder on the path in place of its own.
    monkeypatch.setattr(sys, "path", sys.path[:])
    words = shlex.split(line)[1:]
    command = typer.main.get_command(single(Path(words[0]).stem))
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, f"{place}: {line}"
    command.make_context(words[0], words[1:])


def test_the_page_lists_every_row():
    table = re.findall(r"^\| (`.*?) \|", TEXTS["ablation.md"], flags=re.MULTILINE)
    assert {name for cell in table for name in re.findall(r"`(\w+)`", cell)} == set(STANDARD)
