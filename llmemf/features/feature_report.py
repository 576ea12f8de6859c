"""Everything that the page of a scenario's features shows: spaces in numbers, content, and items with neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmemf.errors import InputError
from llmemf.features.item_sources import image_source, read_llm_text, text_source
from llmemf.features.matrix import CLIP, FeatureMatrix
from llmemf.features.neighbours import Space, companions, measure, nearest_items
from llmemf.features.shards import contents_hash
from llmemf.scenarios.scenario import Scenario

NEIGHBOURS = 4


@dataclass(frozen=True)
class Example:
    """An item, and for each space (by name) its nearest items and their cosines, inside its domain and in the other."""

    item: int
    inside: dict[str, list[tuple[int, float]]]
    across: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class FeatureReport:
    """What the page of a scenario's features shows.

    Attributes:
        scenario: its items.
        llm_texts: LLM text per item, "" where there is none.
        image_paths: image file per item, "" where there is none.
        content: name of a content -> for each domain, items that have it.
        spaces: one per matrix.
        examples: items of both domains.
    """

    scenario: Scenario
    llm_texts: list[str]
    image_paths: Sequence[str]
    content: dict[str, tuple[int, int]]
    spaces: list[Space]
    examples: list[Example]

    @property
    def warnings(self) -> list[str]:
        """Warnings of all spaces, each with the name of its space."""
        return [f"{space.name}: {warning}" for space in self.spaces for warning in space.warnings]

    def title_of(self, item: int) -> str:
        title = str(self.scenario.items.title[item]).strip()
        return title or f"item {self.scenario.items.external_id[item]} (no title)"

    def text_of(self, item: int) -> str:
        """LLM text, else description, "" without either."""
        return self.llm_texts[item] or str(self.scenario.items.description[item]).strip()


def measure_features(
    scenario: Scenario, matrices: Sequence[FeatureMatrix], *, items: int = 4, seed: int = 0
) -> FeatureReport:
    """Measure all matrices and choose `items` items of each domain to show.

    Raises:
        InputError: LLM text or the table of images is there but cannot be read.
    """
    folder = scenario.location
    llm_texts = read_llm_text(scenario)[0] if (folder / "llm_text.parquet").exists() else [""] * scenario.num_items
    try:
        image_paths = image_source(scenario).contents
    except InputError:
        if (folder / "images.parquet").exists():
            raise
        image_paths = [""] * scenario.num_items
    images = companions(matrices)
    spaces = [measure(scenario, matrix, images.get(matrix.name), seed=seed) for matrix in matrices]
    for space in spaces:
        space.warnings.extend(_stale(scenario, space.matrix, sum(map(bool, image_paths))))
    chosen = choose_items(scenario, matrices, items, seed=seed)
    return FeatureReport(
        scenario,
        llm_texts,
        image_paths,
        {
            "title": _by_domain(scenario, scenario.items.title),
            "description": _by_domain(scenario, scenario.items.description),
            "LLM text": _by_domain(scenario, llm_texts),
            "image": _by_domain(scenario, image_paths),
        },
        spaces,
        _examples(scenario, matrices, chosen),
    )


def choose_items(scenario: Scenario, matrices: Sequence[FeatureMatrix], count: int, *, seed: int = 0) -> np.ndarray:
    """`count` random items of each domain, those first that have a row in the most matrices."""
    rng = np.random.default_rng(seed)
    rows = np.sum([matrix.has for matrix in matrices], axis=0)
    chosen = []
    for low, high in ((0, scenario.num_x), (scenario.num_x, scenario.num_items)):
        shuffled = low + rng.permutation(high - low)
        best = shuffled[np.argsort(-rows[shuffled], kind="stable")]
        chosen.append(np.sort(best[:count]))
    return np.concatenate(chosen)


def _examples(scenario: Scenario, matrices: Sequence[FeatureMatrix], items: np.ndarray) -> list[Example]:
    examples = [Example(int(item), {}, {}) for item in items]
    for matrix in matrices:
        for same_domain in (True, False):
            found, cosines = nearest_items(scenario, matrix, items, NEIGHBOURS, same_domain=same_domain)
            for example, row, values in zip(examples, found, cosines):
                near = [(int(item), float(value)) for item, value in zip(row, values) if item >= 0]
                (example.inside if same_domain else example.across)[matrix.name] = near
    return examples


def _by_domain(scenario: Scenario, values: Sequence[str]) -> tuple[int, int]:
    filled = np.array([bool(str(value).strip()) for value in values])
    return int(filled[: scenario.num_x].sum()), int(filled[scenario.num_x :].sum())


def _stale(scenario: Scenario, matrix: FeatureMatrix, num_images: int) -> list[str]:
    """Whether texts or images have changed since a CLIP matrix was made; files of images are counted, not read."""
    if matrix.details.get("family") != CLIP:
        return []
    changed = ""
    if matrix.kind == "image":
        then = matrix.details.get("items_with_image", num_images)
        changed = f"made when {then:,} items had an image, now {num_images:,} have" if num_images != then else ""
    else:
        try:
            digests = text_source(scenario, matrix.details["source"]).digests(range(scenario.num_items))
            if contents_hash(digests) != matrix.details.get("source_sha256"):
                changed = "made from other texts than there are now"
        except InputError:
            changed = "the texts that it was made from are gone"
    return [f"{changed}; encode again with --overwrite"] if changed else []
