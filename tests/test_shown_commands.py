"""Every command of this project that a page or a docstring shows is one that its own parser accepts."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from llmemf.command_line import DOORS
from sweeps.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = {f"sweeps/{script}": command for command, script in DOORS.items()}
COMMANDS = typer.main.get_command(app)


def shell_lines(path: Path) -> list[str]:
    """The lines of a page's shell blocks, or of a module's docstring, without their comments."""
    text = path.read_text()
    if path.suffix == ".py":
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
        return [line.split("  ")[0] for line in lines if re.match(r"llmemf [a-z]+( |$)|python sweeps/\w+\.py ", line)]
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, flags=re.DOTALL)
    return [line.split(" #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def calls(path: Path) -> list[list[str]]:
    """The project's own commands in a page or module, each as its words behind `llmemf`."""
    found = []
    for line in shell_lines(path):
        for part in re.split(r"&&|\|\||;|\|| -- ", line):
            words = shlex.split(part) if part.count('"') % 2 == 0 and part.count("'") % 2 == 0 else part.split()
            while words and re.fullmatch(r"[A-Z_]+=.*|env|nohup", words[0]):
                del words[0]
            words = [word for word in words if not word.startswith("$")]
            if not words:
                continue
            if Path(words[0]).name == "llmemf" and len(words) > 1:
                found.append(words[1:])
            elif Path(words[0]).name == "python" and words[1:2] and words[1] in SCRIPTS:
                found.append([SCRIPTS[words[1]], *words[2:]])
    return found


CALLS = [
    (str(path.relative_to(ROOT)), words)
    for path in [*PAGES, *sorted(ROOT.glob("sweeps/**/*.py")), *sorted(ROOT.glob("llmemf/**/*.py"))]
    if path.exists()
    for words in calls(path)
]


def test_there_are_commands_to_check():
    assert len(CALLS) >= 60 and len({place for place, _ in CALLS}) >= 8


@pytest.mark.parametrize(
    ("place", "words"), CALLS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_the_parser_accepts_the_command(place, words):
    command, context = COMMANDS, None
    while hasattr(command, "commands"):
        if words[:1] == ["--version"]:
            return
        assert words[0] in command.commands, f"{place}: {words[0]} is no command of {command.name}"
        command, words = command.commands[words[0]], words[1:]
        if words == ["--help"]:
            return
    command.make_context(command.name, list(words), parent=context)


def test_the_index_links_every_page():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\((\w+\.md)\)", (ROOT / "docs" / "index.md").read_text())) == pages


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"], ids=lambda path: path.name
)
def test_every_link_to_a_file_leads_to_one(path):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
