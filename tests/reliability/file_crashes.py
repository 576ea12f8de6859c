"""Every different disk that a crash can leave while something writes files, and every error that a disk may give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from durable_events import Event, Recorder, Tree, fails_at, read_tree, write_tree


@dataclass
class Written:
    """What was seen while something was written.

    Attributes:
        disks: those of all crashes, each once, with where it is from.
        events: all durable events.
        end: the disks that a crash leaves after the last event, by kind.
    """

    disks: list[tuple[str, Tree]]
    events: list[Event]
    end: dict[str, Tree]


def crashed_disks(root: Path, write: Callable[[], object]) -> Written:
    """Let `write` write below `root`, and look at the disk before every event and after the last."""
    found: list[tuple[str, Tree]] = []

    def look(event: Event | None) -> None:
        for kind, tree in recorder.disks().items():
            if all(tree != known for _, known in found):
                where = "the end" if event is None else f"{event.kind} {event.path} ({event.site})"
                found.append((f"{kind}, before {where}", tree))

    with Recorder(root, look) as recorder:
        write()
    recorder.settle()
    look(None)
    return Written(found, recorder.events, recorder.disks())


def failing(
    root: Path, write: Callable[[], object], code: int, *, for_ever: bool
) -> list[tuple[str, BaseException | None, Tree]]:
    """Let each operation of `write` fail in turn, once or from then on; where, what was raised, and the disk that is left."""
    start = read_tree(root)
    with Recorder(root, disk=False) as recorder:
        write()
    found = []
    for number in range(1, len(recorder.events) + 1):
        write_tree(root, start)
        raised: BaseException | None = None
        fails = (lambda n, number=number: n >= number) if for_ever else (lambda n, number=number: n == number)
        with Recorder(root, fails_at(fails, code), disk=False) as again:
            try:
                write()
            except Exception as error:  # noqa: BLE001  the test looks at it
                raised = error
        event = again.events[number - 1]
        found.append((f"{event.kind} {event.path} ({event.site})", raised, read_tree(root)))
    write_tree(root, start)
    write()
    return found


def broken_order(events: list[Event], *, appended: tuple[str, ...] = (), in_place: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with the order of events alone, whatever a crash would do.

    A rename needs a flush of its source before and of its folder after it; a file gets its final name by a rename.

    Args:
        appended: names of files that are appended to: each write must be flushed before anything else happens there.
        in_place: names of other files that may be written under their final name (locks, logs that nobody reads).
    """
    found = []
    flushed: set[str] = set()
    for place, event in enumerate(events):
        if event.kind == "fsync":
            flushed.add(event.path)
        elif event.kind in ("open", "write", "truncate"):
            own = (*appended, *in_place)
            if (
                event.kind == "open"
                and ".tmp" not in event.path
                and not event.path.endswith(own)
                and "write-test" not in event.path
            ):
                found.append(f"{event.path} is written under its final name ({event.site})")
            flushed.discard(event.path)
            flushed.discard(str(Path(event.path).parent))
            if event.kind == "write" and event.path.endswith(appended) and appended:
                following = events[place + 1 : place + 2]
                if not following or (following[0].kind, following[0].path) != ("fsync", event.path):
                    found.append(f"{event.path} is not flushed after a line ({event.site})")
        elif event.kind == "rename":
            if event.path not in flushed:
                found.append(f"{event.path} is renamed before it is flushed ({event.site})")
            inside = {
                other.path
                for other in events[:place]
                if other.path.startswith(event.path + "/") and other.kind == "open"
            }
            found += [f"{path} is not flushed before its folder is renamed" for path in sorted(inside - flushed)]
            folder = str(Path(event.target).parent)
            following = next((other for other in events[place + 1 :] if not other.kind.startswith("mlflow")), None)
            if following is None or (following.kind, following.path) != ("fsync", "" if folder == "." else folder):
                found.append(f"{folder} is not flushed after {event.target} got its name ({event.site})")
    return found
