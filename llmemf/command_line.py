"""Commands as they can be typed where the user stands, for hints and messages; options that are told and checked once."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

from llmemf.errors import InputError

DOORS = {
    "sweep": "grid.py",
    "compare": "compare.py",
    "ablation": "ablation.py",
    "rerun": "rerun.py",
    "study": "study.py",
    "report": "report.py",
    "export": "export.py",
    "ui": "ui.py",
    "clean": "clean.py",
}
"""Command -> its script in `sweeps/` of a checkout."""


def command_line(command: str, *words: object, storage: str | Path | None = None) -> str:
    """A command of the project that works in the current folder.

    Whoever started a script of a checkout (`python sweeps/grid.py`) is shown scripts, everybody else the console command.

    Args:
        command: `sweep`, `compare`, `data`, ...
        words: what follows it.
        storage: the storage folder; named where it is not `mlruns` of the current folder.
    """
    parts = [*_start(command), *map(str, words)]
    if storage is not None and Path(storage).resolve() != Path("mlruns").resolve():
        parts += ["--storage", str(storage)]
    return shlex.join(parts)


def _start(command: str) -> list[str]:
    script = Path(sys.argv[0])
    if command in DOORS and script.name in DOORS.values() and script.parent.name == "sweeps":
        return [_python(), shortest(script.resolve().with_name(DOORS[command]))]
    console = Path(sys.executable).with_name("llmemf")
    found = shutil.which("llmemf")
    if found and Path(found).resolve() in (console.resolve(), script.resolve()):
        return ["llmemf", command]
    if console.exists():
        return [shortest(console), command]
    return [_python(), "-m", "sweeps", command]


def _python() -> str:
    found = shutil.which("python")
    return "python" if found and Path(found) == Path(sys.executable) else shortest(Path(sys.executable))


def shortest(path: Path) -> str:
    """The path as seen from here, where it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class Option(NamedTuple):
    """What a field is for, and the smallest and the largest number that it takes."""

    text: str
    least: float | None = None
    most: float | None = None


class Checked:
    """A dataclass of annotated options that refuses what none of them takes.

    Raises:
        InputError: a value is none of a field's choices, or out of its limits.
    """

    def __post_init__(self) -> None:
        for field, hint in get_type_hints(type(self), include_extras=True).items():
            kind, (_, least, most) = get_args(hint)
            value, name = getattr(self, field), f"--{field.replace('_', '-')}"
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            if choices and value not in choices:
                raise InputError(f"{name} {value!r}: choose one of {', '.join(choices)}")
            if value is not None and ((least is not None and value < least) or (most is not None and value > most)):
                raise InputError(f"{name} {value}: give {least} {f'to {most}' if most is not None else 'or more'}")
