"""The one exception that stands for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input: the message names the value, where it stands, and the remedy.

    Commands print the message on one line and leave with exit code 2; nothing else is caught that way.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that offers the valid name closest to `name`, or lists all of them."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid names: {', '.join(sorted(valid))}"
