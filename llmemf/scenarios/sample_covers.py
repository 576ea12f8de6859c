"""Rendered covers of the embedded sample: the visual style of an item and nothing else.

A style is a palette and a composition. Hue, brightness, positions and sizes vary from cover to cover. Films carry a
title bar and lines of credits at the foot, books a spine and a title block at the head; the "letters" are plain bars,
so that no encoder can read the theme of an item from its cover.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

WIDTH, HEIGHT = 64, 96
"""Size of a stored cover in pixels."""
_SCALE = 2
_W, _H = WIDTH * _SCALE, HEIGHT * _SCALE

Colour = tuple[int, int, int]


def render_cover(style: int, film: bool, rng: np.random.Generator) -> bytes:
    """Draw one cover and return it as JPEG.

    Args:
        style: index into `STYLES`.
        film: the layout of a film poster instead of that of a book.
        rng: source of every variation.
    """
    palette, compose = STYLES[style]
    hue, light = rng.normal(0.0, 0.025), rng.normal(1.0, 0.09)
    colours = [_vary(colour, hue, light) for colour in palette]
    image = Image.new("RGB", (_W, _H), colours[0])
    draw = ImageDraw.Draw(image)
    compose(draw, colours, rng)
    _letter(draw, film, rng)
    image = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0.85, 1.1)))
    buffer = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.BOX).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _vary(colour: str, hue_shift: float, light: float) -> Colour:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (0, 2, 4))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    varied = colorsys.hls_to_rgb((hue + hue_shift) % 1.0, min(max(lightness * light, 0.04), 0.96), saturation)
    red, green, blue = (round(255 * part) for part in varied)
    return red, green, blue


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second))
    return red, green, blue


def _letter(draw: ImageDraw.ImageDraw, film: bool, rng: np.random.Generator) -> None:
    """Title and small print as bars."""
    ink = (250, 247, 238)
    shade = (24, 22, 26)
    if film:
        draw.rectangle((0, _H - 38, _W, _H), fill=shade)
        width = int(rng.integers(50, 100))
        draw.rectangle(((_W - width) // 2, _H - 32, (_W + width) // 2, _H - 24), fill=ink)
        for top in (_H - 17, _H - 11):
            width = int(rng.integers(60, 110))
            draw.rectangle(((_W - width) // 2, top, (_W + width) // 2, top + 2), fill=(150, 146, 140))
    else:
        draw.rectangle((0, 0, 9, _H), fill=shade)
        draw.rectangle((24, 14, _W - 14, 46), fill=ink)
        for top in (21, 33):
            width = int(rng.integers(40, 78))
            middle = (_W + 10) // 2
            draw.rectangle((middle - width // 2, top, middle + width // 2, top + 6), fill=shade)


def _horizon(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    line = int(_H * rng.uniform(0.55, 0.68))
    for top in range(line):
        draw.line((0, top, _W, top), fill=_mix(colours[0], colours[1], top / line))
    radius, middle = int(rng.integers(20, 30)), int(_W * rng.uniform(0.3, 0.7))
    draw.ellipse((middle - radius, line - radius, middle + radius, line + radius), fill=colours[2])
    draw.rectangle((0, line, _W, _H), fill=colours[3])


def _stripes(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    width = int(rng.integers(13, 20))
    for number, left in enumerate(range(0, _W, width)):
        draw.rectangle((left, 0, left + width, _H), fill=colours[number % 2])
    left = int(_W * rng.uniform(0.2, 0.7))
    draw.rectangle((left, 0, left + width, _H), fill=colours[2])


def _rings(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    x, y = _W * rng.uniform(0.42, 0.58), _H * rng.uniform(0.45, 0.58)
    for number, radius in enumerate(range(int(rng.integers(56, 66)), 6, -12)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colours[1 + number % 2])


def _night(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    for x, y in rng.random((40, 2)) * (_W, _H):
        draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colours[1])
    x, y, radius = _W * rng.uniform(0.6, 0.8), _H * rng.uniform(0.34, 0.44), rng.uniform(17, 23)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colours[2])
    draw.ellipse((x - radius - 9, y - radius - 5, x + radius - 9, y + radius - 5), fill=colours[0])


def _blocks(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    x, y, z = int(_W * rng.uniform(0.35, 0.5)), int(_H * rng.uniform(0.35, 0.5)), int(_H * rng.uniform(0.62, 0.72))
    draw.rectangle((0, 0, x, y), fill=colours[1])
    draw.rectangle((x, z, _W, _H), fill=colours[2])
    draw.rectangle((0, z, x, _H), fill=colours[3])
    for box in ((x - 3, 0, x + 3, _H), (0, y - 3, _W, y + 3), (0, z - 3, _W, z + 3)):
        draw.rectangle(box, fill=(20, 20, 20))


def _peaks(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    for number, base in enumerate((0.42, 0.56, 0.7)):
        x, top, reach = (
            _W * rng.uniform(0.2, 0.8),
            _H * (base - 0.12 + rng.uniform(-0.04, 0.04)),
            _W * rng.uniform(0.7, 1.0),
        )
        draw.polygon(((x - reach, _H), (x, top), (x + reach, _H)), fill=colours[1 + number])


def _diagonal(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    left, right = _H * rng.uniform(0.62, 0.85), _H * rng.uniform(0.15, 0.38)
    draw.polygon(((0, left), (_W, right), (_W, _H), (0, _H)), fill=colours[1])
    draw.line((0, left, _W, right), fill=colours[2], width=int(rng.integers(6, 12)))


def _frame(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    for inset in (8, 15):
        draw.rectangle((inset, inset, _W - inset, _H - inset), outline=colours[1], width=3)
    x, y, radius = _W / 2, _H * rng.uniform(0.5, 0.58), rng.uniform(20, 28)
    draw.polygon(((x, y - radius * 1.4), (x + radius, y), (x, y + radius * 1.4), (x - radius, y)), fill=colours[2])


def _waves(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    phase, length = rng.uniform(0, 6.28), rng.uniform(15, 22)
    columns = np.arange(0, _W + 1, 2)
    for number, base in enumerate((0.34, 0.48, 0.62, 0.76)):
        crest = _H * base + 8 * np.sin(columns / length + phase + number)
        shape = [(int(x), int(y)) for x, y in zip(columns, crest)]
        draw.polygon([(0, _H), *shape, (_W, _H)], fill=_mix(colours[1], colours[2], number / 3))


def _leaves(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    stem = _W * rng.uniform(0.42, 0.58)
    draw.line((stem, _H * 0.3, stem, _H), fill=colours[1], width=4)
    for number in range(5):
        y, reach, side = _H * (0.34 + 0.12 * number), rng.uniform(34, 46), 1 if number % 2 else -1
        tip = stem + side * reach
        draw.ellipse((min(stem, tip), y - 9, max(stem, tip), y + 9), fill=colours[1 + number % 2])


def _arch(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    x, width, top = _W * rng.uniform(0.44, 0.56), rng.uniform(28, 36), _H * rng.uniform(0.3, 0.38)
    draw.ellipse((x - width, top, x + width, top + 2 * width), fill=colours[1])
    draw.rectangle((x - width, top + width, x + width, _H), fill=colours[1])
    draw.ellipse((x - 8, top + width + 16, x + 8, top + width + 32), fill=colours[0])
    draw.polygon(((x - 12, _H), (x - 7, top + width + 28), (x + 7, top + width + 28), (x + 12, _H)), fill=colours[0])


def _confetti(draw: ImageDraw.ImageDraw, colours: list[Colour], rng: np.random.Generator) -> None:
    for number, (x, y) in enumerate(rng.random((46, 2)) * (_W, _H)):
        size = rng.uniform(4, 9)
        draw.rectangle((x - size, y - size, x + size, y + size), fill=colours[1 + number % 3])


STYLES: tuple[tuple[tuple[str, ...], Callable[[ImageDraw.ImageDraw, list[Colour], np.random.Generator], None]], ...] = (
    (("402060", "f08a4b", "ffd27a", "2b1a3a"), _horizon),
    (("2a8c82", "f1e8d2", "c8553d"), _stripes),
    (("efe6d4", "b8322a", "efe6d4"), _rings),
    (("14203f", "d8dcec", "f4e6b0"), _night),
    (("f4f0e4", "e2b714", "2456a6", "c7302b"), _blocks),
    (("c9dce3", "8ba7a0", "587a6b", "2f4a3f"), _peaks),
    (("c2307e", "1fa7b8", "f8ecd0"), _diagonal),
    (("3d2418", "c9a24b", "8c2f2a"), _frame),
    (("dfeef5", "6fb1d6", "123f78"), _waves),
    (("dfe8c4", "4f8a3c", "86b04f"), _leaves),
    (("1c1c1e", "d9d6cf"), _arch),
    (("f6c6cf", "7a4fa3", "f0a830", "3aa6a0"), _confetti),
)
"""Palette (background first) and composition of every style."""
