"""Files of this project on the disk: whole or not there, and hashed; `append_only_log` has those that grow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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


@contextmanager
def scratch_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """A folder for temporary files below `parent`, gone with the block; what killed processes of this machine left goes first.

    Its name, `.PURPOSE-PROCESS-MACHINE-...`, says whose it is, so that other machines may have theirs in the same place.

    Raises:
        StorageError: it cannot be made.
    """
    with storage_errors(parent):
        make_folder(parent)
        for path in parent.glob(f".{purpose}-*-*-*"):
            owner, _, rest = path.name.removeprefix(f".{purpose}-").partition("-")
            if owner.isdecimal() and rest.rpartition("-")[0] == socket.gethostname() and not is_alive(int(owner)):
                shutil.rmtree(path, ignore_errors=True)  # where it cannot be removed, it is in nobody's way
        folder = Path(tempfile.mkdtemp(prefix=f".{purpose}-{os.getpid()}-{socket.gethostname()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    return bytes_hash(separator.join(parts).encode("utf-8", "replace"))


def json_hash(content: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return bytes_hash(json.dumps(content, sort_keys=True).encode())


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


def read_json_model(path: Path, kind: type[Model], remedy: str, *, version: int | None = None) -> Model:
    """A JSON file whose object has certain keys, each of a certain kind.

    Args:
        version: what its key `format` must say, where it has one.

    Raises:
        FileNotFoundError, InputError: as `read_json_object`; or it is of another format, or a key is missing or of another
            kind, which is named.
    """
    from pydantic import ValidationError

    content = read_json_object(path, remedy)
    if version is not None and content.get("format") != version:
        raise InputError(f"{path} has format {content.get('format')}, this version reads {version}: {remedy}")
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
