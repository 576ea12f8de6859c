"""Titles and descriptions of the embedded sample, written from the vocabularies and templates of `sample_data/texts.yaml`.

The text of an item tells its main theme and its second theme, and nothing else: places, names, moods and templates are
drawn independently of everything that decides who likes the item.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from llmemf.config import read_yaml

TEXTS = Path(__file__).with_name("sample_data") / "texts.yaml"
NUM_THEMES = 12


@cache
def texts() -> dict[str, Any]:
    """The file's content; words with commas between them become lists."""
    return _split(read_yaml(TEXTS))


def _split(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: entry if key == "genre" else _split(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_split(entry) if isinstance(entry, dict) else entry for entry in value]
    return value.split(", ")


def write_texts(
    main: np.ndarray, second: np.ndarray, num_x: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Write a title and a description for every item; titles are unique.

    Args:
        main: (num_items,) index of each item's main theme.
        second: (num_items,) index of its second theme.
        num_x: the first `num_x` items are films, the others are books.
        rng: source of every choice.
    """
    themes = texts()["themes"]
    titles: dict[str, None] = {}
    descriptions = []
    for item, (theme, other) in enumerate(zip(main, second)):
        while (title := _title(themes[theme], rng)) in titles:
            pass
        titles[title] = None
        closings = texts()["film_closings" if item < num_x else "book_closings"]
        descriptions.append(_description(themes[theme], themes[other], closings, rng))
    return list(titles), descriptions


def _pick(words: list[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _two(words: list[str], rng: np.random.Generator) -> list[str]:
    return [words[index] for index in rng.permutation(len(words))[:2]]


def _title(theme: dict[str, Any], rng: np.random.Generator) -> str:
    # The order of the draws decides the sample's content, here and in a description.
    names = ("thing", "thing2", "adjective", "adjective2")
    words = dict(zip(names, _two(theme["things"], rng) + _two(theme["adjectives"], rng)))
    words["role"] = _pick(theme["roles"], rng)
    words = {name: _capital(word) for name, word in words.items()}
    for name in ("places", "first_names", "counts"):
        words[name.split("_")[0].removesuffix("s")] = _pick(texts()[name], rng)
    title = _pick(texts()["titles"], rng).format(**words)
    return f"An {title[2:]}" if title.startswith("A ") and title[2] in "AEIOU" else title


def _description(theme: dict[str, Any], other: dict[str, Any], closings: list[str], rng: np.random.Generator) -> str:
    words = dict(zip(("thing", "thing2"), _two(theme["things"], rng)))
    words["place"], words["adjective"] = _pick(texts()["places"], rng), _pick(theme["adjectives"], rng)
    words["first"], words["last"] = _pick(texts()["first_names"], rng), _pick(texts()["last_names"], rng)
    for name in ("role", "thing", "role2", "deed", "adjective", "thing2"):
        words[f"other_{name}"] = _pick(other[name.removesuffix("2") + "s"], rng)
    words["other_adjective_thing"] = f"{words['other_adjective']} {words['other_thing2']}"
    words["mood"], number = _article(_pick(texts()["moods"], rng)).capitalize(), int(rng.integers(78, 190))
    closing = _pick(closings, rng)
    for name in ("role", "deed", "setting"):
        words[name] = _pick(theme[f"{name}s"], rng)
    middle, echo = _pick(texts()["middles"], rng), _pick(texts()["echoes"], rng)
    with_article = {f"a_{name}": _article(word) for name, word in words.items()}
    sentences = " ".join((texts()["openings"][0], middle, echo, closing))
    return sentences.format(**words, **with_article, genre=theme["genre"], number=number)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _capital(words: str) -> str:
    small = {"of", "the"}
    return " ".join(word if word in small else word[0].upper() + word[1:] for word in words.split())
