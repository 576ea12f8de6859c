"""Long texts in pieces: compared with all partitions by brute force, and with the tokens of the whole text."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llmemf.features.text_pieces import PieceTokenizer, cut, padded

LONG = " ".join(f"A remarkable, well-made teapot number {number} isn't for everyone!" for number in range(40))


@pytest.fixture(scope="module")
def clip():
    """The tokenizer of CLIP; open_clip is slow to import, and one process runs these tests."""
    import open_clip

    return open_clip.get_tokenizer("ViT-B-32")


def all_partitions(lengths):
    """Every way to cut a list into neighbouring groups."""
    for cuts in itertools.product((False, True), repeat=len(lengths) - 1):
        edges = [0, *(place + 1 for place, here in enumerate(cuts) if here), len(lengths)]
        yield [lengths[low:high] for low, high in itertools.pairwise(edges)]


def test_the_fewest_groups_and_the_shortest_longest_one():
    rng = np.random.default_rng(0)
    for _ in range(200):
        limit = int(rng.integers(3, 12))
        lengths = rng.integers(1, limit + 1, rng.integers(1, 9)).tolist()
        fitting = [groups for groups in all_partitions(lengths) if max(map(sum, groups)) <= limit]
        fewest = min(map(len, fitting))
        longest = min(max(map(sum, groups)) for groups in fitting if len(groups) == fewest)
        found = [lengths[group] for group in cut(lengths, limit)]
        assert list(itertools.chain(*found)) == lengths
        assert (len(found), max(map(sum, found))) == (fewest, longest)


def test_nothing_to_cut():
    assert cut([], 5) == [] and cut([5], 5) == [slice(0, 1)]


def test_a_long_text_loses_no_token_and_no_word_is_cut(clip):
    tokens = clip.encode(LONG)
    pieces = PieceTokenizer(clip, 77)(LONG)
    assert len(pieces) == -(-len(tokens) // 75) > 5
    assert all(piece[0] == clip.sot_token_id and piece[-1] == clip.eot_token_id for piece in pieces)
    assert list(itertools.chain(*(piece[1:-1] for piece in pieces))) == tokens
    assert all(clip.decoder[piece[-2]].endswith("</w>") for piece in pieces)
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) <= 77 and min(sizes) > 60, "no piece is a small rest"


@pytest.mark.parametrize(
    "text", ["red fox", "Caf&eacute; \n 5 kg -- 100% h\u00f6chst g\u00fcnstig \U0001f600", "word " * 75]
)
def test_a_text_of_one_piece_is_what_open_clip_makes_of_it(clip, text):
    pieces = PieceTokenizer(clip, 77)(text)
    assert torch.equal(padded(pieces, 77, None), clip([text]))


def test_a_word_longer_than_a_piece_is_cut_and_kept(clip):
    text = "\u7d05\u8336\u7dd1\u8336" * 60
    pieces = PieceTokenizer(clip, 77)(text)
    assert len(pieces) > 1 and max(map(len, pieces)) <= 77
    assert list(itertools.chain(*(piece[1:-1] for piece in pieces))) == clip.encode(text)


@pytest.mark.parametrize("text", ["", "   ", "&nbsp; \n"])
def test_no_token_no_piece(clip, text):
    assert PieceTokenizer(clip, 77)(text) == []


class LettersAsTokens:
    """Looks like open_clip's wrapper of any other tokenizer: a token per letter, 2 in front, 3 behind, 1 as padding."""

    context_length = 16

    def __init__(self):
        self.tokenizer = lambda text, add_special_tokens: {"input_ids": self.letters(text)}

    def clean_fn(self, text):
        return " ".join(text.split())

    def letters(self, text):
        return [ord(letter) for letter in text if letter != " "]

    def __call__(self, texts):
        rows = torch.ones(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(rows, texts):
            ids = [2, *self.letters(self.clean_fn(text))[: self.context_length - 2], 3]
            row[: len(ids)] = torch.tensor(ids)
        return rows


def test_other_tokenizers_are_cut_by_words_and_make_their_own_ids():
    text = "one two three four five six seven eight nine incomprehensibilities ten"
    pieces = PieceTokenizer(LettersAsTokens(), 16)(text)
    assert {len(piece) for piece in pieces} == {16}
    said = ["".join(chr(token) for token in piece if token > 3) for piece in pieces]
    assert "".join(said) == text.replace(" ", "")
    words = re.findall(r"\w+", text)
    assert sum(word in "".join(said[:1]) for word in words[:3]) == 3, "words stay whole"
    assert all(piece[0] == 2 and 3 in piece for piece in pieces), "nothing was cut off by the tokenizer"
    assert PieceTokenizer(LettersAsTokens(), 16)(" ") == []


def test_padding():
    pieces = [[7, 8, 9], [7, 9]]
    assert padded(pieces, 8, None).tolist() == [[7, 8, 9, 0, 0, 0, 0, 0], [7, 9, 0, 0, 0, 0, 0, 0]]
    assert padded(pieces, 8, 2).tolist() == [[7, 8, 9, 0], [7, 9, 0, 0]]
    assert padded([[1] * 7], 7, 4).shape == (1, 7), "never wider than the context"


def test_the_tokenizer_is_told_by_what_it_can_do(clip):
    assert PieceTokenizer(clip, 77)._by_ids
    assert not PieceTokenizer(SimpleNamespace(tokenizer=None, clean_fn=None), 77)._by_ids
