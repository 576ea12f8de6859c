"""Batches under way, by name in `llm_batch.json` of the scenario's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llmemf.errors import InputError
from llmemf.io import write_with

NAME = "llm_batch.json"


@dataclass
class Part:
    """One batch under way.

    Attributes:
        mark: random text that finds it again.
        questions: how many it holds; bound: the most they can cost, USD.
        host, model: where it was sent, and for whom.
        versions, language, words: what its answers are checked against, versions of X and Y.
        id: of the batch, "" until it is created.
    """

    mark: str
    questions: int
    bound: float
    host: str
    model: str
    versions: tuple[str, str]
    language: str
    words: int
    id: str = ""


def read_parts(folder: Path) -> list[Part]:
    """Batches of a scenario that are not fetched yet.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return [Part(**part) for part in json.loads((folder / NAME).read_text())["parts"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / NAME} is damaged ({error}); the ids of your batches stand in it and on the provider's page: "
            "repair it, or remove it if none is under way"
        ) from None


def write_parts(folder: Path, parts: Sequence[Part]) -> None:
    """Write down the batches that are not fetched yet; without any, the file goes."""
    path = folder / NAME
    if not parts:
        path.unlink(missing_ok=True)
        return
    content = json.dumps({"parts": [asdict(part) for part in parts]}, indent=2) + "\n"
    write_with(path, lambda temporary: temporary.write_text(content))
