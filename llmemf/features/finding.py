"""Which features a scenario has, and which of them a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.features.matrix import CLIP, PACKED, PROFILE, FeatureMatrix, matrix_root, read_matrix_manifest
from llmemf.scenarios.images import is_address
from llmemf.scenarios.scenario import Scenario

CONTENT = {"text": ["title", "description"], "image": ["image"]}
"""Columns of the item table that features of a kind are made from."""
TEXT_SOURCES = ("title+llm", "llm", "title")
"""What a CLIP text matrix can be made from, in the order in which `auto` prefers them."""


def present_modalities(modalities: Iterable[str], folder: Path) -> tuple[list[str], str]:
    """The modalities that a prepared scenario has or can have, and a sentence on the others ("" where none is absent).

    Absent is a modality without features of which no item has any content.

    Args:
        folder: of the scenario; where nothing is prepared in it, none is taken for absent.
    """
    left: list[str] = []
    absent: list[str] = []
    table = folder / "items.parquet"
    for kind in modalities:
        is_present = True
        if kind in CONTENT and table.exists() and not any((folder / "features").glob(f"{kind}.*/manifest.json")):
            # An image that was not fetched counts as none.
            items = pd.read_parquet(table, columns=CONTENT[kind]).map(lambda cell: "" if is_address(cell) else cell)
            is_present = bool((items != "").any(axis=None))
        (left if is_present else absent).append(kind)
    if not absent:
        return left, ""
    words = " or ".join("a stored image" if kind == "image" else "a text" for kind in CONTENT if kind in absent)
    used = f"{', '.join(left)} alone {'is' if len(left) == 1 else 'are'} used"
    return left, f"no item of {folder.name} has {words}: {used}"


def find_features(scenario: Scenario, kind: str, encoder: str = "auto") -> FeatureMatrix:
    """Load the features of one kind from the named encoder; `auto` chooses as `choose_encoder` says.

    Raises:
        InputError: there is none, or `auto` cannot decide between several.
    """
    root = matrix_root(scenario, kind)
    present = sorted(path.parent.name.split(".", 1)[1] for path in root.glob(f"{kind}.*/manifest.json"))
    chosen = choose_encoder(root, kind, present) if encoder == "auto" else encoder
    if chosen in present:
        matrix = FeatureMatrix.load(root / f"{kind}.{chosen}", verify=True)
        matrix.check(scenario)
        return matrix
    if encoder == "auto" and present:
        raise InputError(
            f"scenario {scenario.name!r} has {kind} features from {present}: choose with --set {kind}_encoder=..."
        )
    wanted = "" if encoder == "auto" else f" from encoder {encoder!r}"
    if kind == PROFILE:
        raise InputError(
            f"scenario {scenario.name!r} has no encoded user profiles{wanted} (present: {present or 'none'}); make them "
            f"with `{command_line('features', 'enrich', scenario.name, '--profiles')}` and "
            f"`{command_line('features', 'profiles', scenario.name)}`"
        )
    raise InputError(
        f"scenario {scenario.name!r} has no {kind} features{wanted} (present: {present or 'none'}); run "
        f"`{command_line('features', 'offline', scenario.name)}`, or leave the modality out with --set modalities=..."
    )


def choose_encoder(root: Path, kind: str, present: Sequence[str]) -> str | None:
    """The encoder that `auto` stands for, or None where the user has to choose.

    Packed features only where those that they were made from are gone. The only encoder there is; else, leaving out
    "offline", which stands in for pretrained encoders, the only other one;
    else, where all the others are one CLIP model with the same weights on different texts, title with LLM text before
    LLM text before title. Two CLIP models, or a CLIP model beside imported features, are the user's choice.

    Args:
        root: the folder of the matrices.
        kind: "text" or "image".
        present: names of the encoders that have a matrix of this kind.
    """
    details = {name: read_matrix_manifest(root / f"{kind}.{name}").details for name in present if len(present) > 1}
    packed_from = {name: facts.get(PACKED, {}).get("from") for name, facts in details.items()}
    left = [name for name in present if packed_from.get(name) not in present]
    others = left if len(left) == 1 else [name for name in left if not is_offline(name)]
    if len(others) == 1:
        return others[0]
    origins = {(details[name].get("family"), details[name].get("weights_sha256")) for name in others}
    sources = {details[name].get("source"): name for name in others}
    if len(origins) != 1 or origins.pop()[0] != CLIP or len(sources) != len(others):
        return None
    return next((sources[source] for source in TEXT_SOURCES if source in sources), None)


def is_offline(encoder: str) -> bool:
    """Whether an encoder's name is that of the offline one, packed or not: a stand-in for pretrained encoders."""
    return encoder in ("offline", "offline-fp16", "offline-fp32")
