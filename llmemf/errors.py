"""Exceptions that become one line for the user: bad input, and storage that fails."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

STORAGE_FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EFBIG: "a file may not grow any further",
    errno.EIO: "the disk does not work",
    errno.ESTALE: "the file server has lost a file",
}
"""Error numbers by which a disk or a file server says that it fails -> what that means."""
PASSING_FAULTS = (errno.EIO, errno.ESTALE)
"""Those of them that may pass while nobody does anything: a file server that restarts."""


class InputError(Exception):
    """Bad input: the message names the value, where it stands, and the remedy.

    Commands print the message on one line and leave with exit code 2; nothing else is caught that way.
    """


class StorageError(InputError, OSError):
    """A file that could not be written; `errno` says why (disk full, quota, read-only, ...), None where nobody knows."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    @classmethod
    def of(cls, path: Path, error: BaseException) -> Self:
        """The error for a file that could not be written.

        Args:
            error: what was raised instead; torch and safetensors hide an OSError behind, or write its number into theirs.
        """
        number = _errno_behind(error)
        reason = os.strerror(number) if number else str(error).strip().partition("\n")[0]
        return cls(f"{path} cannot be written: {reason}", number)

    def __str__(self) -> str:
        return self.args[0]

    def __reduce__(self) -> tuple:
        return type(self), (self.args[0], self.errno)


def _errno_behind(error: BaseException | None) -> int | None:
    """The error number of the OSError from which an exception came."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def storage_fault(text: str) -> int | None:
    """The number among `STORAGE_FAULTS` that an error's message or trace names, None where it speaks of no storage."""
    for number in STORAGE_FAULTS:
        if any(sign in text for sign in (f"[Errno {number}]", f"(os error {number})", os.strerror(number))):
            return number
    return None


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that offers the valid name closest to `name`, or lists all of them."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid names: {', '.join(sorted(valid))}"
