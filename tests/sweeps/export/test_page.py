"""What docs/serving.md shows exists: commands, options, and the shape of requests and answers."""

import json
import re
import shlex
from pathlib import Path

import typer.main

from llmemf.__main__ import app as llmemf
from llmemf.export import folder
from llmemf.export.recommendation import REQUEST_KEYS
from sweeps.cli.main import single

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text()


def options(command):
    return {option for parameter in command.params for option in parameter.opts}


def test_commands_and_options_exist():
    known = {
        "sweeps/export.py": typer.main.get_command(single("export")),
        "sweeps/ui.py": typer.main.get_command(single("ui")),
    }
    commands = typer.main.get_command(llmemf).commands
    lines = [line.split("#")[0] for line in re.findall(r"^\.venv/bin/.*$", PAGE, flags=re.MULTILINE)]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)
        command = known[words[1]] if words[0].endswith("python") else commands[words[1]]
        assert {word for word in words if word.startswith("--")} <= options(command), line
    named = {option for command in (*known.values(), *commands.values()) for option in options(command)}
    mlflows = {"--env-manager"}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= named | mlflows


def test_the_request_and_the_files_are_those_of_the_code():
    request, answer = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL))
    assert set(request["inputs"][0]) == set(REQUEST_KEYS)
    assert set(answer["predictions"][0]) == {"domain", "items", "known_items", "unknown_items"}
    files = {folder.MANIFEST, folder.DATA, folder.ITEMS, folder.METRICS, folder.CARD, folder.BEST, folder.CONFIG}
    assert files == set(re.findall(r"`([a-z.A-Z]+\.[a-z]+)`", "\n".join(re.findall(r"^\| `.*$", PAGE, re.MULTILINE))))
