"""Files that are appended to, cut at every byte: what was written before the cut is there, and the next line is whole."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from durable_events import ERRORS, Recorder, fails_at, write_tree
from file_crashes import broken_order, crashed_disks, failing
from sweep_fakes import epoch_result
from tiny import make_scenario

from llmemf.append_only_log import AppendOnlyLog
from llmemf.errors import InputError, StorageError
from llmemf.features.image_table import LOG, ImageStore
from llmemf.features.llm_cache import NAME, AnswerCache
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.sweep_state import SweepState

SCENARIO = make_scenario()


@dataclass
class Log:
    """A kind of append-only file.

    Attributes:
        name: of the file.
        write: appends one record, whose number it is given.
        read: numbers of the records that are known after the file was opened anew.
    """

    name: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], list[int]]
    durable: bool = True


def write_event(folder: Path, number: int) -> None:
    state = SweepState(folder)
    if number == 0:
        state.propose({"lr": 0.1}, ("lr",), 9, {})
    else:
        state.add(state.records[1], epoch_result(number, number / 10, note="\u00e4\u2028"), stopped=False)
    state.event_log.close()


def read_events(folder: Path) -> list[int]:
    records = SweepState(folder).records
    return [*range(len(records)), *range(1, records[1].epoch + 1)] if records else []


def write_answer(folder: Path, number: int) -> None:
    with AnswerCache.open(folder) as cache:
        cache.add(
            [{"key": f"k{number}", "model": "m", "prompt": "p", "status": "ok", "text": "gr\u00fcn\u2028", "usd": 0.5}]
        )


def read_answers(folder: Path) -> list[int]:
    cache = AnswerCache.peek(folder)
    assert cache.usd == 0.5 * len(cache.entries)
    return [int(key[1:]) for key in cache.entries]


def write_image(folder: Path, number: int) -> None:
    with ImageStore(dataclasses.replace(SCENARIO, folder=folder)) as store:
        store.note([number], f"http://x/{number}", "gone")


def read_images(folder: Path) -> list[int]:
    with ImageStore(dataclasses.replace(SCENARIO, folder=folder)) as store:
        return list(store.outcomes)


LOGS = {
    "event log": Log(EVENT_LOG, write_event, read_events),
    "answers of language models": Log(NAME, write_answer, read_answers),
    "outcomes of images": Log(LOG, write_image, read_images, durable=False),
}


def whole(log: Log, folder: Path, count: int = 3) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        log.write(folder, number)
    return (folder / log.name).read_bytes()


@pytest.mark.parametrize("name", LOGS)
def test_cut_at_any_byte_it_has_the_lines_before_and_takes_the_next(quick_folder, name):
    log = LOGS[name]
    content = whole(log, quick_folder)
    ends = [place + 1 for place, byte in enumerate(content) if byte == 10]
    # Lines differ in nothing but numbers: of the middle of a long one every 7th byte stands for all.
    cuts = sorted({0, *range(0, len(content), 7), *(end + more for end in ends for more in (-2, -1, 0, 1))})
    for cut in [cut for cut in cuts if cut <= len(content)]:
        (quick_folder / log.name).write_bytes(content[:cut])
        known = sum(end <= cut for end in ends)
        assert log.read(quick_folder) == list(range(known)), cut
        log.write(quick_folder, known)
        assert log.read(quick_folder) == list(range(known + 1)), cut


@pytest.mark.parametrize("tail", [b"{", b'{"event": "epoch', b"\xff\xfe", b"\x00" * 4096, b" "])
@pytest.mark.parametrize("name", LOGS)
def test_a_tail_without_an_end_never_happened(quick_folder, name, tail):
    """A power failure may leave any bytes behind the last flush, zeros above all."""
    log = LOGS[name]
    content = whole(log, quick_folder)
    (quick_folder / log.name).write_bytes(content + tail)
    assert log.read(quick_folder) == [0, 1, 2]
    log.write(quick_folder, 3)
    assert log.read(quick_folder) == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", [b"\n", b"garbage\n", b"[1]\n", b"\x00\x00\n"])
@pytest.mark.parametrize("name", LOGS)
def test_a_line_in_the_middle_that_is_damaged_is_named(quick_folder, name, damage):
    log = LOGS[name]
    lines = whole(log, quick_folder).splitlines(keepends=True)
    (quick_folder / log.name).write_bytes(lines[0] + damage + lines[1])
    with pytest.raises(InputError, match=f"{log.name}, line 2"):
        log.read(quick_folder)


@pytest.mark.parametrize("name", LOGS)
def test_a_crash_while_a_line_is_appended_loses_that_line_at_most(quick_folder, name):
    log = LOGS[name]
    whole(log, quick_folder)
    written = crashed_disks(quick_folder, lambda: log.write(quick_folder, 3))
    if log.durable:
        assert broken_order(written.events, appended=(log.name,)) == []
    for where, disk in written.disks:
        write_tree(quick_folder, disk)
        known = log.read(quick_folder)
        assert known in ([0, 1, 2], [0, 1, 2, 3]), where
        log.write(quick_folder, len(known))
        assert log.read(quick_folder) == [*known, len(known)], where
    for lost, disk in written.end.items():
        write_tree(quick_folder, disk)
        assert not log.durable or log.read(quick_folder) == [0, 1, 2, 3], lost


@pytest.mark.parametrize("name", LOGS)
def test_the_first_line_is_safe_together_with_the_name_of_the_file(quick_folder, name):
    log = LOGS[name]
    quick_folder.mkdir(parents=True, exist_ok=True)
    written = crashed_disks(quick_folder, lambda: log.write(quick_folder, 0))
    for where, disk in written.disks:
        write_tree(quick_folder, disk)
        assert log.read(quick_folder) in ([], [0]), where
    for lost, disk in written.end.items():
        write_tree(quick_folder, disk)
        assert not log.durable or log.read(quick_folder) == [0], lost


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("name", LOGS)
def test_an_error_of_the_disk_is_told_and_a_line_is_there_or_not(quick_folder, name, code, for_ever):
    log = LOGS[name]
    whole(log, quick_folder)
    for where, raised, disk in failing(
        quick_folder, lambda: log.write(quick_folder, 3), ERRORS[code], for_ever=for_ever
    ):
        assert isinstance(raised, StorageError) and raised.errno == ERRORS[code], f"{where}: {raised!r}"
        assert log.name in str(raised)
        write_tree(quick_folder, disk)
        known = log.read(quick_folder)
        # An error for ever also forbids to take back what may be on the disk.
        assert known == [0, 1, 2] or (for_ever and known == [0, 1, 2, 3]), where
        log.write(quick_folder, len(known))
        assert log.read(quick_folder) == [*known, len(known)], where


def test_an_append_that_failed_does_not_come_back_with_the_next_one(quick_folder):
    """The same process goes on after an error: records that it was told of as not written must stay so."""
    quick_folder.mkdir(parents=True, exist_ok=True)
    path = quick_folder / "log"
    for code, failing_number, further in itertools.product(ERRORS.values(), range(1, 20), (0, 1)):
        # Two errors in a row also hit what takes a half-written line back.
        failing = {failing_number, failing_number + further}
        path.unlink(missing_ok=True)
        told = []
        with (
            Recorder(quick_folder, fails_at(failing.__contains__, code), disk=False),
            AppendOnlyLog(path) as log,
        ):
            for number in (1, 2, 3, 4):
                try:
                    log.append([{"n": number}])
                    told.append(number)
                except StorageError:
                    pass
        found = [json.loads(line)["n"] for line in path.read_text().splitlines()] if path.exists() else []
        # Where the last one also could not be taken back, the next process takes it for written.
        assert [number for number in found if number in told] == told and set(found) - set(told) <= {4}, failing
