"""What the items of a scenario offer to an encoder: titles, LLM text, image files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.features.finding import TEXT_SOURCES
from llmemf.io import bytes_hash
from llmemf.scenarios.scenario import Scenario

LLM_TEXT, LLM_MANIFEST, IMAGES = "llm_text.parquet", "llm_text.yaml", "images.parquet"
DIGEST = 32
"""Bytes of a SHA-256."""


@dataclass(frozen=True)
class Source:
    """The content of every item of a scenario for one kind of feature.

    Attributes:
        kind: "text" or "image".
        contents: one text, or one path of an image file, per item; "" where there is none.
        facts: plain facts for a manifest.
    """

    kind: str
    contents: Sequence[str]
    facts: dict[str, Any] = field(default_factory=dict)

    def digests(self, items: Sequence[int]) -> np.ndarray:
        """(len(items), 32) uint8: SHA-256 of each text, or of each image file's bytes; zeros where there is none."""
        if self.kind == "text":
            found = [digest_of(self.contents[item].encode()) if self.contents[item] else None for item in items]
        else:
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(_file_digest, [self.contents[item] for item in items]))
        empty = bytes(DIGEST)
        joined = b"".join(digest or empty for digest in found)
        return np.frombuffer(joined, np.uint8).reshape(len(items), DIGEST)


def digest_of(content: bytes) -> bytes:
    """SHA-256 as `DIGEST` bytes."""
    return bytes.fromhex(bytes_hash(content))


def _file_digest(path: str) -> bytes | None:
    """SHA-256 of a file's bytes; None if it cannot be read, or if `path` is empty."""
    try:
        return digest_of(Path(path).read_bytes()) if path else None
    except OSError:
        return None


def find_sources(scenario: Scenario, kinds: Sequence[str], texts: Sequence[str]) -> tuple[list[Source], list[str]]:
    """What there is to encode of these kinds, and what is not there at all.

    Args:
        scenario: saved on disk.
        kinds: "text", "image" or both.
        texts: sources of text, one matrix each.

    Returns:
        sources with content for at least one item, and the names ("a title", "an image") of those without.

    Raises:
        InputError: as `text_source` and `image_source`; or there is nothing to encode.
    """
    if len(set(texts)) != len(texts):
        raise InputError(f"--text {' '.join(texts)}: each source once")
    sources, absent = [], []
    for kind in kinds:
        for source in [text_source(scenario, text) for text in texts] if kind == "text" else [image_source(scenario)]:
            if any(source.contents):
                sources.append(source)
            else:
                absent.append("a title" if kind == "text" else "an image")
    if not sources:
        raise InputError(f"no item of scenario {scenario.name!r} has {' or '.join(absent)}: there is nothing to encode")
    return sources, absent


def text_source(scenario: Scenario, source: str) -> Source:
    """Title, LLM text, or the title and behind it the LLM text, of every item.

    With `title+llm` an item that has only one of the two is encoded from this one; the facts count such items.

    Raises:
        InputError: unknown source, or LLM text is asked for and there is none, or it belongs to other items.
    """
    if source not in TEXT_SOURCES:
        raise InputError(f"--text {source}: must be one of {', '.join(TEXT_SOURCES)}")
    titles = [str(title).strip() for title in scenario.items.title]
    if source == "title":
        return Source("text", titles, {"source": source, "items_with_text": sum(map(bool, titles))})
    written, llm_facts = read_llm_text(scenario)
    texts = written if source == "llm" else [_join(title, text) for title, text in zip(titles, written)]
    facts = {"source": source, "items_with_text": sum(map(bool, texts)), "llm_text": llm_facts}
    if source == "title+llm":
        facts["items_with_title_only"] = sum(bool(title) and not text for title, text in zip(titles, written))
        facts["items_with_llm_text_only"] = sum(bool(text) and not title for title, text in zip(titles, written))
    return Source("text", texts, facts)


def _join(title: str, text: str) -> str:
    """Title and LLM text as one text, the title as its first sentence."""
    if not title or not text:
        return title or text
    return f"{title} {text}" if title[-1] in ".!?:;" else f"{title}. {text}"


def read_llm_text(scenario: Scenario) -> tuple[list[str], dict]:
    """LLM text of every item ("" where there is none), and the facts of its manifest about model and prompt.

    Raises:
        InputError: there is none, or it cannot be read, or it names items that the scenario does not have.
    """
    path, enrich = scenario.location.resolve() / LLM_TEXT, command_line("features", "enrich", scenario.name)
    if not path.exists():
        raise InputError(
            f"scenario {scenario.name!r} has no LLM text: make it with `{enrich}`, or encode the titles alone with "
            "--text title"
        )
    texts = _read_table(path, ("text",), scenario)["text"].astype(str).str.strip().tolist()
    if not any(texts):
        raise InputError(f"{path} holds no text: run `{enrich}` again, or --text title")
    manifest = path.with_name(LLM_MANIFEST)
    try:
        facts = yaml.safe_load(manifest.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            f"{manifest} cannot be read ({' '.join(str(error).split())}): it says which model wrote the texts; run "
            f"`{enrich}` again"
        ) from None
    # YAML reads dates, which the JSON of a matrix's manifest does not know.
    facts = json.loads(json.dumps(facts, default=str))
    return texts, facts if isinstance(facts, dict) else {"manifest": facts}


def image_source(scenario: Scenario) -> Source:
    """The image file of every item: by `images.parquet` where there is one, else by the item table.

    A file that is named but does not exist counts as broken, not as absent: encoding lists it.

    Raises:
        InputError: `images.parquet` cannot be read, or the item table holds nothing but addresses of images.
    """
    folder = scenario.location.resolve()
    path = folder / IMAGES
    if path.exists():
        table = _read_table(path, ("path", "status"), scenario)
        named = table["path"].astype(str).tolist()
        status = Counter(filter(None, table["status"].astype(str)))
        facts: dict[str, Any] = {"source": IMAGES, "image_status": dict(sorted(status.items()))}
    else:
        named = scenario.items.image.astype(str).tolist()
        addresses = [image for image in named if "://" in image]
        if addresses and len(addresses) == sum(map(bool, named)):
            raise InputError(
                f"the images of scenario {scenario.name!r} are addresses ({addresses[0]}): fetch them first with "
                f"`{command_line('features', 'images', scenario.name)}`, or encode the texts alone with --kind text"
            )
        named = ["" if "://" in image else image for image in named]
        facts = {"source": "item table"}
        if addresses:
            facts["items_with_address_only"] = len(addresses)
    contents = [str(folder / image) if image else "" for image in named]
    return Source("image", contents, facts | {"items_with_image": sum(map(bool, contents))})


def _read_table(path: Path, columns: tuple[str, ...], scenario: Scenario) -> pd.DataFrame:
    """Columns of a table that names items, one row for each item of the scenario; "" where there is nothing.

    Raises:
        InputError: the table cannot be read or does not fit the scenario.
    """
    try:
        table = pd.read_parquet(path, columns=["item", *columns])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}): make it again") from None
    wrong = table["item"][~table["item"].between(0, scenario.num_items - 1)]
    if len(wrong):
        raise InputError(
            f"{path}: item {wrong.iloc[0]} is out of range, scenario {scenario.name!r} has items 0 to "
            f"{scenario.num_items - 1}: the file belongs to another item table, make it again"
        )
    if table["item"].duplicated().any():
        raise InputError(f"{path}: an item stands there twice: make it again")
    return table.set_index("item").astype(object).reindex(range(scenario.num_items)).fillna("")
