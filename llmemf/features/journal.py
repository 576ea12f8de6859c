"""An append-only file of JSON lines that survives a kill and belongs to one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from llmemf.errors import InputError


class Journal:
    """JSON lines, written whole and flushed to the disk before `append` returns.

    A last line without its end (the process was killed while it wrote) is dropped when the file is opened. A second
    process that opens the same file is refused as long as the first one lives; the lock goes with its process.

    Args:
        path: the file; created where it does not exist.
        durable: wait until the disk has every line (survives a power failure, not only a kill).

    Raises:
        InputError: the file is in use, cannot be written, or holds a broken line in its middle.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise InputError(f"{path} is in use by another process; wait for it, or stop it") from None
        try:
            self._repair()
            self.records = list(read_journal(path))
        except BaseException:
            os.close(self._file)
            raise

    def _repair(self) -> None:
        """Cut off an unfinished last line."""
        size = os.fstat(self._file).st_size
        end, position = 0, size
        while position and not end:
            start = max(0, position - 65536)
            found = os.pread(self._file, position - start, start).rfind(b"\n")
            end, position = (start + found + 1 if found >= 0 else 0), start
        if end < size:
            os.ftruncate(self._file, end)

    def append(self, records: Iterable[dict]) -> None:
        """Write records as one piece; after an error nothing of them is left in the file.

        Raises:
            InputError: the disk is full or gone.
        """
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8", "replace")
        size = os.fstat(self._file).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if self._durable:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise InputError(
                f"{self.path} cannot be written: {error.strerror or error}; free the disk and run again"
            ) from None

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_journal(path: Path) -> Iterator[dict]:
    """The records of a journal, none where there is no file; an unfinished last line is left out.

    Raises:
        InputError: a line in the middle is no JSON object.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if not isinstance(record, dict):
                    raise InputError(
                        f"{path} line {number} is no record of this journal: remove the line and run again"
                    )
                yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def write_atomically(path: Path, write) -> None:
    """Let `write(temporary)` make a file that then takes the place of `path`.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
