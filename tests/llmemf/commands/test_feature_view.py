"""The page of a scenario's features: complete, self-contained, and safe with whatever stands in titles."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from small_clip import write_llm_text, write_scenario

from llmemf.commands.feature_view import render, write_page
from llmemf.errors import InputError
from llmemf.features.feature_look import look_at
from llmemf.features.matrix import FeatureMatrix

EVIL = "<script>alert('x')</script> & \"tea\""


@pytest.fixture
def look(tmp_path):
    """Eight items in two spaces; item 1 without an image, item 2 with a broken one, item 5 without a title."""
    for number in range(8):
        Image.new("RGB", (900, 600), (30 * number, 120, 90)).save(tmp_path / f"{number}.png")
    titles = [f"kettle {number}" for number in range(8)]
    titles[0], titles[5] = EVIL, ""
    files = [None if number == 1 else tmp_path / f"{number}.png" for number in range(8)]
    scenario = write_scenario(tmp_path / "data", titles, files)
    (scenario.folder / "images" / "2.png").write_text("broken")
    write_llm_text(scenario, {0: "a kettle " * 80, 6: "boils & sings"})
    rng = np.random.default_rng(0)
    matrices = []
    for kind in ("text", "image"):
        rows = rng.normal(size=(8, 5)).astype(np.float32)
        has = np.arange(8) != 2
        rows[~has] = 0
        details = {"method": "by <hand>", "counts": {"a": 1}, "listed": list(range(20))}
        matrices.append(FeatureMatrix(kind, "hand", rows, has, scenario.items_hash(), details))
    return look_at(scenario, matrices, items=4)


class Outline(HTMLParser):
    """Every tag that is opened is closed, and where the text stands."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def test_the_page_is_whole_and_needs_nothing_else(look):
    page = render(look)
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe"} & set(outline.tags) and outline.addresses == []
    assert set(re.findall(r"url\((.{10})", page)) == {"data:image"}
    assert "prefers-color-scheme:dark" in page and "@media(max-width" in page and "viewport" in page
    assert outline.tags.count("article") == 8


def test_what_stands_on_the_page(look):
    outline = Outline(render(look))
    text = " ".join(outline.text)
    assert "4 fruit and 4 veg items, 2 feature spaces" in text
    assert EVIL in text, "shown as it is written"
    assert "item i5 (no title)" in text and "boils & sings" in text and "by <hand>" in text
    assert "no image" in text and "image cannot be read" in text
    assert "3 of 4 (75%)" in text and "and 12 more" in text
    assert "the item has no row here" in text
    near = look.examples[0].inside["text.hand"][0]
    assert f"{near.cosine:.3f}" in text


def test_every_picture_is_embedded_once_and_small(look):
    page = render(look)
    pictures = re.findall(r"\.p(\d+)-(\d+)\{background-image:url\(data:image/jpeg;base64,([^)]*)\)", page)
    assert len({(item, size) for item, size, _ in pictures}) == len(pictures)
    assert {item for item, *_ in pictures} == {"0", "3", "4", "5", "6", "7"}
    assert max(len(content) for *_, content in pictures) < 8000


def test_the_page_appears_whole_or_not_at_all(look, tmp_path):
    path = tmp_path / "page.html"
    write_page(look, path)
    assert path.read_text() == render(look)
    assert not [name for name in tmp_path.iterdir() if name.name.endswith(".tmp")]
    with pytest.raises(InputError, match=r"cannot write .*choose another --output"):
        write_page(look, tmp_path / "nowhere" / "page.html")


def test_warnings_come_first(look):
    look.spaces[0].warnings.append("is <odd>")
    outline = " ".join(Outline(render(look)).text)
    assert outline.index("Look at this first") < outline.index("is <odd>") < outline.index("Spaces")
