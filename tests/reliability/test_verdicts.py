"""Verdicts in their order, and the recorder that they rest on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from durable_events import ERRORS, Recorder, fails_at, read_tree, write_tree
from verdicts import Facts, Verdict, verdict

GOOD = Facts(results={"winner": "t01", "values": {"t01": [0.1, 0.2]}})


@pytest.mark.parametrize(
    ("found", "expected", "reason"),
    [
        (GOOD, Verdict.PASS, ""),
        (Facts(error="InputError: x"), Verdict.HARD_FAIL, "InputError: x"),
        (Facts(exit_code=2, results=GOOD.results), Verdict.HARD_FAIL, "exit code 2"),
        (Facts(error="no step", stuck=True), Verdict.STUCK, "no step"),
        (Facts(results={**GOOD.results, "winner": "t02"}), Verdict.SILENT_DIVERGENCE, "t01 became t02"),
        (Facts(results={"winner": "t01"}), Verdict.SILENT_DIVERGENCE, "values"),
        (Facts(results={**GOOD.results, "values": {"t01": [0.1, 0.3]}}), Verdict.SILENT_DIVERGENCE, "values: t01"),
        (Facts(results=GOOD.results, lost=("epoch 2 was safe",), left=("x.tmp",)), Verdict.LOST_WORK, "epoch 2"),
        (Facts(results=GOOD.results, left=("x.tmp",)), Verdict.LEAK, "x.tmp"),
    ],
)
def test_verdicts(found, expected, reason):
    given, why = verdict(GOOD, found)
    assert given is expected and reason in why


def small_story(root: Path) -> None:
    """A file that is flushed, one that is not, and a rename whose folder is not flushed."""
    handle = os.open(root / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(handle, b"line\n")
    os.fsync(handle)
    os.write(handle, b"more\n")
    os.close(handle)
    (root / "new").write_text("12345678")
    (root / "new").rename(root / "named")


def test_what_a_crash_leaves(tmp_path):
    (tmp_path / "old").write_text("old")
    with Recorder(tmp_path) as recorder:
        small_story(tmp_path)
    recorder.settle()
    disks = recorder.disks()
    assert disks["kept"] == {"old": b"old", "log": b"line\nmore\n", "named": b"12345678"}
    assert disks["torn"] == {"old": b"old", "log": b"line\nmo", "named": b"1234"}
    assert disks["data lost"] == {"old": b"old", "log": b"line\n", "named": b""}
    assert disks["names lost"] == {"old": b"old"}
    kinds = [(event.kind, event.path, event.target) for event in recorder.events]
    assert kinds == [
        ("open", "log", ""), ("write", "log", ""), ("fsync", "log", ""), ("write", "log", ""),
        ("open", "new", ""), ("rename", "new", "named"),
    ]  # fmt: skip


def test_after_a_flush_of_the_folder_its_names_are_safe(tmp_path):
    with Recorder(tmp_path) as recorder:
        small_story(tmp_path)
        handle = os.open(tmp_path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        (tmp_path / "log").unlink()
    recorder.settle()
    assert recorder.disks()["names lost"] == {"log": b"line\n", "named": b""}


@pytest.mark.parametrize("number", range(1, 7))
def test_any_operation_can_fail(tmp_path, number):
    with (
        Recorder(tmp_path, fails_at(lambda n: n == number, ERRORS["EIO"])),
        pytest.raises(OSError, match="Input/output") as error,
    ):
        small_story(tmp_path)
    assert error.value.errno == ERRORS["EIO"]


def test_files_elsewhere_are_noticed(tmp_path):
    (tmp_path / "root").mkdir()
    with Recorder(tmp_path / "root") as recorder:
        (tmp_path / "stray").write_text("x")
    assert recorder.outside == [str(tmp_path / "stray")] and recorder.events == []


def test_trees_are_written_as_they_were_read(tmp_path):
    tree = {"a": None, "a/b": b"1", "c": b""}
    write_tree(tmp_path / "t", {"other": b""})
    write_tree(tmp_path / "t", tree)
    assert read_tree(tmp_path / "t") == tree
