import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from mlflow.store.db.utils import _get_alembic_config

from llmemf.errors import InputError
from sweeps.tracking.addresses import absolute_uri, first_call, unusable

ROOT = Path(__file__).resolve().parents[3]


def test_tracking_uris_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(None, tmp_path / "mlruns") == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert absolute_uri("sqlite:///my.db", tmp_path) == f"sqlite:///{tmp_path}/my.db"
    assert absolute_uri("sqlite:////abs/my.db", tmp_path) == "sqlite:////abs/my.db"
    assert absolute_uri("http://host:5000", tmp_path) == "http://host:5000"
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute_uri("sqlite:///~/my.db", tmp_path) == "sqlite:////home/somebody/my.db"


@pytest.mark.parametrize(
    "uri", ["mlruns", "file:///mlruns", "htp://host:5000", "http://host:99999", "http://", "http://[::1"]
)
def test_what_is_no_address_is_named(tmp_path, uri):
    with pytest.raises(InputError) as told:
        absolute_uri(uri, tmp_path)
    assert f"--tracking-uri {uri}:" in str(told.value)


OPEN = """
import sys
from sweeps.tracking.mlflow_runs import mlflow_client
print(len(mlflow_client(sys.argv[1]).search_experiments()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("former", [False, True], ids=["new", "one revision old"])
def test_several_first_starts_on_one_database_wait_for_each_other(tmp_path, empty_database, former):
    path = tmp_path / "mlflow.db"
    if former:
        path.write_bytes(empty_database.read_bytes())
        command.downgrade(_get_alembic_config(f"sqlite:///{path}"), "-1")
    words = [sys.executable, "-c", OPEN, f"sqlite:///{path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        said, problem = process.communicate(timeout=300)
        assert process.returncode == 0 and said.strip() == "1", problem


def test_a_client_waits_while_another_process_opens_the_database(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with first_call(uri), (tmp_path / ".mlflow.db.lock").open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with first_call("http://host:5000"), first_call(f"sqlite:///{tmp_path}/missing/mlflow.db"):
        assert [path.name for path in tmp_path.iterdir()] == [".mlflow.db.lock"]


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("(sqlite3.DatabaseError) file is not a database", "is no database"),
        ("(sqlite3.OperationalError) database is locked", "held by another process"),
        ("(sqlite3.OperationalError) database or disk is full", "no space left"),
        ("(sqlite3.DatabaseError) database disk image is malformed", "is damaged"),
        ("(sqlite3.OperationalError) unable to open database file", "cannot be opened"),
        ("something else", "something else"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_from_a_server_that_is_away(said, meaning):
    message = str(unusable("sqlite:////x/mlflow.db", RuntimeError(said)))
    assert "/x/mlflow.db" in message and meaning in message and "start the server" not in message
    assert "start the server" in str(unusable("http://h:5000", RuntimeError(said)))
