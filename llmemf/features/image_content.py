"""Whether bytes are an image that may be kept: judged by the bytes themselves, never by name or header."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmemf.features.image_limits import ImageLimits
from llmemf.features.retries import RequestFailed

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp"}
"""Pillow's names of the accepted formats, and the suffix of their files."""
PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
    OverflowError,
)
"""What Pillow raises at broken files."""


class NoImage(RequestFailed):
    """Why an item gets no image; the message is the reason that the image table shows."""


@dataclass(frozen=True)
class ImageFacts:
    """What an image is: suffix by its content, width and height in pixels."""

    suffix: str
    width: int
    height: int


def check_image(data: bytes, limits: ImageLimits) -> ImageFacts:
    """Read the header, check the size, then decode all of it (a JPEG at reduced scale) to be sure that it is whole.

    Raises:
        NoImage: with the reason.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow's own limits are replaced by max_megapixels, which is checked before decoding.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=[name for name in SUFFIXES if name != "MPO"]) as image:
                width, height = image.size
                if width * height > limits.max_megapixels * 1e6:
                    raise NoImage("too many pixels")
                if min(width, height) < limits.min_side:
                    raise NoImage("too small")
                image.draft("RGB", (256, 256))
                image.load()
                return ImageFacts(SUFFIXES[image.format or ""], width, height)
        except Image.DecompressionBombError:
            raise NoImage("too many pixels") from None
        except Image.UnidentifiedImageError:
            raise NoImage(_what_else(data)) from None
        except PILLOW_ERRORS:
            raise NoImage("broken image") from None


def _what_else(data: bytes) -> str:
    """What bytes are that Pillow does not recognise."""
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "not an image (a web page)"
    if b"<svg" in start or data[4:12] in (b"ftypavif", b"ftypheic") or data[:4] in (b"II*\x00", b"MM\x00*"):
        return "unsupported image format"
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")):
        return "broken image"
    return "not an image" if data else "empty"


def eight_bit(image: Picture) -> Picture:
    """Grey images of 16 bits in 8 bits: Pillow's own conversion cuts every value off at 255, which makes them white."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
