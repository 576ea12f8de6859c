"""A command that is refused changes nothing: no file of the storage, no row of MLflow's database, nothing where it was given."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sweeps.cli.main import run_script
from sweeps.core.storage import locked

# Script, arguments, and what the one line names.
REFUSED = [
    ("grid.py", ["--scenario", "tiny", "--name", "s1"], "--resume"),
    ("grid.py", ["--scenario", "tinny", "--name", "s2"], "tinny"),
    ("grid.py", ["--scenario", "tiny", "--name", "s2", "--set", "lrr=1"], "lrr"),
    ("grid.py", ["--scenario", "tiny", "--name", "s2", "--set", "modalities=id", "--set", "lr=-1"], "lr = -1"),
    ("grid.py", ["--scenario", "tiny", "--name", "a/b"], "a/b"),
    ("grid.py", ["--resume", "--name", "s9"], "s9"),
    ("grid.py", ["--resume", "--name", "s1", "--set", "lr=1"], "--set"),
    ("grid.py", ["--resume", "--name", "s1", "--trials", "9"], "--trials"),
    ("grid.py", ["--extend", "5", "--name", "s1", "--set", "lrr=1"], "lrr"),
    ("grid.py", ["--extend", "2", "--name", "s1"], "no grid point is left"),
    ("grid.py", ["--extend", "5", "--name", "s9"], "s9"),
    ("compare.py", ["--resume", "--name", "c9"], "c9"),
    ("compare.py", ["--scenario", "tiny", "--models", "sasrek"], "sasrek"),
    ("ablation.py", ["--from", "s9"], "s9"),
    ("ablation.py", ["--from", "s1", "--rows", "idz"], "idz"),
    ("rerun.py", ["s9"], "s9"),
    ("rerun.py", ["s1", "--name", "a b"], "a b"),
    ("report.py", ["s9"], "s9"),
    ("export.py", ["s9"], "s9"),
    ("export.py", ["s1", "--trial", "t99"], "t99"),
    ("export.py", ["s1", "--trial", "t04"], "t04"),
    ("export.py", ["s1", "--out", "photos"], "photos"),
    ("export.py", ["s1", "--register-as", "a/b"], "a/b"),
    ("clean.py", ["--delete", "s9", "--yes"], "s9"),
    ("clean.py", ["--delete-older-than", "soon", "--yes"], "soon"),
]
WITH_DATA = ("grid.py", "compare.py", "ablation.py", "rerun.py", "export.py")


def fingerprint(storage: Path) -> dict[str, str]:
    """Hash of every file of a storage folder; of MLflow's database that of its rows."""
    found = {}
    for path in sorted(storage.rglob("*")):
        if path.is_file() and not path.name.startswith("mlflow.db"):
            found[str(path.relative_to(storage))] = hashlib.sha256(path.read_bytes()).hexdigest()
    with closing(sqlite3.connect(f"file:{storage / 'mlflow.db'}?mode=ro", uri=True)) as database:
        found["rows of MLflow"] = hashlib.sha256("\n".join(database.iterdump()).encode()).hexdigest()
    return found


def refuse(monkeypatch, capsys, finished, script, arguments):
    """The one line of a command that must be refused, after a look at all that it could have changed."""
    places = ["--storage", str(finished.storage)]
    if script in WITH_DATA and "--resume" not in arguments and "--extend" not in arguments:
        places += ["--data-root", str(finished.data_root)]
    monkeypatch.setattr(sys, "argv", [script, *arguments, *places])
    with pytest.raises(SystemExit) as end:
        run_script(script)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("script", "arguments", "named"), REFUSED, ids=lambda value: "" if value in WITH_DATA else None
)
def test_a_refused_command_changes_nothing(finished, project_folder, monkeypatch, capsys, script, arguments, named):
    (project_folder / "photos").mkdir()
    (project_folder / "photos" / "me.jpg").write_text("not a model")
    data, storage = sorted(finished.data_root.rglob("*")), fingerprint(finished.storage)
    assert named in refuse(monkeypatch, capsys, finished, script, arguments)
    assert fingerprint(finished.storage) == storage and sorted(finished.data_root.rglob("*")) == data
    assert sorted(str(path.relative_to(project_folder)) for path in project_folder.rglob("*")) == [
        "photos",
        "photos/me.jpg",
    ]


def test_a_second_driver_changes_nothing(finished, project_folder, monkeypatch, capsys):
    with locked(finished.record.folder, "s1"):
        before = fingerprint(finished.storage)
        assert "'s1' is running in process" in refuse(
            monkeypatch, capsys, finished, "grid.py", ["--resume", "--name", "s1"]
        )
        assert fingerprint(finished.storage) == before
    assert not list(project_folder.iterdir())
