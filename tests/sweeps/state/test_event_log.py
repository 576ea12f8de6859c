import errno
import json
import os
import time

import pytest

from llmemf.errors import InputError
from sweeps.state.event_log import Event
from sweeps.state.event_log import EventLog as OpenedLog

EVENTS = dict.fromkeys(("opened", "proposed", "started", "epoch", "stopped"), Event)


def EventLog(path):
    return OpenedLog(path, EVENTS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def fill(path, count=3):
    log = EventLog(path)
    written = [log.append("epoch", trial=number, value=number / 7) for number in range(count)]
    log.close()
    return written


def test_what_is_appended_is_what_is_read(path):
    log = EventLog(path)
    assert log.read() == []
    before = int(time.time() * 1000)
    first = log.append("proposed", trial=1, choice={"modalities": ("id", "text"), "lr": 0.1 + 0.2}, error='a\n"b" ä')
    second = log.append("started", trial=1)
    assert log.read() == EventLog(path).read() == [first, second]
    assert first["choice"] == {"modalities": ["id", "text"], "lr": 0.1 + 0.2} and first["error"] == 'a\n"b" ä'
    assert before <= first["time"] <= second["time"] <= int(time.time() * 1000)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [first, second], "one object per line"


def test_reading_makes_no_file(path):
    assert EventLog(path).read() == [] and not path.exists()


@pytest.mark.parametrize("damage", [b'{"event": "epo', b"", b"\0\0\0\0", b"\xff\xfe{}", b"17", b"[]", b'{"time": 5}'])
def test_a_damaged_line_in_the_middle_is_named(path, damage):
    fill(path)
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=r"journal\.jsonl, line 2 is damaged .* backup, or keep the 1 lines before"):
        EventLog(path).read()


def full_after(monkeypatch, good):
    """From now on the disk takes `good` bytes of each write, and then none."""
    real, taken = os.write, []

    def write(file, data):
        if taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken.append(real(file, data[:good]))
        return taken[0]

    monkeypatch.setattr("llmemf.io.os.write", write)


@pytest.mark.parametrize("good", [0, 1, 20])
def test_a_write_that_fails_in_the_middle_leaves_the_file_as_it_was(path, monkeypatch, good):
    log = EventLog(path)
    first = log.append("opened")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full_after(patch, good)
        with pytest.raises(OSError, match="No space left"):
            log.append("epoch", trial=1, value=0.5)
    assert path.read_bytes() == before
    second = log.append("stopped", reason="the disk is full")
    assert EventLog(path).read() == [first, second]


def test_a_write_that_the_system_splits_arrives_whole(path, monkeypatch):
    real = os.write
    monkeypatch.setattr("llmemf.io.os.write", lambda file, data: real(file, data[:7]))
    assert fill(path) == EventLog(path).read()


def test_no_value_that_is_no_number_gets_in(path):
    log = EventLog(path)
    log.append("opened")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        log.append("epoch", value=float("nan"))
    assert path.read_bytes() == before


def test_two_readers_see_what_a_writer_has_finished(path):
    writer = EventLog(path)
    for number in range(20):
        writer.append("epoch", trial=number)
        assert [event["trial"] for event in EventLog(path).read()] == list(range(number + 1))
