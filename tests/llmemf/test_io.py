import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from pydantic import BaseModel

from llmemf.errors import InputError
from llmemf.io import is_alive, read_array, read_json_model, remove_abandoned, scratch_folder


class Counts(BaseModel):
    num_x: int


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]", "holds list"),
        (b"null", "holds null"),
        (b"{", "line 1"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "more levels"),
        (b"{}", "'num_x'"),
        (b'{"num_x": "many"}', "'num_x'"),
        (None, "cannot be read"),
    ],
)
def test_json_of_another_shape_names_file_and_remedy(tmp_path, content, problem):
    path = tmp_path / "manifest.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError) as told:
        read_json_model(path, Counts, "make it again")
    assert str(path) in str(told.value) and problem in str(told.value) and "make it again" in str(told.value)


def test_arrays_are_read_whole_or_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    assert read_array(tmp_path / "a.npy", "").tolist() == [0, 1, 2]
    assert isinstance(read_array(tmp_path / "a.npy", "", mapped=True), np.memmap)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["text", "empty", "objects", "archive", "folder", "short", "nothing"])
def test_what_is_no_array_of_plain_values_is_refused_without_advice_to_load_it(tmp_path, kind, mapped):
    path = tmp_path / "a.npy"
    if kind == "objects":
        np.save(path, np.array([{"a": 1}], dtype=object))
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, a=np.arange(3))
    elif kind == "folder":
        path.mkdir()
    elif kind == "short":
        np.save(path, np.arange(1000))
        path.write_bytes(path.read_bytes()[:500])
    elif kind != "nothing":
        path.write_bytes({"text": b"1 2 3\n", "empty": b""}[kind])
    with pytest.raises(InputError) as told:
        read_array(path, "make it again", mapped=mapped)
    message = str(told.value)
    assert str(path) in message and "make it again" in message
    assert "unsafe" not in message and "allow_pickle" not in message


def test_only_what_dead_processes_began_is_removed(tmp_path):
    dead, alive, other = (tmp_path / name for name in (".a.99999999.tmp", f".b.{os.getpid()}.tmp", ".c.tmp"))
    dead.mkdir()
    (dead / "half").touch(), alive.touch(), other.touch()
    remove_abandoned(tmp_path)
    assert {*tmp_path.iterdir()} == {alive, other}


def test_temporary_folders_that_dead_processes_of_this_machine_left_go_first(tmp_path):
    host = socket.gethostname()
    names = (f"99999999-{host}-a", f"99999999-{host}-2-a", f"{os.getpid()}-{host}-a", "99999999-other-host-a", "abc")
    dead, *others = (tmp_path / f".prepare-{name}" for name in names)
    for folder in (dead, *others):
        folder.mkdir()
        (folder / "half").touch()
    with scratch_folder(tmp_path, "prepare") as own:
        assert {*tmp_path.iterdir()} == {own, *others}
        (own / "half").touch()
    assert {*tmp_path.iterdir()} == {*others}


def test_a_process_that_was_killed_and_not_waited_for_is_dead():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert is_alive(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid)
    assert not is_alive(process.pid)
