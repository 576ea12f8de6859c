"""Large line files, gzip or plain, as blocks of whole lines: bounded memory, unpacked ahead in a thread of its own."""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from llmemf.errors import InputError

READ_BYTES = 1 << 18
BLOCK_BYTES = 1 << 22
LONGEST_LINE = 1 << 25
GZIP = b"\x1f\x8b"
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"\xfd7zXZ": "an xz file",
    b"\xff\xfe": "UTF-16 text",
    b"PAR1": "a Parquet file",
}

Progress = Callable[[Path, int, int], None]
"""Called with the file, its bytes read so far (as stored, so compressed), and its size."""


Piece = TypeVar("Piece")


class LineBlock(NamedTuple):
    """Whole lines, the number from 1 of the first of them, and how many there are."""

    data: bytes
    first_line: int
    num_lines: int


class LineFile:
    """One file of lines that is read once, from its beginning to its end.

    Attributes, final when the blocks are exhausted:
        damage: what is wrong with the compression, None if nothing is; what comes before it was read.
        unread_bytes: bytes of the file behind the damage.
        sha256: of the file as stored, None if not all of it was read.
    """

    def __init__(self, path: str | Path, progress: Progress | None = None) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self.unread_bytes = 0
        self.sha256: str | None = None
        self._progress = progress
        self._position = 0

    def blocks(self) -> Iterator[LineBlock]:
        """Yield the file as blocks of about 4 MiB; the last line may lack its line end.

        Raises:
            InputError: the file cannot be read, is no text, is a web page, or has a line without end.
        """
        try:
            self.size = self.path.stat().st_size
            with self.path.open("rb") as file:
                first_line = 1
                for data, position in _ahead(self._whole_lines(file)):
                    num_lines = count_lines(data)
                    yield LineBlock(data, first_line, num_lines)
                    first_line += num_lines
                    if self._progress is not None:
                        self._progress(self.path, position, self.size)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        if self._progress is not None:
            self._progress(self.path, self.size, self.size)

    def _whole_lines(self, file: BinaryIO) -> Iterator[tuple[bytes, int]]:
        """Whole lines, and how many bytes of the file had been read for them."""
        rest = b""
        at_start = True
        for piece in self._pieces(file):
            rest += piece
            if at_start and len(rest.strip()) > 0:
                at_start = False
                rest = rest.removeprefix(b"\xef\xbb\xbf")
                if rest.lstrip()[:1] == b"<":
                    raise InputError(
                        f"{self.path} is a web page, not data: the download failed; open it to see why, and repeat it"
                    )
            cut = 0 if at_start else rest.rfind(b"\n") + 1
            if cut:
                yield rest[:cut], self._position
                rest = rest[cut:]
            elif len(rest) > LONGEST_LINE:
                raise InputError(
                    f"{self.path} has a line of more than {LONGEST_LINE >> 20} MiB: expected one record a line"
                )
        if at_start and not rest.strip():
            raise InputError(f"{self.path} is empty" + (f", or not readable: {self.damage}" if self.damage else ""))
        if rest:
            yield rest, self._position

    def _pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """The unpacked content, at most BLOCK_BYTES at a time."""
        digest = hashlib.sha256()

        def read(count: int) -> bytes:
            data = file.read(count)
            digest.update(data)
            self._position += len(data)
            return data

        start = read(READ_BYTES)
        for magic, kind in FOREIGN.items():
            if start.startswith(magic):
                raise InputError(f"{self.path} is {kind}: expected gzip or UTF-8 text; convert it first")
        if start.startswith(GZIP):
            yield from self._gunzip(start, read)
        else:
            while start:
                yield start
                start = read(BLOCK_BYTES)
        if not self.unread_bytes:
            self.sha256 = digest.hexdigest()

    def _gunzip(self, packed: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
        """All members of a gzip file; stops at damage and says so in `damage`."""
        while packed:
            decoder = zlib.decompressobj(wbits=31)
            while not decoder.eof:
                at_end = not packed and not (packed := read(READ_BYTES))
                try:
                    piece = decoder.flush() if at_end else decoder.decompress(packed, BLOCK_BYTES)
                except zlib.error as error:
                    self.unread_bytes = self.size - self._position + len(packed)
                    self.damage = f"its compressed data is broken near byte {self._position - len(packed):,} ({error})"
                    return
                packed = decoder.unconsumed_tail
                if piece:
                    yield piece
                if at_end and not decoder.eof:
                    self.damage = "it ends in the middle of the compressed data, as after a download that was cut off"
                    return
            # Files may end in zeros (tape blocks); other things behind a member are no gzip.
            packed = decoder.unused_data.lstrip(b"\0")
            while not packed and (following := read(READ_BYTES)):
                packed = following.lstrip(b"\0")
            if packed and not GZIP.startswith(packed[:2]):
                self.unread_bytes = self.size - self._position + len(packed)
                self.damage = f"something that is not gzip stands at byte {self._position - len(packed):,}"
                return


def count_lines(data: bytes) -> int:
    """Number of lines, also the last one if it lacks its end."""
    ends = int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")))
    return ends + (len(data) > 0 and not data.endswith(b"\n"))


def _ahead(pieces: Iterator[Piece], depth: int = 2) -> Iterator[Piece]:
    """The same pieces, made in a thread `depth` pieces ahead (zlib lets other threads run)."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, pieces, None) for _ in range(depth))
        while (piece := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, pieces, None))
            yield piece
