"""What a new scenario and its domains may be called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from llmemf.errors import InputError

LONGEST_NAME = 100
"""Characters; names of folders and files are made of several names, and no file system takes more than 255 bytes."""


def check_name(name: str, what: str) -> None:
    """Refuse a name that cannot be that of a folder.

    Args:
        what: what it names, or the option, for the message.

    Raises:
        InputError: it holds other characters, or too many.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"{what} {name!r}: use letters, digits, '_', '-' and '.', beginning with a letter or digit")
    if len(name) > LONGEST_NAME:
        raise InputError(f"{what} {name[:20]!r}... has {len(name)} characters: use {LONGEST_NAME} at most")


def check_names(name: str, domains: Sequence[str]) -> None:
    """Raise InputError unless `name` can be a folder and `domains` are two names fit for metric names."""
    check_name(name, "scenario name")
    if len(domains) != 2 or domains[0] == domains[1]:
        raise InputError(
            f"two different domain names are needed, got {','.join(domains)!r}: for example --domains movie,book"
        )
    for domain in domains:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", domain):
            raise InputError(
                f"domain name {domain!r}: use lower-case letters, digits and '_', beginning with a letter (--domains)"
            )
        check_name(domain, "domain name")


def check_free(name: str, data_root: str | Path) -> None:
    """Refuse the name of a scenario that exists, before hours of reading.

    Raises:
        InputError: it exists.
    """
    target = Path(data_root) / name
    if target.exists():
        raise InputError(f"scenario {name!r} exists already in {target}; give --overwrite or another --name")
