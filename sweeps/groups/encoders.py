"""Which frozen features of a scenario stand for text, text with the LLM's words, and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.features.finding import TEXT_SOURCES, choose_encoder
from llmemf.features.matrix import CLIP, feature_folders, read_matrix_manifest
from llmemf.scenarios.scenario import Scenario


class Encoders(BaseModel):
    """Names of the encoders whose matrices the rows read; None where there is none, with the reason in `problems`.

    `text` and `llm` are one encoder on the item's own words and on those with the LLM's: rows with the one and with the
    other differ in nothing else.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: str | None = None
    llm: str | None = None
    image: str | None = None
    problems: dict[str, str] = {}
    """Of `text`, `llm` and `image`: why there is none."""

    @property
    def best_text(self) -> str | None:
        """Text with the LLM's words where there are any."""
        return self.llm or self.text


def find_encoders(scenario: Scenario, *, text: str = "auto", image: str = "auto") -> Encoders:
    """Read from the manifests of a scenario's feature matrices which of them stands for what.

    Args:
        text, image: the encoders that the configuration names; `auto` is read as in training.
    """
    name, found = scenario.name, Encoders(problems={})
    chosen: dict[str, str] = {}
    matrices: dict[str, dict[str, Any]] = {"text": {}, "image": {}}
    for folder in feature_folders(scenario):
        kind, _, encoder = folder.name.partition(".")
        if kind in matrices:
            matrices[kind][encoder] = _details(folder)
    for kind, wanted in (("text", text), ("image", image)):
        present = sorted(matrices[kind])
        root = (scenario.folder or Path()) / "features"
        chosen[kind] = (choose_encoder(root, kind, present) or "") if wanted == "auto" else wanted
        if not present:
            found.problems[kind] = f"scenario {name!r} has no {kind} features"
        elif chosen[kind] not in present:
            hint = f"from {', '.join(present)}: name one with --set {kind}_encoder=..."
            found.problems[kind] = f"scenario {name!r} has {kind} features {hint}"
    found.image = None if "image" in found.problems else chosen["image"]
    if "text" in found.problems:
        found.problems["llm"] = found.problems["text"]
        return found
    main, details = chosen["text"], matrices["text"][chosen["text"]]
    of_source = _same_encoder(matrices["text"], details)
    if details.get("source") in ("llm", "title+llm"):
        found.llm, found.text = main, of_source.get("title")
    else:
        sources = [source for source in TEXT_SOURCES if source in of_source and source != "title"]
        found.text, found.llm = main, of_source[sources[0]] if sources else None
    for kind, words, texts in (("llm", "with", ("title", "title+llm")), ("text", "without", ("title",))):
        if getattr(found, kind) is None:
            remedy = f"`{command_line('features', 'encode', name, '--text', *texts)}`"
            if kind == "llm":
                remedy = f"`{command_line('features', 'enrich', name)}`, then {remedy}"
            none = f"scenario {name!r} has no text features {words} LLM text by the encoder of {main!r}"
            found.problems[kind] = f"{none}: {remedy}"
    return found


def _same_encoder(matrices: dict[str, dict[str, Any]], details: dict[str, Any]) -> dict[str, str]:
    """Source -> name, of the matrices that one CLIP model with the same weights made of other texts."""
    if details.get("family") != CLIP:
        return {}
    same = {name: other for name, other in matrices.items() if other.get("family") == CLIP}
    weights = details.get("weights_sha256")
    return {other["source"]: name for name, other in same.items() if other.get("weights_sha256") == weights}


def _details(folder: Path) -> dict[str, Any]:
    try:
        return read_matrix_manifest(folder).details
    except InputError:
        # What is wrong with it is said where it is loaded.
        return {}
