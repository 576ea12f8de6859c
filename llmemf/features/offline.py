"""Encoders that need no weights: text by TF-IDF and truncated SVD, images by pixels and PCA (scikit-learn).

Both are fitted on the content of all items of a scenario. Content is known without any interaction, so no evaluation
case leaks into the features. Rows are L2-normalised; a catalogue too small for the asked width is padded with zero
columns, and the rank that is really there stands in the details. The encoder is named "offline" wherever results are
shown: it stands in for pretrained encoders, it does not equal them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmemf.errors import InputError
from llmemf.features.image_content import eight_bit
from llmemf.features.item_sources import IMAGES, image_source
from llmemf.features.matrix import KINDS, FeatureMatrix, check_absent, feature_folders
from llmemf.scenarios.images import is_address
from llmemf.scenarios.scenario import Scenario

ENCODER = "offline"
PIXELS = 32
"""Images are read as PIXELS x PIXELS RGB."""
FIT_IMAGES = 50_000
"""The PCA is fitted on at most this many images (a seeded sample); all images are then projected."""
LISTED_PROBLEMS = 50
"""The details list at most this many unreadable images by name; all are counted."""
CHUNK = 8192
LARGEST_WIDTH = 8192
"""More columns cost hours and gigabytes, and no catalogue fills them."""


def write_offline(scenario: Scenario, kind: str, width: int = 512, *, overwrite: bool = False) -> FeatureMatrix | None:
    """Encode "text" or "image" and write it below the scenario's folder; None if there is no content of that kind.

    Raises:
        InputError: as `encode_text` and `encode_images`; or the features exist and `overwrite` is off.
    """
    if not overwrite:
        check_absent(scenario, [f"{kind}.{ENCODER}"])
    matrix = {"text": encode_text, "image": encode_images}[kind](scenario, width)
    if matrix is not None:
        matrix.save(scenario, overwrite=overwrite)
    return matrix


def write_missing(scenario: Scenario) -> None:
    """Write the offline features that the scenario does not have yet."""
    present = {folder.name for folder in feature_folders(scenario)}
    for kind in KINDS:
        if f"{kind}.{ENCODER}" not in present:
            write_offline(scenario, kind)


def encode_text(scenario: Scenario, width: int = 512) -> FeatureMatrix | None:
    """Encode title and description of every item by TF-IDF and truncated SVD.

    TF-IDF: words of two letters or more without English stop words, sublinear term frequency, words of a single item
    left out in catalogues of 100 texts or more (they make no two items alike). Items without text, or without one word
    of the vocabulary, get a zero row and no mark in `has`.

    Returns:
        (num_items, width) float32 rows, or None if no item has any text.

    Raises:
        InputError: width below 1, or no text holds a usable word.
    """
    _check_width(width)
    texts = (scenario.items.title.astype(str) + "\n" + scenario.items.description.astype(str)).str.strip().tolist()
    if not any(texts):
        return None
    rows, has, facts = text_rows(texts, width, scenario.name)
    return FeatureMatrix(
        kind="text",
        encoder=ENCODER,
        rows=rows,
        has=has,
        items_hash=scenario.items_hash(),
        details={"method": "TF-IDF of title and description, truncated SVD, L2-normalised", **facts},
    )


def text_rows(texts: Sequence[str], width: int, name: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """TF-IDF and truncated SVD of texts, as `encode_text` describes.

    Args:
        texts: "" where there is none; at least one is not.
        name: of the scenario, for the message.

    Returns:
        (len(texts), width) float32 rows, (len(texts),) bool which have one, and facts for a manifest.

    Raises:
        InputError: no text holds a usable word.
    """
    import sklearn
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    _check_width(width)
    filled = np.flatnonzero([bool(text) for text in texts])
    settings = {
        "stop_words": "english",
        "strip_accents": "unicode",
        "sublinear_tf": True,
        "min_df": 2 if len(filled) >= 100 else 1,
        "max_features": 100_000,
    }
    try:
        counts = TfidfVectorizer(dtype=np.float32, **settings).fit_transform([text for text in texts if text])
    except ValueError as error:
        raise InputError(f"scenario {name!r}: its texts hold no usable word for TF-IDF ({error})") from None
    components = min(width, *counts.shape)
    svd = TruncatedSVD(components, algorithm="randomized", n_iter=5, random_state=0)
    rows = np.zeros((len(texts), width), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        rows[filled, :components] = svd.fit_transform(counts)
    rank = _effective_rank(svd.singular_values_)
    rows[:, rank:] = 0
    has = _normalise(rows)
    return (
        rows,
        has,
        {
            "settings": settings | {"n_iter": 5, "random_state": 0},
            "sklearn": sklearn.__version__,
            "items_with_text": len(filled),
            "items_with_text_but_no_word_of_the_vocabulary": int(len(filled) - has.sum()),
            "vocabulary": counts.shape[1],
            "effective_rank": rank,
            "explained_variance": _explained(svd.explained_variance_ratio_[:rank]),
        },
    )


def encode_images(scenario: Scenario, width: int = 512) -> FeatureMatrix | None:
    """Encode the image of every item by its pixels (32 x 32 RGB) and PCA.

    Images are read one at a time; only their small versions stay in memory (3 kB each). Images that are missing or
    cannot be read get a zero row and no mark in `has`; they are counted and listed in the details.

    Returns:
        (num_items, width) float32 rows, or None if no item names an image.

    Raises:
        InputError: width below 1, the scenario lies in memory only, or no image can be read.
    """
    import sklearn
    from sklearn.decomposition import PCA

    _check_width(width)
    paths = _image_paths(scenario)
    named = np.flatnonzero(paths != "")
    if not len(named):
        return None
    pixels, readable, problems = _read_images(scenario.location, paths[named])
    if not len(readable):
        raise InputError(
            f"scenario {scenario.name!r}: none of its {len(named)} images can be read; first: {problems[0]}"
        )
    items = named[readable]
    rng = np.random.default_rng(0)
    fitted = np.sort(rng.permutation(len(pixels))[:FIT_IMAGES])
    components = min(width, len(fitted), pixels.shape[1])
    pca = PCA(components, svd_solver="randomized", random_state=0)
    with np.errstate(invalid="ignore"):
        pca.fit(pixels[fitted].astype(np.float32) / 255)
    rank = _effective_rank(pca.singular_values_)
    if not rank:
        raise InputError(
            f"scenario {scenario.name!r}: its {len(items)} readable images are all the same; leave the modality out "
            "with --set modalities=id,text"
        )
    rows = np.zeros((scenario.num_items, width), dtype=np.float32)
    for start in range(0, len(pixels), CHUNK):
        part = slice(start, start + CHUNK)
        rows[items[part], :components] = pca.transform(pixels[part].astype(np.float32) / 255)
    rows[:, rank:] = 0
    has = _normalise(rows)
    return FeatureMatrix(
        kind="image",
        encoder=ENCODER,
        rows=rows,
        has=has,
        items_hash=scenario.items_hash(),
        details={
            "method": f"pixels {PIXELS} x {PIXELS} RGB, PCA, L2-normalised",
            "settings": {"pixels": PIXELS, "svd_solver": "randomized", "random_state": 0, "fit_images": len(fitted)},
            "sklearn": sklearn.__version__,
            "items_with_image": len(named),
            "items_with_address_only": items_with_address_only(scenario),
            "items_with_unreadable_image": len(problems),
            "unreadable_images": problems[:LISTED_PROBLEMS],
            "effective_rank": rank,
            "explained_variance": _explained(pca.explained_variance_ratio_[:rank]),
        },
    )


def _check_width(width: int) -> None:
    if not 1 <= width <= LARGEST_WIDTH:
        raise InputError(f"--width {width}: must be from 1 to {LARGEST_WIDTH} (512 is the default)")


def _image_paths(scenario: Scenario) -> np.ndarray:
    """(num_items,) strings: fetched images where there are any, else the item table's; an address alone is no image."""
    if scenario.folder is not None and (scenario.folder / IMAGES).exists():
        return np.array(image_source(scenario).contents, dtype=object)
    images = scenario.items.image.astype(str)
    return np.array(["" if is_address(image) else image for image in images], dtype=object)


def items_with_address_only(scenario: Scenario) -> int:
    """Number of items whose image is an address, where no images were fetched."""
    fetched = scenario.folder is not None and (scenario.folder / IMAGES).exists()
    return 0 if fetched else sum(map(is_address, scenario.items.image.astype(str)))


def _read_images(folder: Path, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Small RGB pixels of every readable image.

    Returns:
        pixels (R, PIXELS * PIXELS * 3) uint8, readable (R,) indices into `paths`, and one line per unreadable image.
    """
    from PIL import Image

    pixels = np.empty((len(paths), PIXELS * PIXELS * 3), dtype=np.uint8)
    readable: list[int] = []
    problems: list[str] = []
    for index, path in enumerate(paths):
        try:
            with Image.open(folder / path) as image:
                image.draft("RGB", (2 * PIXELS, 2 * PIXELS))
                small = eight_bit(image).convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BOX)
        except FileNotFoundError:
            problems.append(f"{path}: no such file")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(f"{path}: {error}")
        else:
            pixels[len(readable)] = np.asarray(small).reshape(-1)
            readable.append(index)
    return pixels[: len(readable)], np.array(readable, dtype=np.int64), problems


def _normalise(rows: np.ndarray) -> np.ndarray:
    """Give every row unit length in place; rows without length become zero. Returns (num_items,) bool: has length."""
    lengths = np.linalg.norm(rows, axis=1)
    has = lengths > 1e-6
    rows[has] /= lengths[has, None]
    rows[~has] = 0
    return has


def _effective_rank(singular_values: np.ndarray) -> int:
    """Number of directions that carry anything beyond rounding."""
    values = np.nan_to_num(singular_values)
    return int((values > 1e-5 * values.max()).sum()) if values.max() > 1e-6 else 0


def _explained(ratios: np.ndarray) -> float:
    return round(float(np.nan_to_num(ratios).sum()), 4)
