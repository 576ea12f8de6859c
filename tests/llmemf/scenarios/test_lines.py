"""Blocks of lines: nothing is lost or doubled at their seams, and damage is told."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.scenarios import lines
from llmemf.scenarios.lines import line_blocks, numbered_lines

RNG = np.random.default_rng(0)
LINES = [bytes([97 + number % 26]) * (number * 7 % 500) for number in range(3000)]
RAW = b"\n".join(LINES)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 4096)


@pytest.mark.parametrize(
    "content",
    [
        RAW,
        gzip.compress(RAW),
        gzip.compress(RAW[:70_001]) + gzip.compress(RAW[70_001:]),
        gzip.compress(RAW) + b"\0" * 5000,
    ],
    ids=["plain", "gzip", "two members", "padded"],
)
def test_blocks_are_whole_lines_with_their_numbers(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    blocks = list(line_blocks(tmp_path / "f"))
    assert b"".join(block.data for block in blocks) == RAW and len(blocks) > 10
    for block in blocks[:-1]:
        assert block.data.endswith(b"\n") and block.num_lines == block.data.count(b"\n")
        assert block.data.split(b"\n")[0] == LINES[block.first_line - 1]
    assert sum(block.num_lines for block in blocks) == len(LINES)
    found = list(numbered_lines(tmp_path / "f"))
    assert found == [(number, line.decode()) for number, line in enumerate(LINES, start=1) if line]


@pytest.mark.parametrize("content", [gzip.compress(RAW)[:-2000], gzip.compress(RAW) + b"<html>"])
def test_a_damaged_gzip_is_refused_with_the_line(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InputError, match=r"f: .* damaged behind line [0-9,]+ .*get the file again"):
        list(line_blocks(tmp_path / "f"))


def test_a_gzip_that_is_damaged_at_its_start_has_no_line(tmp_path):
    (tmp_path / "f").write_bytes(gzip.compress(RAW)[:10] + b"\xff" * 100)
    with pytest.raises(InputError, match="f: .* damaged in its first lines"):
        list(line_blocks(tmp_path / "f"))


def test_progress_ends_at_the_size_of_the_file(tmp_path):
    (tmp_path / "f").write_bytes(RNG.bytes(50_000).hex().encode().replace(b"0", b"\n"))
    seen = []
    list(line_blocks(tmp_path / "f", lambda *call: seen.append(call)))
    sizes = {size for _, _, size in seen}
    done = [done for _, done, _ in seen]
    assert sizes == {(tmp_path / "f").stat().st_size} and done == sorted(done) and done[-1] == seen[-1][2]
    assert done[0] < done[-1] / 2


def test_a_line_without_end_is_refused_before_memory_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 20_000)
    (tmp_path / "f").write_bytes(gzip.compress(b"x" * 10_000_000))
    with pytest.raises(InputError, match="one record a line"):
        list(line_blocks(tmp_path / "f"))


def test_a_missing_file_and_bytes_that_are_no_text_are_told(tmp_path):
    with pytest.raises(InputError, match="cannot read .*absent: No such file"):
        list(line_blocks(tmp_path / "absent"))
    (tmp_path / "f").write_bytes(b"a\n\nb\xff\n")
    with pytest.raises(InputError, match="f:3: expected UTF-8"):
        list(numbered_lines(tmp_path / "f"))
