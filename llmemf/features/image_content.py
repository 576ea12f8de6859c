"""Whether bytes are an image that may be kept: judged by its content, never by name or header."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

FORMATS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp"}
"""Pillow's names of the formats that are kept, and the suffix that each gets."""


class BadImage(Exception):
    """Bytes that are kept out; the message is the reason."""


@dataclass(frozen=True)
class ImageFacts:
    """What an image is: suffix by its content, width and height in pixels."""

    suffix: str
    width: int
    height: int


def check_image(data: bytes, *, max_pixels: int, min_side: int) -> ImageFacts:
    """Read the header, check the size, then decode all of it (a JPEG at reduced scale) to be sure that it is whole.

    Args:
        data: the file.
        max_pixels: refuse images of more pixels, before any of them is decoded.
        min_side: refuse images with a shorter side, in pixels: shops answer with one pixel where they have no image.

    Raises:
        BadImage: the reason why it is kept out.
    """
    from PIL import Image

    kind = _kind(data)
    if not kind:
        raise BadImage(_what_else(data))
    with warnings.catch_warnings():
        # Pillow's own limits are replaced by max_pixels, which is checked before decoding.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise BadImage("too many pixels")
                if min(width, height) < min_side:
                    raise BadImage("too small")
                image.draft("RGB", (256, 256))
                image.load()
        except Image.DecompressionBombError:
            raise BadImage("too many pixels") from None
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            IndexError,
            KeyError,
            TypeError,
            MemoryError,
            OverflowError,
        ):
            raise BadImage("broken image") from None
    return ImageFacts(FORMATS[kind], width, height)


def _kind(data: bytes) -> str:
    """Pillow's name of the format that the first bytes announce, "" if none of `FORMATS`."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if data[:2] == b"BM" and len(data) > 26 else ""


def _what_else(data: bytes) -> str:
    if not data:
        return "empty"
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "not an image (a web page)"
    if b"<svg" in start or data[4:12] in (b"ftypavif", b"ftypheic") or data[:4] in (b"II*\x00", b"MM\x00*"):
        return "unsupported image format"
    return "not an image"
