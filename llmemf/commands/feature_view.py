"""The page of a scenario's features: one self-contained HTML file, without scripts, for any screen and colour scheme."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from llmemf.errors import InputError
from llmemf.features.feature_report import FeatureReport
from llmemf.io import write_text
from llmemf.pages.html_page import render

LARGE, THUMBNAIL = 320, 128
"""Longest side of an item's picture and of a neighbour's, in pixels."""


def write_page(report: FeatureReport, path: Path) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    page = as_html(report)
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error


def as_html(report: FeatureReport) -> str:
    """The whole page; each picture is embedded once however often it is shown."""
    shown = [(example.item, LARGE) for example in report.examples]
    for example in report.examples:
        for neighbours in (*example.inside.values(), *example.across.values()):
            shown += [(near, THUMBNAIL) for near, _ in neighbours]
    pictures = {(item, size): _jpeg(report.image_paths[item], size) for item, size in dict.fromkeys(shown)}
    values = {"report": report, "title": report.title_of, "pictures": pictures, "large": LARGE, "thumbnail": THUMBNAIL}
    return render("llmemf.pages", "features.html", values)


def _jpeg(path: str, size: int) -> str | None:
    """A JPEG of at most size x size pixels in base64; None if there is no readable image."""
    from PIL import Image

    if not path:
        return None
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            small = image.convert("RGB")
            small.thumbnail((size, size))
    except Exception:  # noqa: BLE001 - decoders raise what they like at broken files; the page says that it is broken
        return None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
