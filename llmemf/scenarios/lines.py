"""Text files by their lines, gzip or plain: in blocks of whole lines, or one by one with their numbers."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from llmemf.errors import InputError

BLOCK_BYTES = 1 << 22
LONGEST_LINE = 1 << 25
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"\xfd7zXZ": "an xz file",
    b"\xff\xfe": "UTF-16 text",
    b"PAR1": "a Parquet file",
}
NOT_UTF8 = "bytes that are not UTF-8, read as Windows-1252"

Progress = Callable[[Path, int, int], None]
"""Called with the file, its bytes read so far (as stored, so compressed), and its size."""
Piece = TypeVar("Piece")


class LineBlock(NamedTuple):
    """Whole lines, the number from 1 of the first of them, and how many there are."""

    data: bytes
    first_line: int
    num_lines: int

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, with their numbers."""
        return ((number, line) for number, line in enumerate(self.data.split(b"\n"), self.first_line) if line.strip())


def line_blocks(path: Path, progress: Progress | None = None) -> Iterator[LineBlock]:
    """Yield a file as blocks of about 4 MiB, unpacked ahead in a thread; the last line may lack its line end.

    Raises:
        InputError: the file cannot be read, is damaged, is no text, is a web page, or has a line without end.
    """
    first_line = 1
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            for data, position in _ahead(_whole_lines(path, file)):
                num_lines = data.count(b"\n") + (not data.endswith(b"\n"))
                yield LineBlock(data, first_line, num_lines)
                first_line += num_lines
                if progress is not None:
                    progress(path, position, size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        place = f"behind line {first_line - 1:,}" if first_line > 1 else "in its first lines"
        raise InputError(f"{path}: the compressed data is damaged {place} ({error}): get the file again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if progress is not None:
        progress(path, size, size)


def _whole_lines(path: Path, stored: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Whole lines, and how many bytes of the file had been read for them."""
    start = stored.read(8)
    stored.seek(0)
    for magic, kind in FOREIGN.items():
        if start.startswith(magic):
            raise InputError(f"{path} is {kind}: expected gzip or UTF-8 text; convert it first")
    file = gzip.GzipFile(fileobj=stored) if start.startswith(b"\x1f\x8b") else stored
    rest, at_start = b"", True
    while piece := file.read(BLOCK_BYTES):
        rest += piece
        if at_start and rest.strip():
            at_start = False
            rest = rest.removeprefix(codecs.BOM_UTF8)
            if rest.lstrip()[:1] == b"<":
                raise InputError(
                    f"{path} is a web page, not data: the download failed; open it to see why, and repeat it"
                )
        cut = 0 if at_start else rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut], stored.tell()
            rest = rest[cut:]
        elif len(rest) > LONGEST_LINE:
            raise InputError(f"{path} has a line of more than {LONGEST_LINE >> 20} MiB: expected one record a line")
    if at_start:
        raise InputError(f"{path} is empty")
    if rest:
        yield rest, stored.tell()


def _ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, made in a thread two pieces ahead (zlib lets other threads run)."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, pieces, None) for _ in range(2))
        while (piece := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, pieces, None))
            yield piece


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without line end) of a UTF-8 file, gzip or plain, leaving out blank lines.

    Raises:
        InputError: as `line_blocks`; or a line is not UTF-8.
    """
    for block in line_blocks(path):
        for number, line in block.lines():
            try:
                yield number, line.decode().rstrip("\r")
            except UnicodeDecodeError:
                raise InputError(f"{path}:{number}: expected UTF-8 text; convert the file to UTF-8") from None


def once(lines_of: dict[Any, int], value: Any, path: Path, number: int, what: str) -> None:
    """Note the line on which a value stands.

    Raises:
        InputError: it stands on another line already.
    """
    if lines_of.setdefault(value, number) != number:
        raise InputError(f"{path}:{number}: {what} stands already on line {lines_of[value]}: remove one of them")


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", errors="replace"), error.end


codecs.register_error("llmemf_cp1252", _as_windows_1252)


def decode(line: bytes) -> tuple[str, str | None]:
    """The text of a line, and NOT_UTF8 if single bytes had to be taken for Windows-1252."""
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return line.decode(errors="llmemf_cp1252"), NOT_UTF8


def quoted(text: str, limit: int = 60) -> str:
    """The text in quotes with control characters made visible, cut to `limit` characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
