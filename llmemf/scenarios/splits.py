"""Which sequences, and which items of them, are for training, validation and test."""

from __future__ import annotations

import numpy as np

from llmemf.errors import InputError
from llmemf.scenarios.reader_options import WindowSplit
from llmemf.scenarios.sequences import Sequences

TRAIN, VALID, TEST = 0, 1, 2


def shorten(sequences: Sequences, lengths: np.ndarray) -> Sequences:
    """Keep the first `lengths[i]` items of row i; rows left with fewer than 2 items vanish.

    A sequence of one item has nothing to predict from, in training as in evaluation.
    """
    keep = lengths >= 2
    lengths = np.where(keep, lengths, 0)
    position = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    mask = position < np.repeat(lengths, sequences.lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64)
    return Sequences(sequences.users[keep], offsets, sequences.items[mask], sequences.times[mask])


def leave_last_out(
    sequences: Sequences,
    cut: np.ndarray | bool = True,
    keep_valid: np.ndarray | bool = True,
    keep_test: np.ndarray | bool = True,
) -> tuple[Sequences, Sequences, Sequences]:
    """Split chronological sequences: the last item is the test target, the one before it the validation target.

    Args:
        sequences: S sequences, oldest item first.
        cut: (S,) the sequences that are split; the others are training as a whole.
        keep_valid, keep_test: (S,) the sequences that give a validation case, a test case.

    Returns:
        train, valid, test; a part that has fewer than 2 items is left out of its split.
    """
    lengths = sequences.lengths
    train = shorten(sequences, lengths - 2 * cut)
    valid = shorten(sequences, np.where(cut & keep_valid, lengths - 1, 0))
    test = shorten(sequences, np.where(cut & keep_test, lengths, 0))
    return train, valid, test


def split_windows(
    users: np.ndarray,
    last_times: np.ndarray,
    kind: WindowSplit = "latest",
    share: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """The part of every window.

    `latest` is the published way: of every user the latest window is for evaluation, validation for one half of the
    users and test for the other (drawn), and all earlier windows are for training. Nothing of a user is later than
    his target, though other users' training windows may be. `timeline` has no such rest: windows that end in the
    latest `share` of all ends are test, those in the `share` before it validation, and training ends before both.

    Args:
        users: (w,) user of every window; a user's windows stand in the order of time.
        last_times: (w,) time of the last interaction.
        kind: as above.
        share: of `timeline`.
        seed: of the draw of `latest`.

    Returns:
        (w,) int8 of TRAIN, VALID, TEST.

    Raises:
        InputError: a part would be empty.
    """
    parts = _latest(users, seed) if kind == "latest" else _timeline(last_times, share)
    for name, part in (("training", TRAIN), ("validation", VALID), ("test", TEST)):
        if not (parts == part).any():
            remedy = "only users with two windows give training" if kind == "latest" else "change --eval-share"
            other = "timeline" if kind == "latest" else "latest"
            raise InputError(
                f"{len(users):,} windows of {len(np.unique(users)):,} users leave no window for {name} ({remedy}): "
                f"allow more by --max-days, --min-per-domain, --min-user, --min-item, or give --split {other}"
            )
    return parts


def _latest(users: np.ndarray, seed: int) -> np.ndarray:
    parts = np.full(len(users), TRAIN, dtype=np.int8)
    latest = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    drawn = np.random.default_rng([seed, 1]).permutation(len(latest))
    parts[latest[drawn[: len(latest) // 2]]] = VALID
    parts[latest[drawn[len(latest) // 2 :]]] = TEST
    return parts


def _timeline(last_times: np.ndarray, share: float) -> np.ndarray:
    ordered = np.sort(last_times)
    count = max(1, int(len(ordered) * share))
    valid_from, test_from = ordered[max(0, len(ordered) - 2 * count)], ordered[len(ordered) - count]
    return np.where(last_times >= test_from, TEST, np.where(last_times >= valid_from, VALID, TRAIN)).astype(np.int8)
