"""A scenario's features: a table in the terminal, and a page: one HTML file, without scripts, for any screen and colour scheme."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from llmemf.commands.data_options import hint, say, show
from llmemf.errors import InputError, StorageError
from llmemf.features.feature_report import FeatureReport
from llmemf.features.matrix import FeatureMatrix
from llmemf.io import write_text
from llmemf.pages.html_page import render
from llmemf.scenarios.scenario import Scenario
from llmemf.text_format import percent, plural

LARGE, THUMBNAIL = 320, 128
"""Longest side of an item's picture and of a neighbour's, in pixels."""


def feature_table(scenario: Scenario, matrices: Sequence[FeatureMatrix]) -> Table:
    """Kind, encoder, width, coverage of each domain and hash of every matrix."""
    table = Table("kind", "encoder", "width", *scenario.domains, "hash", box=None, header_style="bold")
    for place, column in enumerate(table.columns):
        column.overflow, column.no_wrap = ("fold", False) if place == 1 else ("ellipsis", True)
    for matrix in matrices:
        parts = (matrix.has[: scenario.num_x], matrix.has[scenario.num_x :])
        coverage = [f"{int(part.sum())} of {len(part)} ({percent(part.mean())})" for part in parts]
        table.add_row(matrix.kind, matrix.encoder, str(matrix.width), *coverage, matrix.hash()[:12])
    return table


def print_features(scenario: Scenario, matrices: Sequence[FeatureMatrix]) -> None:
    """Print the table of some matrices, and what a user should know beyond it."""
    show(feature_table(scenario, matrices))
    for matrix in matrices:
        for note in notes(scenario, matrix):
            say(f"note: {matrix.name}: {note}")


def address_note(scenario: Scenario, count: int) -> str:
    """That this number of items have the address of an image that nobody has fetched, and the command that fetches it."""
    fetch = hint(scenario.location.parent, "features", "images", scenario.name)
    return f"{plural(count, 'item')} with the address of an image but no file: `{fetch}` fetches them"


def notes(scenario: Scenario, matrix: FeatureMatrix) -> list[str]:
    """What a user should know about a matrix beyond the table, one line each."""
    told = []
    details = matrix.details
    if unreadable := details.get("items_with_unreadable_image"):
        told.append(
            f"{plural(unreadable, 'image')} cannot be read, counted as missing; first: {details['unreadable_images'][0]}"
        )
    if addresses := details.get("items_with_address_only"):
        told.append(address_note(scenario, addresses))
    for key, other in (("items_with_title_only", "LLM text"), ("items_with_llm_text_only", "title")):
        if count := details.get(key):
            told.append(f"{plural(count, 'item')} without {other}, encoded from the rest alone")
    if unknown := details.get("items_with_text_but_no_word_of_the_vocabulary"):
        told.append(f"{plural(unknown, 'item')} with a text without any word that another item has, counted as missing")
    if empty := details.get("items_with_text_but_no_token"):
        told.append(f"{plural(empty, 'item')} with a text without any token, counted as missing")
    if details.get("effective_rank", matrix.width) < matrix.width:
        told.append(f"only {details['effective_rank']} of {matrix.width} columns carry something, the others are zero")
    return told


def write_page(report: FeatureReport, path: Path) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    page = as_html(report)
    try:
        write_text(path, page)
    except StorageError as error:
        raise InputError(f"{error}; choose another --output") from error


def as_html(report: FeatureReport) -> str:
    """The whole page; each picture is embedded once however often it is shown."""
    shown = [(example.item, LARGE) for example in report.examples]
    for example in report.examples:
        for neighbours in (*example.inside.values(), *example.across.values()):
            shown += [(near, THUMBNAIL) for near, _ in neighbours]
    pictures = {(item, size): _jpeg(report.image_paths[item], size) for item, size in dict.fromkeys(shown)}
    values = {"report": report, "title": report.title_of, "pictures": pictures, "large": LARGE, "thumbnail": THUMBNAIL}
    return render("features.html", values)


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
