"""Logs of JSON lines that only grow: the sweep's events, the answers of language models, the outcomes of images."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from llmemf.errors import InputError, StorageError
from llmemf.io import storage_errors, sync


class AppendOnlyLog:
    """An append-only file of JSON objects, one per line, each on the disk before `append` returns.

    A last line without its end (a crash cut it off) never happened: readers leave it out, and the first `append` cuts it.

    Args:
        path: the file; it appears with the first record, or at once where it is locked.
        durable: wait until the disk has every line (survives a power failure, not only a kill).
        lock: whether a second process that opens the same file is refused as long as this one lives.

    Raises:
        InputError: the file is in use.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, *, durable: bool = True, lock: bool = False) -> None:
        self.path = path
        self._durable = durable
        self._file: int | None = None
        self._append_start: int | None = None
        if lock:
            try:
                fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise InputError(f"{path} is in use by another process; wait for it, or stop it") from None

    def read(self) -> list[dict[str, Any]]:
        """All records in their order.

        Raises:
            InputError: a line is no JSON object, or the file cannot be read.
        """
        return list(read_records(self.path))

    def append(self, records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write records as one piece; after an error nothing of them is left in the file.

        Returns:
            them, as they will be read.

        Raises:
            StorageError: they could not be written; the file is as it was before.
        """
        texts = [json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records]
        lines = [text.encode("utf-8", "replace") for text in texts]
        view = memoryview(b"".join(lines))
        file = self._open()
        try:
            self._undo(file)
            self._append_start = os.lseek(file, 0, os.SEEK_END)
            while view:
                view = view[os.write(file, view) :]
            if self._durable:
                os.fsync(file)
        except OSError as error:
            with suppress(OSError):  # the next append tries it again
                self._undo(file)
            raise StorageError.of(self.path, error) from error
        self._append_start = None
        return [json.loads(line) for line in lines]

    def _undo(self, file: int) -> None:
        """Cut off what an append that failed has written."""
        if self._append_start is not None:
            os.ftruncate(file, self._append_start)
            self._append_start = None

    def _open(self) -> int:
        if self._file is None:
            with storage_errors(self.path):
                is_new = not self.path.exists()
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                _cut_torn_line(self._file)
                if is_new and self._durable:
                    sync(self.path.parent)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, none where there is no file; a torn last line is left out.

    Raises:
        InputError: a line in the middle is no JSON object, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict):
                    raise InputError(
                        f"{path}, line {number} is damaged ({line[:40]!r}): bring the file back from a backup, or keep the "
                        f"{number - 1} lines before it only (what happened later is then forgotten)"
                    )
                yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _cut_torn_line(file: int) -> None:
    """Cut off a last line without its end; it would run into the next one."""
    size = os.fstat(file).st_size
    position = size
    while position:
        start = max(0, position - 65536)
        found = os.pread(file, position - start, start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position < size:
        os.ftruncate(file, position)
