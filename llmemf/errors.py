"""Exceptions that become one line for the user: bad input, and storage that fails."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Self


class InputError(Exception):
    """Bad input: the message names the value, where it stands, and the remedy.

    Commands print the message on one line and leave with exit code 2; nothing else is caught that way.
    """


class StorageError(InputError, OSError):
    """A file that could not be written; `errno` says why (disk full, quota, read-only, ...)."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    @classmethod
    def of(cls, path: Path, error: OSError) -> Self:
        return cls(f"{path} cannot be written: {error.strerror or error}", error.errno)

    def __str__(self) -> str:
        return self.args[0]

    def __reduce__(self) -> tuple:
        return type(self), (self.args[0], self.errno)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that offers the valid name closest to `name`, or lists all of them."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid names: {', '.join(sorted(valid))}"
