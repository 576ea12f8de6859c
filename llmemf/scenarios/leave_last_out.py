"""Leave-last-out: the last item is the test target, the one before it the validation target, the rest is training."""

from __future__ import annotations

import numpy as np

from llmemf.scenarios.sequences import Sequences


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
    cut: np.ndarray | None = None,
    keep_valid: np.ndarray | None = None,
    keep_test: np.ndarray | None = None,
) -> tuple[Sequences, Sequences, Sequences]:
    """Split chronological sequences into training, validation and test.

    Args:
        sequences: S sequences, oldest item first.
        cut: (S,) bool, the sequences that are split; the others are training as a whole. All by default.
        keep_valid: (S,) bool, the sequences that give a validation case. All by default.
        keep_test: (S,) bool, the sequences that give a test case. All by default.

    Returns:
        train, valid, test; a part that has fewer than 2 items is left out of its split.
    """
    everywhere = np.ones(len(sequences), dtype=bool)
    cut = everywhere if cut is None else cut
    keep_valid = everywhere if keep_valid is None else keep_valid
    keep_test = everywhere if keep_test is None else keep_test
    lengths = sequences.lengths
    train = shorten(sequences, lengths - 2 * cut)
    valid = shorten(sequences, np.where(cut & keep_valid, lengths - 1, 0))
    test = shorten(sequences, np.where(cut & keep_test, lengths, 0))
    return train, valid, test
