"""Blocks of lines: nothing is lost or doubled at their seams, and damage is told."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.scenarios import line_blocks
from llmemf.scenarios.line_blocks import LineFile

RNG = np.random.default_rng(0)
LINES = [bytes([97 + number % 26]) * (number * 7 % 500) for number in range(3000)]
RAW = b"\n".join(LINES)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(line_blocks, "READ_BYTES", 1000)
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 4096)


def read(path):
    file = LineFile(path)
    blocks = list(file.blocks())
    return file, blocks, b"".join(block.data for block in blocks)


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
    file, blocks, raw = read(tmp_path / "f")
    assert raw == RAW and len(blocks) > 10
    assert (file.damage, file.unread_bytes) == (None, 0) and len(file.sha256) == 64
    for block in blocks[:-1]:
        assert block.data.endswith(b"\n") and block.num_lines == block.data.count(b"\n")
        assert block.data.split(b"\n")[0] == LINES[block.first_line - 1]
    assert sum(block.num_lines for block in blocks) == len(LINES)


def test_a_cut_gzip_gives_what_it_holds(tmp_path):
    packed = gzip.compress(RNG.bytes(100_000).hex().encode().replace(b"0", b"\n"))
    (tmp_path / "f").write_bytes(packed[: len(packed) // 2])
    file, _, raw = read(tmp_path / "f")
    assert "ends in the middle" in file.damage and file.unread_bytes == 0
    assert gzip.decompress(packed).startswith(raw) and 80_000 < len(raw) < 120_000


def test_what_follows_a_gzip_is_told(tmp_path):
    (tmp_path / "f").write_bytes(gzip.compress(RAW) + b"<html>")
    file, _, raw = read(tmp_path / "f")
    assert raw == RAW and "not gzip" in file.damage and file.unread_bytes == 6


def test_progress_ends_at_the_size_of_the_file(tmp_path):
    (tmp_path / "f").write_bytes(gzip.compress(RNG.bytes(50_000).hex().encode().replace(b"0", b"\n")))
    seen = []
    list(LineFile(tmp_path / "f", lambda *call: seen.append(call)).blocks())
    sizes = {size for _, _, size in seen}
    done = [done for _, done, _ in seen]
    assert sizes == {(tmp_path / "f").stat().st_size} and done == sorted(done) and done[-1] == seen[-1][2]
    assert done[0] < done[-1] / 2


def test_a_line_without_end_is_refused_before_memory_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(line_blocks, "LONGEST_LINE", 20_000)
    (tmp_path / "f").write_bytes(gzip.compress(b"x" * 10_000_000))
    with pytest.raises(InputError, match="one record a line"):
        read(tmp_path / "f")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot read .*absent: No such file"):
        read(tmp_path / "absent")
