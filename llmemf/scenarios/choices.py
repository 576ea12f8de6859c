"""What a user can choose when raw data becomes a scenario: commands offer these values, readers check them."""

from __future__ import annotations

from typing import Any, Literal, get_args

from llmemf.errors import InputError

PublishedSplit = Literal["published", "leave_last_out"]
"""See `windows.read_windows`."""
WindowSplit = Literal["latest", "timeline"]
"""See `window_split.split_windows`."""
TieBreak = Literal["file", "random", "drop"]
"""Order of items of the same time: the file's, a drawn one, or the file's without the cases that it decides."""
Filter = Literal["core", "once"]
"""See `interaction_filter.enough_interactions`."""
Repeats = Literal["first", "last"]
"""Which interaction of a user with the same item counts."""
HistoryRepeats = Literal["keep", "last", "first"]
"""Which occurrences of an item in a history count: all, or one."""
CandidateDraw = Literal["c2dsr", "distinct_unseen"]
"""How the stored candidates are drawn, see `candidates.stored_candidates`."""


def check_choice(value: str, choices: Any, option: str) -> None:
    """Refuse a value that is none of the choices.

    Args:
        choices: one of the types above.
        option: what the user calls it on the command line.

    Raises:
        InputError: it is none of them.
    """
    valid = get_args(choices)
    if value not in valid:
        raise InputError(f"{option} {value!r}: choose one of {', '.join(valid)}")
