"""What one node of a cluster knows about itself: packages, code, storage.

`probe` travels to the node with its source, since the node may hold another copy of this project or none: only the
standard library may be used here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import platform
import time
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "torch", "numpy")
OWN = ("llmemf", "sweeps")
TRIAL = "sweeps.core.trial"


def versions() -> dict[str, str]:
    """Versions that must agree; without the local part (`2.11.0+cpu` is 2.11.0), "" for a package that is missing."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def source_files() -> dict[str, str]:
    """Hash of every source file of this project, by its path within the project; empty where it is not found."""
    found = {}
    for name in OWN:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                relative = f"{name}/{path.relative_to(folder)}"
                found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def import_problem() -> str:
    """Why a trial's code cannot be imported, "" if it can."""
    try:
        importlib.import_module(TRIAL)
        importlib.import_module("llmemf.training")
    except Exception as error:  # noqa: BLE001 - a broken installation raises what it likes
        return f"{type(error).__name__}: {error}"
    return ""


def wait_for(path: Path, content: str, seconds: float) -> bool:
    """Whether the file holds this within so many seconds: a network file system shows new files a little late."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if path.read_text() == content:
                return True
        except OSError:
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)


def probe(folder: str, node: str, token: str, seconds: float) -> dict[str, Any]:
    """What this node has and sees.

    Args:
        folder: where the driver left the file `driver` with `token` in it; a file named `node` is put beside it.
        seconds: how long to wait for the driver's file.

    Returns:
        `versions`, `files` and `imports` as the functions above give them; `storage`: why the folder is not shared with
        the driver as seen from here, "{}" standing for it; "" if it is.
    """
    storage = ""
    if not wait_for(Path(folder) / "driver", token, seconds):
        storage = "does not see {}"
    else:
        try:
            (Path(folder) / node).write_text(token)
        except OSError as error:
            storage = f"cannot write to {{}} ({error.strerror})"
    return {"versions": versions(), "files": source_files(), "imports": import_problem(), "storage": storage}
