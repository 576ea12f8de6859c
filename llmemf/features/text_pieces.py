"""Texts of any length for an encoder with a short context: cut into pieces of tokens, no word lost.

CLIP reads 77 tokens, two of them start and end. A longer text becomes the fewest pieces that hold all of it, cut
between words and as equal in length as the words allow, so that a mean over the pieces gives every part of the text
about the same weight. A word is cut only if it alone is longer than a piece.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

HEAD_AND_TAIL = 2
"""Tokens of a piece of CLIP's own tokenizer that are not text: start and end."""
RESERVED = 3
"""The same for any other tokenizer: some add a class token."""


def cut(lengths: Sequence[int], limit: int) -> list[slice]:
    """Group neighbouring words into the fewest groups of at most `limit` tokens, the longest group as short as can be.

    Args:
        lengths: tokens of each word, none above `limit`.
        limit: tokens that fit into a group.

    Returns:
        slices over the words, in order, none empty.
    """
    fewest = len(_fill(lengths, limit))
    low, high = max(lengths, default=0), limit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_fill(lengths, middle)) <= fewest else (middle + 1, high)
    return _fill(lengths, low)


def _fill(lengths: Sequence[int], limit: int) -> list[slice]:
    groups, start, used = [], 0, 0
    for place, length in enumerate(lengths):
        if used + length > limit:
            groups.append(slice(start, place))
            start, used = place, 0
        used += length
    return [*groups, slice(start, len(lengths))] if len(lengths) else groups


class PieceTokenizer:
    """Token ids of the pieces of a text, by an open_clip tokenizer.

    Args:
        tokenizer: what `open_clip.get_tokenizer` returns. The tokenizer of CLIP itself (it lies in the package) is cut
            by token ids; any other one by the words of the text, and its own call makes the ids.
        context_length: tokens of a piece, start and end among them.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self._by_ids = hasattr(tokenizer, "sot_token_id") and hasattr(tokenizer, "bpe_ranks")

    def __call__(self, text: str) -> list[list[int]]:
        """One list of token ids per piece, start and end among them; none if the text holds no token."""
        return self._cut_ids(text) if self._by_ids else self._cut_words(text)

    def _cut_ids(self, text: str) -> list[list[int]]:
        ids = self.tokenizer.encode(text)
        limit = self.context_length - HEAD_AND_TAIL
        words = [ids]
        if len(ids) > limit:
            words = [word[at : at + limit] for word in self._words(ids) for at in range(0, len(word), limit)]
        groups = cut([len(word) for word in words], limit) if ids else []
        start, end = [self.tokenizer.sot_token_id], [self.tokenizer.eot_token_id]
        return [[*start, *itertools.chain.from_iterable(words[group]), *end] for group in groups]

    def _words(self, ids: list[int]) -> list[list[int]]:
        words: list[list[int]] = [[]]
        for token in ids:
            words[-1].append(token)
            if self.tokenizer.decoder[token].endswith("</w>"):
                words.append([])
        return [word for word in words if word]

    def _cut_words(self, text: str) -> list[list[int]]:
        limit = self.context_length - RESERVED
        words = [part for word in text.split() for part in self._halves(word, limit)]
        pieces = [" ".join(words[group]) for group in cut([self._count(word) for word in words], limit)]
        # Words can have more tokens together than one by one, so every piece is counted again.
        pieces = [part for piece in pieces for part in self._halves(piece, limit)]
        return [row.tolist() for row in self.tokenizer(pieces)] if pieces else []

    def _halves(self, text: str, limit: int) -> list[str]:
        if self._count(text) <= limit or len(text) < 2:
            return [text]
        middle = text.rfind(" ", 0, len(text) // 2 + 1)
        middle = len(text) // 2 if middle < 1 else middle
        halves = (text[:middle].strip(), text[middle:].strip())
        return [part for half in halves if half for part in self._halves(half, limit)]

    @functools.cached_property
    def _count(self) -> Callable[[str], int]:
        inner = self.tokenizer.tokenizer
        return functools.lru_cache(maxsize=100_000)(
            lambda text: len(inner(self.tokenizer.clean_fn(text), add_special_tokens=False)["input_ids"])
        )


def padded(pieces: Sequence[Sequence[int]], context_length: int, multiple: int | None) -> torch.Tensor:
    """Pieces as one tensor of ids, zeros behind them.

    Args:
        pieces: B lists of token ids.
        context_length: the width of the tensor, unless `multiple` is given.
        multiple: make the tensor no wider than the longest piece, rounded up to such a multiple. Positions behind a
            piece's end do not change what a causal encoder says at its end.

    Returns:
        (B, L) int64.
    """
    width = context_length
    if multiple is not None:
        longest = max(map(len, pieces))
        width = min(context_length, -(-longest // multiple) * multiple)
    ids = torch.zeros(len(pieces), width, dtype=torch.long)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = torch.tensor(piece)
    return ids
