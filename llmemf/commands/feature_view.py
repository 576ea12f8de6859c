"""The page of a scenario's features: one self-contained HTML file, without scripts, for any screen and colour scheme."""

from __future__ import annotations

import base64
import io
import os
from html import escape
from pathlib import Path

from llmemf.commands.feature_style import STYLE
from llmemf.errors import InputError
from llmemf.features.feature_look import Example, FeatureLook, Neighbour
from llmemf.features.neighbours import Space

PICTURE, THUMBNAIL = 320, 128
"""Longest side of an item's picture and of a neighbour's, in pixels."""


def write_page(look: FeatureLook, path: Path) -> None:
    """Write the page; it appears whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    page = render(look)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error


def render(look: FeatureLook) -> str:
    """The whole page as HTML."""
    scenario = look.scenario
    pictures = _Pictures(look)
    counts = " and ".join(
        f"{count:,} {escape(domain)}" for domain, count in zip(scenario.domains, (scenario.num_x, scenario.num_y))
    )
    examples = "".join(_example(look, example, pictures) for example in look.examples)
    cards = "".join(_model_card(space) for space in look.spaces)
    title = f"Features of {escape(scenario.name)}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{title}</title><style>{STYLE}{pictures.rules()}</style></head><body>'
        f"<header><h1>{title}</h1><p>{counts} items, {len(look.spaces)} feature spaces, fingerprint "
        f"<code>{scenario.fingerprint[:12]}</code></p></header><main>{_warnings(look)}"
        f"<section><h2>Spaces</h2>{_spaces(look)}{_legend()}</section>"
        f"<section><h2>Content</h2>{_content(look)}</section>"
        f"<section><h2>Items and their nearest neighbours</h2>{examples}</section>"
        f"<section><h2>How they were made</h2>{cards}</section></main></body></html>\n"
    )


class _Pictures:
    """Small versions of the pictures that the page shows, each embedded once however often it is shown."""

    def __init__(self, look: FeatureLook) -> None:
        self.look = look
        self.shown: dict[tuple[int, int], str | None] = {}

    def tag(self, item: int, size: int) -> str:
        """A box with the item's picture, or an empty one that says why."""
        title = escape(_title(self.look, item), quote=True)
        if (item, size) not in self.shown:
            self.shown[item, size] = _picture(self.look.image_paths[item], size)
        if self.shown[item, size] is None:
            reason = "image cannot be read" if self.look.image_paths[item] else "no image"
            return f'<span class="picture none">{reason}</span>'
        return f'<span class="picture p{item}-{size}" role="img" aria-label="{title}"></span>'

    def rules(self) -> str:
        return "".join(
            f".p{item}-{size}{{background-image:url(data:image/jpeg;base64,{content})}}"
            for (item, size), content in self.shown.items()
            if content
        )


def _picture(path: str, size: int) -> str | None:
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


def _title(look: FeatureLook, item: int) -> str:
    title = str(look.scenario.items.title[item]).strip()
    return title or f"item {look.scenario.items.external_id[item]} (no title)"


def _warnings(look: FeatureLook) -> str:
    if not look.warnings:
        return ""
    lines = "".join(
        f"<li><b>{escape(space.name)}</b> {escape(warning)}</li>" for space in look.spaces for warning in space.warnings
    )
    return f'<section class="warnings"><h2>Look at this first</h2><ul>{lines}</ul></section>'


def _spaces(look: FeatureLook) -> str:
    domains = [escape(domain) for domain in look.scenario.domains]
    label = look.spaces[0].label if look.spaces else "title word"
    heads = [
        "space",
        *domains,
        "mean cosine",
        "effective rank",
        f"neighbour shares {label}",
        "finds own image",
        "twins",
    ]
    rows = "".join(_space_row(space, heads) for space in look.spaces)
    return (
        f'<table class="spaces"><thead><tr>{"".join(f"<th>{head}</th>" for head in heads)}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _space_row(space: Space, heads: list[str]) -> str:
    agreement = own = "<span class='quiet'>-</span>"
    if space.agreement is not None:
        agreement = f"{space.agreement:.1%}<small>by chance {space.chance:.1%}</small>"
    if space.own_image is not None:
        chance = space.own_image_top / space.own_image_among
        own = f"{space.own_image:.1%}<small>by chance {chance:.1%}</small>"
    cells = [
        *(_bar(have, total) for have, total in space.coverage),
        f"{space.mean_cosine:.3f}",
        f"{space.effective_rank:.1f}<small>of {space.matrix.width}</small>",
        agreement,
        own,
        f"{space.twins:.1%}",
    ]
    mark = ' class="doubtful"' if space.warnings else ""
    name = f'<span class="kind {space.matrix.kind}">{space.matrix.kind}</span> {escape(space.matrix.encoder)}'
    body = "".join(f'<td data-head="{head}">{cell}</td>' for head, cell in zip(heads[1:], cells))
    return f"<tr{mark}><th>{name}</th>{body}</tr>"


def _bar(have: int, total: int) -> str:
    share = have / total if total else 0.0
    return (
        f'<span class="bar"><i style="width:{share:.1%}"></i></span><small>{have:,} of {total:,} ({share:.0%})</small>'
    )


def _content(look: FeatureLook) -> str:
    scenario = look.scenario
    totals = (scenario.num_x, scenario.num_y)
    heads = "".join(f"<th>{escape(domain)}</th>" for domain in scenario.domains)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(
            f'<td data-head="{escape(domain)}">{_bar(have, total)}</td>'
            for domain, have, total in zip(scenario.domains, found, totals)
        )
        + "</tr>"
        for name, found in look.content.items()
    )
    return f"<table><thead><tr><th>items with</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _legend() -> str:
    return (
        "<details><summary>What the numbers mean</summary><dl>"
        "<dt>mean cosine</dt><dd>of random pairs of items: 0 means spread over all directions, 1 means all in one "
        "place. CLIP texts often lie at 0.6 to 0.9; above 0.95 a space hardly tells items apart.</dd>"
        "<dt>effective rank</dt><dd>how many directions the items really use, after their mean is taken away.</dd>"
        "<dt>neighbour shares</dt><dd>how often the nearest item of the same domain has the same category, or a word of "
        "the title in common, beside how often a random item of the domain has it.</dd>"
        "<dt>finds own image</dt><dd>text and image of one CLIP model: how often an item's own image is among the 10 "
        "nearest to its text, out of up to 1,000 images.</dd>"
        "<dt>twins</dt><dd>items that lie in exactly the same place as another one: equal titles, placeholder "
        "images.</dd></dl></details>"
    )


def _example(look: FeatureLook, example: Example, pictures: _Pictures) -> str:
    scenario = look.scenario
    in_y = example.item >= scenario.num_x
    domain, other = scenario.domains[in_y], scenario.domains[not in_y]
    text = look.llm_texts[example.item] or str(scenario.items.description[example.item]).strip()
    said = f"<p class='text'>{escape(text)}</p>" if text else "<p class='text quiet'>no LLM text, no description</p>"
    if len(text) > 400:
        cut = text[:400].rsplit(" ", 1)[0]
        rest = escape(text[len(cut) :])
        said = f"<p class='text'>{escape(cut)} ...</p><details class='text'><summary>more</summary>{rest}</details>"
    spaces = "".join(
        f'<div class="near"><h4><span class="kind {space.matrix.kind}">{space.matrix.kind}</span> '
        f"{escape(space.matrix.encoder)}</h4>"
        + f'<div class="strips">{_strip(look, domain, example.inside[space.name], pictures)}'
        + f"{_strip(look, other, example.across[space.name], pictures)}</div></div>"
        for space in look.spaces
    )
    return (
        f'<article><div class="item">{pictures.tag(example.item, PICTURE)}<div>'
        f"<h3>{escape(_title(look, example.item))}</h3>"
        f'<p class="quiet">{escape(domain)}, {escape(str(scenario.items.external_id[example.item]))}</p>{said}'
        f"</div></div><div>{spaces}</div></article>"
    )


def _strip(look: FeatureLook, domain: str, neighbours: list[Neighbour], pictures: _Pictures) -> str:
    tiles = "".join(
        f"<li>{pictures.tag(near.item, THUMBNAIL)}<span class='name'>{escape(_title(look, near.item))}</span>"
        f"<span class='cosine'>{near.cosine:.3f}</span></li>"
        for near in neighbours
    )
    body = f"<ol>{tiles}</ol>" if tiles else "<p class='quiet'>the item has no row here, or there is no other item</p>"
    return f'<div class="strip"><h5>{escape(domain)}</h5>{body}</div>'


def _model_card(space: Space) -> str:
    facts = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{_fact(value)}</dd>" for name, value in space.matrix.details.items()
    )
    return (
        f"<details><summary>{escape(space.name)} <code>{space.matrix.hash()[:12]}</code></summary>"
        f"<dl class='card'>{facts}</dl></details>"
    )


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(name))}: {_fact(part)}" for name, part in value.items())
    if isinstance(value, list) and len(value) > 8:
        return "<br>".join(escape(str(part)) for part in value[:8]) + f"<br>and {len(value) - 8:,} more"
    if isinstance(value, list):
        return "<br>".join(escape(str(part)) for part in value) or "none"
    return escape(str(value))
