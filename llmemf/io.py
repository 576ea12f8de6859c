"""Files of this project on the disk: whole or not there, hashed, or appended to. The one place for all of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from llmemf.errors import InputError, StorageError

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")

SYNCS = 8
"""So many files of a folder are flushed at once: disks take them almost as fast as one."""


@contextmanager
def storage_errors(path: Path, others: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Where something in the block cannot be written, raise StorageError: of `path`, unless it names another file already.

    Args:
        others: what a library raises beside OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except (OSError, *others) as error:  # type: ignore[misc]  # a tuple of exceptions
        raise StorageError.of(path, error) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place, flushed to the disk, when the block ends without an error.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be removed either
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `target` when the block ends without an error.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with storage_errors(target):
            make_folder(target.parent)
            temporary.mkdir()
            yield temporary
            with ThreadPoolExecutor(SYNCS) as pool:
                list(pool.map(sync, temporary.rglob("*")))
            sync(temporary)
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Create a folder and those above it that do not exist, each on the disk with its name."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def writable_folder(folder: Path) -> None:
    """Make a folder where there is none, and write into it once.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(folder):
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 65536)
            file.flush()


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes were about to write into a folder; call it where no other machine writes there.

    Raises:
        StorageError: it cannot be removed.
    """
    with storage_errors(folder):
        for path in folder.glob(".*.tmp"):
            owner = path.name.split(".")[-2]
            if owner.isdecimal() and not is_alive(int(owner)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine; one that has ended and was not waited for does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != "Z"


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def bytes_hash(*parts: bytes | memoryview) -> str:
    """SHA-256 of bytes end to end."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def text_hash(*parts: str, separator: str = "\x1f") -> str:
    """SHA-256 of texts end to end."""
    return hashlib.sha256(separator.join(parts).encode("utf-8", "replace")).hexdigest()


def json_hash(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json_object(path: Path, remedy: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        remedy: what the user can do where the file is damaged ("import it again").

    Raises:
        FileNotFoundError: there is no file.
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        problem = f" cannot be read ({error.strerror or error})"
    except UnicodeDecodeError as error:
        problem = f" is not UTF-8 text (byte {error.start:,})"
    except json.JSONDecodeError as error:
        problem = f", line {error.lineno} is not JSON ({error.msg})"
    except RecursionError:
        problem = " is JSON of more levels than can be read"
    else:
        if isinstance(content, dict):
            return content
        problem = f" holds {'null' if content is None else type(content).__name__}, not an object"
    raise InputError(f"{path}{problem}: {remedy}")


def read_json_model(path: Path, kind: type[Model], remedy: str) -> Model:
    """A JSON file whose object has certain keys, each of a certain kind.

    Raises:
        FileNotFoundError, InputError: as `read_json_object`; or a key is missing or of another kind, which is named.
    """
    return as_model(read_json_object(path, remedy), kind, path, remedy)


def as_model(content: dict[str, Any], kind: type[Model], path: Path, remedy: str) -> Model:
    """The content of a file with its keys checked.

    Raises:
        InputError: a key is missing or of another kind, which is named.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}, {key!r}: {first['msg'].lower()}: {remedy}") from None


def read_array(path: Path, remedy: str, *, mapped: bool = False) -> np.ndarray:
    """The array of a .npy file; nothing pickled is ever loaded.

    Args:
        remedy: what the user can do where the file is damaged.
        mapped: leave it on the disk until it is used.

    Raises:
        InputError: it cannot be read, or holds something else than one array of plain values.
    """
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from None
    except (ValueError, EOFError, MemoryError):  # numpy's own words name a way to load what must not be loaded
        raise InputError(f"{path} is not a whole .npy file of plain values: {remedy}") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise InputError(f"{path} is an archive of several arrays, not a .npy file of one: {remedy}")
    return found


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
