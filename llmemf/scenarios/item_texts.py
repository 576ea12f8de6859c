"""What a metadata record says about its item, in clean strings: title, description, categories, image address.

The releases disagree on nearly every field: a string here is a list there, and the reverse. Whatever has the wrong
kind counts as missing.
"""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import astuple, dataclass

from llmemf.scenarios.loose_records import MISSING

TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL | re.IGNORECASE)
SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
SCRIPT = re.compile(r"\bvar aPageStart\b|\bgetTime\(\)|\bfunction\s*\(")
"""Some titles of the 2018 release are scripts of the page that they were taken from."""
NO_IMAGE = re.compile(r"/no-img|/no-image|transparent-pixel|/no_image", re.IGNORECASE)
NOTHING = ("None", "[]", "{}", "[None]")
"""Texts that programs write where they have none."""
LEVEL, PATH = " > ", " | "
"""Between the levels of a category, and between several categories of one item."""


@dataclass(frozen=True)
class ItemText:
    """Strings, empty where the record says nothing usable."""

    title: str = ""
    description: str = ""
    categories: str = ""
    image: str = ""

    def completed_by(self, other: ItemText) -> ItemText:
        """This, with what it lacks taken from `other`."""
        return ItemText(*(own or theirs for own, theirs in zip(astuple(self), astuple(other))))


def item_text(record: dict) -> ItemText:
    """The item of a metadata record of any release.

    Image: 2014 `imUrl`; 2018 `imageURLHighRes`, else `imageURL` (thumbnails), else `image`; 2023 `images`, of these the
    one called MAIN or the first, in `large` (about 500 pixels), else `hi_res`, else `thumb`.
    """
    title = plain_text(record.get("title"))
    return ItemText(
        title="" if SCRIPT.search(title) else title,
        description=_description(record),
        categories=category_paths(record.get("categories") or record.get("category") or record.get("main_category")),
        image=_image(record),
    )


def _description(record: dict) -> str:
    """The description, behind it what the release of 2023 tells in points: `features`, and `details` as `Brand: Lego`."""
    parts = [plain_text(record.get("description"))]
    if "parent_asin" not in record:
        return parts[0]
    parts.append(plain_text(record.get("features")))
    details = record.get("details")
    if isinstance(details, str) and details.strip().startswith("{"):
        try:
            details = json.loads(details)
        except (ValueError, RecursionError):
            details = None
    if isinstance(details, dict):
        pairs = ((plain_text(key), plain_text(value)) for key, value in details.items())
        parts.append("; ".join(f"{key.rstrip(':')}: {value}" for key, value in pairs if key and value))
    return " ".join(dict.fromkeys(part for part in parts if part))


def plain_text(value: object) -> str:
    """A string without markup, entities and line breaks; the parts of a list one after the other, each once."""
    if isinstance(value, list | tuple):
        parts = (plain_text(part) for part in value if not isinstance(part, list | tuple | dict))
        return " ".join(dict.fromkeys(part for part in parts if part))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float) and math.isnan(value):
        return ""
    text = str(value).strip()
    if text in MISSING or text in NOTHING:
        return ""
    # Entities come escaped twice (&amp;amp;); markup may appear only after that.
    text = html.unescape(html.unescape(text))
    # Lone surrogates of broken escapes cannot be stored as UTF-8.
    text = TAG.sub(" ", text).encode(errors="replace").decode()
    return SPACE.sub(" ", text).strip()


def category_paths(value: object) -> str:
    """Categories as `Books > Fiction | Gifts`, from a list of levels, a list of such lists, or a string."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return ""
    paths = value if any(isinstance(part, list | tuple) for part in value) else [value]
    joined = (LEVEL.join(_levels(path if isinstance(path, list | tuple) else [path])) for path in paths)
    return PATH.join(dict.fromkeys(path for path in joined if path))


def _levels(path: list | tuple) -> list[str]:
    return [text for text in (plain_text(level) for level in path if isinstance(level, str)) if text]


def _image(record: dict) -> str:
    for field in ("imUrl", "imageURLHighRes", "imageURL", "image", "images"):
        for written in _addresses(record.get(field)):
            address = html.unescape(written.strip())
            usable = address.lower().startswith(("http://", "https://")) and not re.search(r"\s", address)
            if usable and not NO_IMAGE.search(address):
                return address.encode(errors="replace").decode()
    return ""


def _addresses(value: object) -> list[str]:
    """Candidate addresses of an image field, the best first: a string, strings, dictionaries, or lists in one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for size in ("large", "hi_res", "thumb") for text in _addresses(value.get(size))]
    if isinstance(value, list | tuple):
        main_first = sorted(value, key=lambda one: not (isinstance(one, dict) and one.get("variant") == "MAIN"))
        return [text for one in main_first if isinstance(one, str | dict) for text in _addresses(one)]
    return []
