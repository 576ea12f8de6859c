"""What feature matrices are worth, without any training: neighbours, spread, and agreement with titles and images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmemf.features.matrix import FeatureMatrix, unit_rows
from llmemf.scenarios.scenario import Scenario
from llmemf.text_format import percent

SAMPLE = 1000
"""Items that a number is computed from (a seeded sample); their neighbours are looked for among all items."""
BLOCK = 128
CONSTANT_COSINE = 0.95
"""Above this mean cosine of random pairs a space is called nearly constant."""
EQUAL = 1e-5
"""Cosines closer than this are equal: rounding, which differs between processors, stays below it."""
TWIN_COSINE = 1 - 1e-6
MANY_TWINS = 0.2
TOP = 10
"""A text finds its own image if it is among so many nearest ones."""
WORD = re.compile(r"[^\W\d_]{3,}")
COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the and for with from you your its this that are was not all new out into one two our his her edition set "
        "pack vol volume series book books dvd blu ray",
    )
)


@dataclass(frozen=True)
class Space:
    """One feature matrix in numbers.

    Attributes:
        matrix: the rows.
        coverage: for each domain, items with a row and items in all.
        mean_cosine: of random pairs of items; 0 is spread over all directions, 1 is constant.
        effective_rank: exp of the entropy of the normalised spectrum of the centred rows (Roy and Vetterli 2007).
        twins: share of items with another item in exactly the same place.
        label: what `agreement` compares, "category" or "title word".
        agreement: share of items whose nearest neighbour of the domain has the same category, or shares a title word.
        chance: the same share for random items of the domain.
        compared: items that `agreement` was computed from.
        own_image: for text and images of one CLIP model: how often the text's item is among the `TOP` images nearest to
            the text, out of `own_image_among`; None elsewhere.
        warnings: sentences.
    """

    matrix: FeatureMatrix
    coverage: tuple[tuple[int, int], ...]
    mean_cosine: float
    effective_rank: float
    twins: float
    label: str
    agreement: float | None
    chance: float | None
    compared: int
    own_image: float | None = None
    own_image_among: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.matrix.name

    @property
    def own_image_chance(self) -> float:
        """What `own_image` is by chance."""
        return TOP / max(1, self.own_image_among)


def measure(scenario: Scenario, matrix: FeatureMatrix, images: FeatureMatrix | None = None, *, seed: int = 0) -> Space:
    """Compute the numbers of one space.

    Args:
        scenario: its items.
        matrix: the space.
        images: image features of the same CLIP model, for a text space.
        seed: of the samples.
    """
    rng = np.random.default_rng(seed)
    filled = np.flatnonzero(matrix.has)
    sample = np.sort(rng.choice(filled, min(SAMPLE, len(filled)), replace=False)) if len(filled) else filled
    rows = _unit_rows(matrix, sample)
    mean_cosine, rank = spread(rows)
    label, labels = item_labels(scenario)
    nearest, cosines = nearest_items(scenario, matrix, sample, 1, same_domain=True)
    hits, chances = [], []
    domains = (filled[filled < scenario.num_x], filled[filled >= scenario.num_x])
    for query, neighbour in zip(sample, nearest[:, 0] if nearest.shape[1] else ()):
        if neighbour < 0 or not labels[query] or not labels[neighbour]:
            continue
        hits.append(bool(labels[query] & labels[neighbour]))
        pool = domains[int(query >= scenario.num_x)]
        others = [labels[other] for other in rng.choice(pool, 20) if other != query and labels[other]]
        chances.append(float(np.mean([bool(labels[query] & other) for other in others])) if others else 0.0)
    own = own_image(matrix, images, rng) if images is not None else None
    twins = float((cosines[:, 0] > TWIN_COSINE).mean()) if cosines.size else 0.0
    space = Space(
        matrix=matrix,
        coverage=tuple((int(part.sum()), len(part)) for part in np.split(matrix.has, [scenario.num_x])),
        mean_cosine=mean_cosine,
        effective_rank=rank,
        twins=twins,
        label=label,
        agreement=float(np.mean(hits)) if hits else None,
        chance=float(np.mean(chances)) if hits else None,
        compared=len(hits),
        own_image=own[0] if own else None,
        own_image_among=own[1] if own else 0,
    )
    space.warnings.extend(_warnings(space))
    return space


def _unit_rows(matrix: FeatureMatrix, items: np.ndarray) -> np.ndarray:
    return unit_rows(matrix.rows[items], matrix.has[items])


def spread(rows: np.ndarray) -> tuple[float, float]:
    """Mean cosine of all pairs of rows, and effective rank of the centred rows.

    Args:
        rows: (R, D) of length 1.
    """
    count = len(rows)
    if count < 2:
        return 1.0, 0.0
    total = rows.sum(axis=0, dtype=np.float64)
    squares = float((rows.astype(np.float64) ** 2).sum())
    cosine = (float(total @ total) - squares) / (count * (count - 1))
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False).astype(np.float64) ** 2
    values = values[values > 1e-12 * max(values[0], 1e-12)]
    if not len(values):
        return cosine, 0.0
    shares = values / values.sum()
    return cosine, float(np.exp(-(shares * np.log(shares)).sum()))


def nearest_items(
    scenario: Scenario, matrix: FeatureMatrix, queries: np.ndarray, count: int, *, same_domain: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The items nearest to each query by cosine, in its own domain (without itself) or in the other one.

    Returns:
        items (Q, count) int64, -1 where there are fewer, and their cosines (Q, count) float32, -inf there.
    """
    items = np.full((len(queries), count), -1, np.int64)
    cosines = np.full((len(queries), count), -np.inf, np.float32)
    for in_y in (False, True):
        mine = np.flatnonzero((queries >= scenario.num_x) == in_y)
        low, high = (scenario.num_x, scenario.num_items) if in_y == same_domain else (0, scenario.num_x)
        pool = low + np.flatnonzero(matrix.has[low:high])
        if not len(mine) or not len(pool):
            continue
        candidates = _unit_rows(matrix, pool)
        for start in range(0, len(mine), BLOCK):
            block = mine[start : start + BLOCK]
            scores = _unit_rows(matrix, queries[block]) @ candidates.T
            scores[queries[block][:, None] == pool] = -np.inf
            kept = min(count, len(pool))
            # Rounded, and of equal items the first: the last bit, which differs between processors, must not decide.
            places = np.arange(len(pool)) * (0.5 * EQUAL / len(pool))
            keys = places - np.round(scores.astype(np.float64) / EQUAL) * EQUAL
            best = np.argpartition(keys, kept - 1, axis=1)[:, :kept]
            best = np.take_along_axis(best, np.argsort(np.take_along_axis(keys, best, axis=1), axis=1), axis=1)
            values = np.take_along_axis(scores, best, axis=1)
            items[block, :kept] = np.where(np.isfinite(values), pool[best], -1)
            cosines[block, :kept] = values
    cosines[~matrix.has[queries]], items[~matrix.has[queries]] = -np.inf, -1
    return items, cosines


def own_image(text: FeatureMatrix, images: FeatureMatrix, rng: np.random.Generator) -> tuple[float, int] | None:
    """How often an item's own image is among the `TOP` nearest to its text, and out of how many images."""
    both = np.flatnonzero(text.has & images.has)
    if text.width != images.width or len(both) < 2 * TOP:
        return None
    sample = rng.choice(both, min(SAMPLE, len(both)), replace=False)
    scores = _unit_rows(text, sample) @ _unit_rows(images, sample).T
    lead = scores - np.diagonal(scores)[:, None]
    # Equal scores share the mean rank: a constant space finds nothing.
    ranks = (lead > EQUAL).sum(axis=1) + ((abs(lead) <= EQUAL).sum(axis=1) - 1) / 2
    return float((ranks < TOP).mean()), len(sample)


def item_labels(scenario: Scenario) -> tuple[str, list[frozenset[str]]]:
    """What says that two items are alike: the most specific category where there is one, else the words of the title.

    Returns:
        "category" or "title word", and a set per item, empty where nothing is known.
    """
    if "categories" in scenario.items.columns:
        found = [_category(value) for value in scenario.items["categories"]]
        if any(found):
            return "category", found
    titles = (set(WORD.findall(str(title).lower())) for title in scenario.items.title)
    return "title word", [frozenset(words - COMMON_WORDS) for words in titles]


def _category(value: str) -> frozenset[str]:
    """The last level of every path of "Home > Kitchen > Pots | Garden > Pots"."""
    return frozenset(filter(None, (path.split(">")[-1].strip() for path in value.split("|"))))


def companions(matrices: Sequence[FeatureMatrix]) -> dict[str, FeatureMatrix]:
    """For each text matrix of a CLIP model the image matrix of the same weights, by name."""
    images = {
        matrix.details.get("weights_sha256"): matrix
        for matrix in matrices
        if matrix.kind == "image" and matrix.details.get("weights_sha256")
    }
    return {
        matrix.name: images[matrix.details["weights_sha256"]]
        for matrix in matrices
        if matrix.kind == "text" and matrix.details.get("weights_sha256") in images
    }


def _warnings(space: Space) -> list[str]:
    told = []
    if space.mean_cosine > CONSTANT_COSINE or space.effective_rank < 2:
        told.append(
            f"nearly constant: two random items have cosine {space.mean_cosine:.3f}, effective rank "
            f"{space.effective_rank:.1f} of {space.matrix.width}; it tells items apart badly"
        )
    if space.twins > MANY_TWINS:
        told.append(
            f"{percent(space.twins)} of the items have a twin in exactly the same place: equal texts, or one placeholder "
            "image for many"
        )
    if space.agreement is not None and space.chance is not None and space.chance < 1 and space.compared >= 50:
        error = np.sqrt(max(space.chance * (1 - space.chance), 1e-4) / space.compared)
        if space.agreement <= space.chance + 2 * error:
            told.append(
                f"nearest neighbours share a {space.label} no more often than random items "
                f"({percent(space.agreement, 1)}, by chance {percent(space.chance, 1)})"
            )
    if space.own_image is not None:
        chance = space.own_image_chance
        if space.own_image <= chance + 2 * np.sqrt(chance * (1 - chance) / space.own_image_among):
            told.append(
                f"texts find their own image no better than by chance (top {TOP} of "
                f"{space.own_image_among}: {percent(space.own_image, 1)}, by chance {percent(chance, 1)}): wrong weights?"
            )
    return told
