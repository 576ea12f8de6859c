"""The page of a scenario's features: complete, self-contained, and safe with whatever stands in titles."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_outline import Outline, assert_snapshot
from PIL import Image
from small_clip import write_llm_text, write_scenario

from llmemf.commands.feature_view import as_html, write_page
from llmemf.errors import InputError
from llmemf.features.feature_report import measure_features
from llmemf.features.matrix import FeatureMatrix

EVIL = "<script>alert('x')</script> & \"tea\""


@pytest.fixture
def report(tmp_path):
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
    return measure_features(scenario, matrices, items=4)


def test_the_page_is_whole_and_needs_nothing_else(report):
    page = as_html(report)
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe"} & set(outline.tags)
    assert outline.values("src") == outline.values("href") == []
    assert set(re.findall(r"url\((.{10})", page)) == {"data:image"}
    assert "prefers-color-scheme:dark" in page and "@media(max-width" in page and "viewport" in page
    assert outline.tags.count("article") == 8


def test_what_stands_on_the_page(report):
    text = Outline(as_html(report)).text
    assert "4 fruit and 4 veg items, 2 feature spaces" in text
    assert EVIL in text, "shown as it is written"
    assert "item i5 (no title)" in text and "boils & sings" in text and "by <hand>" in text
    assert "no image" in text and "image cannot be read" in text
    assert "3 of 4 (75 %)" in text and "and 12 more" in text
    assert "the item has no row here" in text
    _, cosine = report.examples[0].inside["text.hand"][0]
    assert f"{cosine:.3f}" in text


def test_every_picture_is_embedded_once_and_small(report):
    page = as_html(report)
    pictures = re.findall(r"\.p(\d+)-(\d+)\{background-image:url\(data:image/jpeg;base64,([^)]*)\)", page)
    assert len({(item, size) for item, size, _ in pictures}) == len(pictures)
    assert {item for item, *_ in pictures} == {"0", "3", "4", "5", "6", "7"}
    assert max(len(content) for *_, content in pictures) < 8000


def test_the_page_appears_whole_or_not_at_all(report, tmp_path):
    path = tmp_path / "page.html"
    write_page(report, path)
    assert path.read_text() == as_html(report)
    assert not [name for name in tmp_path.iterdir() if name.name.endswith(".tmp")]
    with pytest.raises(InputError, match=r"cannot be written: .*choose another --output"):
        write_page(report, tmp_path / "nowhere" / "page.html")


def test_warnings_come_first(report):
    report.spaces[0].warnings.append("is <odd>")
    text = Outline(as_html(report)).text
    assert text.index("Look at this first") < text.index("is <odd>") < text.index("Spaces")


def test_the_page_as_a_whole(report):
    # Numbers of their own, so that no rounding of a measurement is part of the snapshot.
    fixed = {"mean_cosine": 0.25, "effective_rank": 3.5, "twins": 0.125, "agreement": 0.5, "chance": 0.375}
    spaces = [replace(space, **fixed) for space in report.spaces]
    nearest = [(3, 0.75), (1, 0.5)]
    examples = [replace(item, inside={s.name: nearest for s in spaces}, across={s.name: [] for s in spaces})
                for item in report.examples[:2]]  # fmt: skip
    page = as_html(replace(report, spaces=spaces, examples=examples))
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", Outline(page).blocks)
    assert_snapshot(text, Path(__file__).with_name("features.txt"))
