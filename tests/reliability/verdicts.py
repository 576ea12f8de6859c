"""What a disturbed sweep came to, compared with one that was left alone: a pure function, without a file or a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """In the order in which they are looked for; the first that fits is given."""

    HARD_FAIL = "it ended with an error, or with another exit code"
    STUCK = "it made no progress"
    SILENT_DIVERGENCE = "it ended well, with other results"
    LOST_WORK = "it trained again what was safe on the disk, or forgot what was"
    LEAK = "it left something behind: a temporary file, a run that still runs"
    PASS = "as if nothing had happened"


@dataclass(frozen=True)
class Facts:
    """What is known of a sweep that ended.

    Attributes:
        exit_code: None where it raised.
        error: what it raised, or "".
        stuck: whether it was ended because nothing moved.
        results: by name all that must be as in the undisturbed sweep: points, values, outcomes, files, runs.
        lost: sentences, one for each piece of work that was done before a crash and not used after it.
        left: names of what lies about and should not.
    """

    exit_code: int | None = 0
    error: str = ""
    stuck: bool = False
    results: Mapping[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def verdict(expected: Facts, found: Facts) -> tuple[Verdict, str]:
    """The verdict and its reason.

    Args:
        expected: of the undisturbed sweep.
        found: of the disturbed one after its last resume.
    """
    if found.stuck:
        return Verdict.STUCK, found.error
    if found.error or found.exit_code != expected.exit_code:
        return Verdict.HARD_FAIL, found.error or f"exit code {found.exit_code}, not {expected.exit_code}"
    for name in sorted(expected.results.keys() | found.results.keys()):
        before, after = expected.results.get(name), found.results.get(name)
        if before != after:
            return Verdict.SILENT_DIVERGENCE, f"{name}: {difference(before, after)}"
    if found.lost:
        return Verdict.LOST_WORK, found.lost[0]
    if set(found.left) - set(expected.left):
        return Verdict.LEAK, ", ".join(sorted(set(found.left) - set(expected.left)))
    return Verdict.PASS, ""


def difference(before: Any, after: Any) -> str:
    """The first place in which two values differ, short enough to read."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys(), key=str):
            if before.get(key) != after.get(key):
                return f"{key}: {difference(before.get(key), after.get(key))}"
    return f"{str(before)[:200]} became {str(after)[:200]}"
