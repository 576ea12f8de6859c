"""Every durable event below a folder (a file opened to write, written, flushed, renamed, removed, ...), and the disk at each.

`Recorder` sees events before they happen: through Python's audit hooks, and through wrappers where Python audits nothing.
Its owner can look at the disk there (`Recorder.disks`), let the operation fail, or end the process.
A crash after an event is one before the next, so N events have N + 1 places to die at.

What a power failure leaves is computed from the flushes that were seen.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

Tree = dict[str, bytes | None]
"""Path below the root -> content of a file; None for a folder."""
KINDS = ("kept", "torn", "data lost", "names lost")
"""What a crash does to what was not flushed: nothing; half of it is there; none of it; nor any name that was not flushed."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Event:
    """One operation: `kind`, its path below the root, and the place in the product's code that asked for it."""

    number: int
    kind: str
    path: str
    target: str
    site: str


@dataclass
class _Entry:
    """What a disk surely has of a file or folder: its content and its names as of their last flush."""

    content: bytes = b""
    names: dict[str, _Entry] = field(default_factory=dict)
    is_folder: bool = False


class _Own(threading.local):
    acts = False


class Recorder:
    """Sees all durable events below `root` while it is entered.

    Args:
        root: an existing folder.
        before: called with every event before it happens; what it raises takes the place of the operation.
        disk: whether `disks` will be asked for.

    Attributes:
        events: all so far.
        outside: files elsewhere that were opened to write.
    """

    active: Recorder | None = None
    _listens = False

    def __init__(self, root: Path, before: Callable[[Event], None] = lambda event: None, *, disk: bool = True) -> None:
        self.root, self.before, self._looks = root.resolve(), before, disk
        self.events: list[Event] = []
        self.outside: list[str] = []
        self._live: dict[str, _Entry] = {"": _Entry(is_folder=True)}
        self._last: tuple[str, str, str] | None = None
        self._lock, self._own = threading.RLock(), _Own()  # several threads flush files of a folder

    def __enter__(self) -> Self:
        assert Recorder.active is None, "one recorder at a time"
        if not Recorder._listens:
            Recorder._listens = True
            sys.addaudithook(_audit)  # for good: no hook can be taken back
        self._scan()
        for path in self._live:  # what lies there at the beginning has been there for long
            self._flush(path)
        self._real = {name: getattr(os, name) for name in ("write", "fsync")}
        for name, real in self._real.items():
            setattr(os, name, _seen(real, name))
        Recorder.active = self
        return self

    def __exit__(self, *_: object) -> None:
        Recorder.active = None
        for name, real in self._real.items():
            setattr(os, name, real)

    def see(self, kind: str, path: Any, target: Any = None) -> None:
        """An operation is about to happen; those of the recorder's own are none."""
        if self._own.acts:
            return
        with self._acting():
            inside = self._inside(path)
            if inside is None:
                if kind == "open":
                    self.outside.append(os.fsdecode(path))
                return
            self.settle()
            to = "" if target is None else self._inside(target) or os.fsdecode(target)
            event = Event(len(self.events) + 1, kind, inside, to, _site())
            self.events.append(event)
        self.before(event)  # which may run another driver, with threads of its own
        with self._acting():
            self.settle()  # what another thread did meanwhile
            self._last = (kind, inside, to)

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Inside, one thread of the recorder's own is at work: what it does is no event."""
        with self._lock:
            before, self._own.acts = self._own.acts, True
            try:
                yield
            finally:
                self._own.acts = before

    def call(self, kind: str) -> None:
        """A call of a server is about to happen; a crash can fall between two of them, too."""
        self.see(kind, self.root / "server")

    def settle(self) -> None:
        """Take in the last event, which has happened, or failed, by now."""
        last, self._last = self._last, None
        if not self._looks:
            return
        if last:
            kind, path, target = last
            if kind == "rename" and (self.root / target).exists() and not (self.root / path).exists():
                for name in [name for name in self._live if name == target or name.startswith(target + "/")]:
                    del self._live[name]
                for name in [name for name in self._live if name == path or name.startswith(path + "/")]:
                    self._live[target + name[len(path) :]] = self._live.pop(name)
            elif kind == "fsync":
                self._scan()
                self._flush(path)
        self._scan()

    def _scan(self) -> None:
        found = dict(_names(str(self.root), ""))
        for name, is_folder in found.items():
            if name not in self._live:
                self._live[name] = _Entry(is_folder=is_folder)
        for name in self._live.keys() - found.keys() - {""}:
            del self._live[name]

    def _flush(self, path: str) -> None:
        entry = self._live.get(path)
        if entry is None:
            return
        if entry.is_folder:
            inner = path + "/" if path else ""
            entry.names = {
                name[len(inner) :]: child
                for name, child in self._live.items()
                if name and name.startswith(inner) and "/" not in name[len(inner) :]
            }
        else:
            entry.content = (self.root / path).read_bytes()

    def _inside(self, path: Any) -> str | None:
        """The path below the root, of a path or a file descriptor; None elsewhere."""
        text = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
        if not text.startswith("/"):
            if isinstance(path, int):  # a pipe or a socket
                return None
            text = os.path.abspath(text)
        text = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        if text == str(self.root):
            return ""
        return text[len(str(self.root)) + 1 :] if text.startswith(str(self.root) + "/") else None

    def disks(self) -> dict[str, Tree]:
        """What a crash at this moment leaves, by kind; see `KINDS`."""
        with self._acting():
            kept = read_tree(self.root)
            torn, lost = dict(kept), dict(kept)
            for name, content in kept.items():
                if content is not None and content != (sure := self._live[name].content):
                    torn[name], lost[name] = _half(sure, content), sure
            return dict(zip(KINDS, (kept, torn, lost, dict(self._surely("", self._live[""])))))

    def _surely(self, path: str, entry: _Entry) -> list[tuple[str, bytes | None]]:
        found: list[tuple[str, bytes | None]] = []
        for name, child in entry.names.items():
            inner = f"{path}/{name}" if path else name
            found.append((inner, None if child.is_folder else child.content))
            found += self._surely(inner, child)
        return found


def _half(sure: bytes, content: bytes) -> bytes:
    kept = len(sure) if content.startswith(sure) else 0
    return content[: kept + (len(content) - kept) // 2]


def _site() -> str:
    """The innermost function of the product that is running, with its file and line."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("llmemf.", "sweeps.")):
            return f"{module}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


@functools.cache
def memory_folder() -> Path:
    """The same path for all sweeps of this process, since a sweep knows its folder; flushing costs no time in memory."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    parent = tempfile.mkdtemp(dir=memory, prefix="reliability-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return Path(parent) / "root"


def _names(folder: str, inner: str) -> Iterator[tuple[str, bool]]:
    """Names below a folder, and whether each is one."""
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            yield inner + entry.name, is_folder
            if is_folder:
                yield from _names(entry.path, f"{inner}{entry.name}/")


def read_tree(root: Path) -> Tree:
    """All that lies below a folder."""
    return {name: None if is_folder else (root / name).read_bytes() for name, is_folder in _names(str(root), "")}


def write_tree(root: Path, tree: Tree) -> None:
    """Make a folder hold a tree and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, content in sorted(tree.items()):
        if content is None:
            (root / name).mkdir(exist_ok=True)
        else:
            (root / name).write_bytes(content)


def fails_at(numbers: Callable[[int], bool], code: int) -> Callable[[Event], None]:
    """A `before` that lets the operations with these numbers fail with an error of the system; flushes and closes too."""

    def before(event: Event) -> None:
        if numbers(event.number) and not event.kind.startswith("mlflow"):
            raise OSError(code, os.strerror(code), event.path)

    return before


ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}


def _audit(name: str, arguments: tuple[Any, ...]) -> None:
    recorder = Recorder.active
    if recorder is None or recorder._own.acts:
        return
    if name == "open":
        path, mode, flags = arguments
        writes = bool(flags & WRITING) if isinstance(flags, int) else any(letter in str(mode) for letter in "wax+")
        if writes and not isinstance(path, int):
            recorder.see("open", path)
    elif name == "os.rename":
        recorder.see("rename", arguments[0], arguments[1])
    elif name in ("os.remove", "os.rmdir", "os.mkdir"):
        path, folder = arguments[0], arguments[-1]
        if isinstance(folder, int) and folder >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        new = name == "os.mkdir"
        # An operation that finds nothing to do, or no place to do it in, is none.
        if os.path.lexists(path) != new and os.path.isdir(os.path.dirname(os.path.abspath(path))):
            recorder.see(name[3:], path)
    elif name == "os.truncate":
        recorder.see("truncate", arguments[0])


def _seen(real: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Python audits neither writes nor flushes."""

    def wrapped(file: int, *rest: Any) -> Any:
        if Recorder.active is not None:
            Recorder.active.see(kind, file)
        return real(file, *rest)

    return wrapped
