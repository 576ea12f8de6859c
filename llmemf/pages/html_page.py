"""Pages and their Markdown twins, rendered from templates; an HTML page is one file that needs no network."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from llmemf import text_format


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template of the folder `templates`.

    Whatever a value contains is text in an `.html` template, never markup. Filters: `css` (a length in a style, 25.0%),
    `percent` (25 %), `md` (a text in a Markdown template).
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    """It keeps the compiled templates."""
    environment = Environment(
        loader=PackageLoader("llmemf.pages"),
        autoescape=select_autoescape(["html"], default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "css": "{:.1%}".format,
        "percent": text_format.percent,
        "md": markdown_text,
    }
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def markdown_text(content: object) -> str:
    """Any text inside of Markdown: nothing in it is markup, and it stays on one line."""
    text = " ".join(str(content).split()).replace("\\", "\\\\")
    for sign in "`*_[]|#<>":
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return text
