"""Lines of a user's text file with their numbers, so that every complaint can name its place."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from llmemf.errors import InputError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without line end) of a UTF-8 file, gzip or plain, leaving out blank lines.

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8.
    """
    number = 0
    try:
        with path.open("rb") as stored, _unpacked(stored) as file:
            for number, raw in enumerate(file, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError:
        raise InputError(f"{path}:{number}: expected UTF-8 text; convert the file to UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}:{number + 1}: the compressed data is damaged ({error}): get the file again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _unpacked(file: BinaryIO) -> BinaryIO:
    """The content of a file, whatever its name ends in."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file


def quoted(text: str, limit: int = 60) -> str:
    """The text in quotes with control characters made visible, cut to `limit` characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
