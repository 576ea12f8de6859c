"""The rooms of both floors import only rooms below them; read from the syntax tree, imports inside functions included."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = {
    "llmemf": [
        {"errors", "text_format", "ranking_names", "io", "command_line", "config", "removed", "memory", "pages"},
        {"append_only_log"},
        {"scenarios"},
        {"features"},
        {"batches", "models", "objective", "objective_half", "ranking"},
        {"checkpoint", "training", "optimizer", "references"},
        {"export"},
        {"commands"},
    ],
    "sweeps": [
        {"state"},
        {"search", "tracking", "cluster"},
        {"core"},
        {"costs", "groups", "reporting", "export"},
        {"cli", "interface"},
    ],
}
"""Rooms from the lowest to the highest; those of one level may import each other as long as there is no circle."""
DOORS = {"__main__", "ablation", "clean", "compare", "grid", "report", "rerun", "study", "ui"}
"""Files of a floor itself that only start a command; `sweeps/export.py` shares its name with a room."""
FOREIGN = {"sweeps": set(), "optuna": set(), "mlflow": set(), "ray": {"features"}}
"""What `llmemf` must not import, and its rooms that may."""
PENDING: set[tuple[str, str]] = {("llmemf.scenarios.sample", "llmemf.features.offline")}
"""Imports that break a rule today: (importing file, imported module). To become empty."""


def modules() -> dict[str, Path]:
    found = {}
    for floor in LEVELS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    # A door beside a room of the same name is not the room.
    return {
        name: path
        for name, path in found.items()
        if not (ROOT / Path(*name.split("."))).is_dir() or path.name == "__init__.py"
    }


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, except for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        else:
            yield from imports(node)


@functools.cache
def graph() -> dict[str, set[str]]:
    return {name: set(imports(ast.parse(path.read_text()))) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    """`sweeps.core.plan` -> `core`, `llmemf.config` -> `config`."""
    return ([*module.split("."), ""])[1]


def level(module: str) -> int | None:
    """Where the room of a module stands; None for the floor itself and its doors."""
    floor, name = module.split(".")[0], room(module)
    if not name or (name in DOORS and module.count(".") == 1):
        return None
    return next(place for place, rooms in enumerate(LEVELS[floor]) if name in rooms)


def edges() -> Iterator[tuple[str, str]]:
    """Every import of one file of the project by another of the same floor."""
    for name, found in graph().items():
        yield from (
            (name, other) for other in sorted(found & MODULES.keys()) if other.split(".")[0] == name.split(".")[0]
        )


def test_every_file_stands_in_a_room():
    names = {floor: set().union(*levels) for floor, levels in LEVELS.items()}
    for module in MODULES:
        floor, name = module.split(".")[0], room(module)
        known = names[floor] | DOORS
        assert not name or name in known, f"{module} has no room: add it to LEVELS"


def broken() -> set[tuple[str, str]]:
    found = set()
    for name, other in edges():
        here, there = level(name), level(other)
        if there is not None and here is not None and there > here:
            found.add((name, other))
    for name, others in graph().items():
        if name.startswith("llmemf") and room(name) != "__main__":
            for other in others:
                rooms = FOREIGN.get(other.split(".")[0])
                if rooms is not None and room(name) not in rooms:
                    found.add((name, other))
    return found


def test_rooms_import_only_rooms_below_them():
    found = broken()
    assert not found - PENDING, "a room imports one above it, or llmemf what only sweeps may know"
    assert not PENDING - found, "no longer broken: take it out of PENDING"


def circle(start: str) -> list[str]:
    """The way from a module back to itself, empty if there is none."""
    ways, seen = [[start]], set()
    while ways:
        way = ways.pop()
        for other in sorted(graph()[way[-1]] & MODULES.keys()):
            if other == start:
                return [*way, start]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


@pytest.mark.parametrize("floor", sorted(LEVELS))
def test_no_circle(floor):
    circles = [" -> ".join(found) for name in MODULES if name.split(".")[0] == floor and (found := circle(name))]
    assert not circles, "\n".join(circles)


def test_the_rules_see_imports_inside_functions():
    tree = ast.parse(
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from sweeps.core import plan\n"
    )
    assert list(imports(tree)) == ["b", "sweeps.core.plan"]
