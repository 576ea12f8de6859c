"""The offline encoders against independent computations, and what they do with missing, broken and huge input."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llmemf.errors import InputError
from llmemf.features import offline
from llmemf.features.finding import find_features
from llmemf.features.offline import encode_images, encode_text, write_missing, write_offline
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

ENCODE = {"text": encode_text, "image": encode_images}
REAL_DATA = Path(os.environ.get("LLMEMF_REAL_DATA", "no-real-data"))
COLOURS = ["red", "green", "blue", "white", "black"]


def make_scenario(root, titles, descriptions=None, images=None):
    """A scenario of these items; the first one alone is of domain X."""
    count = len(titles)
    items = pd.DataFrame(
        {
            "external_id": [f"i{number}" for number in range(count)],
            "title": titles,
            "description": descriptions or [""] * count,
            "image": images or [""] * count,
        }
    )
    split = Sequences.from_rows([0], [[0, 1]])
    candidates = {name: np.array([[2]], np.int32) for name in ("valid", "test")}
    scenario = Scenario("hand", ("x", "y"), 1, items, np.array(["u"]), split, split, split, candidates)
    return Scenario.load(scenario.save(root))


@pytest.fixture
def pictures(tmp_path):
    """A scenario of five flat colours, one grey gradient, and nothing at item 6."""
    names = [f"{colour}.png" for colour in COLOURS] + ["gradient.png", ""]
    scenario = make_scenario(tmp_path, ["red fox"] * 7, images=names)
    for colour in COLOURS:
        Image.new("RGB", (50, 70), colour).save(scenario.folder / f"{colour}.png")
    Image.linear_gradient("L").save(scenario.folder / "gradient.png")
    return scenario


def test_text_equals_a_hand_computation(tmp_path):
    """Full rank: cosines of the rows are those of TF-IDF vectors, computed here word by word."""
    titles = ["fox fox hunts", "fox sleeps", "whale sleeps deeply", "whale hunts"]
    matrix = encode_text(make_scenario(tmp_path, titles), width=6)
    words = sorted({word for title in titles for word in title.split()})
    counts = np.array([[title.split().count(word) for word in words] for title in titles], dtype=float)
    frequency = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0)
    weighted = frequency * (1 + np.log((1 + len(titles)) / (1 + (counts > 0).sum(axis=0))))
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    assert np.allclose(matrix.rows @ matrix.rows.T, weighted @ weighted.T, atol=1e-5)
    assert matrix.rows.shape == (4, 6) and matrix.rows.dtype == np.float32
    assert matrix.details["effective_rank"] == 4 and not matrix.rows[:, 4:].any()
    assert matrix.details["vocabulary"] == len(words)


def test_title_and_description_both_count(tmp_path):
    titles, descriptions = ["Alpha", "Beta", "Gamma"], ["whale song", "whale song", "desert road"]
    cosine = (rows := encode_text(make_scenario(tmp_path, titles, descriptions), 8).rows) @ rows.T
    assert cosine[0, 1] > 0.3 and abs(cosine[0, 2]) < 1e-5 and cosine[0, 1] < 0.99


def test_items_without_text_have_a_zero_row(tmp_path):
    matrix = encode_text(make_scenario(tmp_path, ["fox", "", "  ", "fox tail", "the"]), 4)
    assert matrix.has.tolist() == [True, False, False, True, False]
    assert np.allclose(np.linalg.norm(matrix.rows, axis=1), matrix.has)
    assert matrix.details["items_with_text"] == 3
    assert matrix.details["items_with_text_but_no_word_of_the_vocabulary"] == 1


def test_single_use_words_are_dropped_from_larger_catalogues_only(tmp_path):
    many = ["fox tail"] * 60 + ["whale song"] * 59 + ["unrepeated"]
    matrix = encode_text(make_scenario(tmp_path, many), 4)
    assert matrix.details["vocabulary"] == 4 and not matrix.has[119] and matrix.has[:119].all()
    assert encode_text(make_scenario(tmp_path / "few", many[-5:]), 4).has.all()


def test_no_text_at_all_gives_no_matrix_and_unusable_text_an_error(tmp_path):
    assert encode_text(make_scenario(tmp_path / "a", ["", "", ""])) is None
    with pytest.raises(InputError, match="hold no usable word"):
        encode_text(make_scenario(tmp_path / "b", ["the", "of the", "!"]))


def test_images_equal_a_singular_value_decomposition(pictures):
    matrix = encode_images(pictures, width=8)
    pixels = np.array(
        [
            np.asarray(Image.open(pictures.folder / name).convert("RGB").resize((32, 32), Image.Resampling.BOX)).ravel()
            for name in pictures.items.image[:6]
        ]
    )
    centred = pixels / 255 - (pixels / 255).mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left * values
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(matrix.rows[:6] @ matrix.rows[:6].T, expected @ expected.T, atol=1e-4)
    assert matrix.has.tolist() == [True] * 6 + [False] and not matrix.rows[6].any()
    assert matrix.details["effective_rank"] <= 5 and not matrix.rows[:, 5:].any()
    assert matrix.details["items_with_image"] == 6 and matrix.details["explained_variance"] > 0.999


def test_every_usual_image_form_is_read(tmp_path):
    names = ["a.jpg", "b.png", "c.png", "d.jpg", "e.gif", "f.webp"]
    scenario = make_scenario(tmp_path, ["t"] * 6, images=names)
    gradient = Image.linear_gradient("L")
    for name, mode in zip(names, ("RGB", "RGBA", "LA", "CMYK", "P", "RGB")):
        gradient.convert("RGB").convert("L" if mode == "LA" else mode).convert(mode).save(scenario.folder / name)
    Image.new("RGB", (9, 900), "red").save(scenario.folder / "a.jpg")
    matrix = encode_images(scenario, 4)
    assert matrix.has.all() and matrix.details["items_with_unreadable_image"] == 0
    cosine = matrix.rows @ matrix.rows.T
    assert cosine[1:, 1:].min() > 0.9 > cosine[0, 1:].max(), "one picture in five forms, and another picture"


def test_grey_images_of_16_bits_differ_as_their_twins_of_8_bits_do(tmp_path):
    """Pillow's own conversion cuts every value off at 255, which makes them white."""
    up = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    pixels = [up, up[::-1].copy(), up.T.copy(), up // 2]
    names = [f"{bits}-{number}.png" for bits in (8, 16) for number in range(4)]
    scenario = make_scenario(tmp_path, ["t"] * 8, images=names)
    for number, grey in enumerate(pixels):
        Image.fromarray(grey).save(scenario.folder / f"8-{number}.png")
        Image.fromarray(grey.astype(np.uint16) * 257).save(scenario.folder / f"16-{number}.png")
    assert Image.open(scenario.folder / "16-0.png").mode.startswith("I")
    rows = encode_images(scenario, 3).rows
    np.testing.assert_allclose(rows[4:], rows[:4], atol=1e-5)
    assert (rows[4:] @ rows[4:].T).min() < 0


def test_broken_images_are_counted_and_masked(pictures):
    whole = (pictures.folder / "red.png").read_bytes()
    (pictures.folder / "red.png").write_bytes(whole[: len(whole) // 2])
    (pictures.folder / "green.png").write_text("not an image")
    (pictures.folder / "blue.png").unlink()
    matrix = encode_images(pictures, 8)
    assert matrix.has.tolist() == [False, False, False, True, True, True, False]
    assert matrix.details["items_with_unreadable_image"] == 3
    listed = matrix.details["unreadable_images"]
    assert [line.split(":")[0] for line in listed] == ["red.png", "green.png", "blue.png"]
    assert listed[2] == "blue.png: no such file"


def test_no_image_one_kind_of_image_and_no_readable_image(pictures):
    assert encode_images(dataclasses.replace(pictures, items=pictures.items.assign(image=""))) is None
    with pytest.raises(InputError, match="are all the same"):
        encode_images(dataclasses.replace(pictures, items=pictures.items.assign(image="red.png")))
    with pytest.raises(InputError, match="none of its 7 images can be read; first: gone.png: no such file"):
        encode_images(dataclasses.replace(pictures, items=pictures.items.assign(image="gone.png")))
    with pytest.raises(InputError, match="is not on the disk yet"):
        encode_images(dataclasses.replace(pictures, folder=None))


def test_addresses_count_once_they_are_fetched(pictures):
    """An address alone is no image; `images.parquet` says which files were fetched for which item."""
    paths = pictures.items.image
    addressed = dataclasses.replace(
        pictures, items=pictures.items.assign(image=[f"https://example.com/{path}" if path else "" for path in paths])
    )
    assert encode_images(addressed, 4) is None
    fetched = pd.DataFrame({"item": range(6), "path": paths[:6], "status": "ok", "address": ""})
    fetched.to_parquet(pictures.folder / "images.parquet")
    assert np.array_equal(encode_images(addressed, 4).rows, encode_images(pictures, 4).rows)


def test_chunks_and_the_fitted_sample_do_not_change_the_meaning(pictures, monkeypatch):
    whole = encode_images(pictures, 8)
    monkeypatch.setattr(offline, "CHUNK", 2)
    assert np.allclose(encode_images(pictures, 8).rows, whole.rows, atol=1e-5)
    monkeypatch.setattr(offline, "FIT_IMAGES", 4)
    sampled = encode_images(pictures, 8)
    assert sampled.details["settings"]["fit_images"] == 4 and sampled.details["effective_rank"] <= 3
    assert sampled.has[:6].all()


def test_repeated_encoding_gives_the_same_bytes(pictures):
    for kind in ("text", "image"):
        assert ENCODE[kind](pictures, 8).hash() == ENCODE[kind](pictures, 8).hash()


def test_wrong_arguments(pictures):
    for kind in ("text", "image"):
        for width in (0, 100_000_000):
            with pytest.raises(InputError, match=f"--width {width}: must be from 1 to 8192"):
                ENCODE[kind](pictures, width)


def test_writing_tells_of_existing_features_before_the_work(pictures, monkeypatch):
    written = write_offline(pictures, "image", 8)
    assert find_features(pictures, "image").hash() == written.hash()
    monkeypatch.setattr(offline, "encode_images", lambda *_: pytest.fail("encoded although the features exist"))
    with pytest.raises(InputError, match="image.offline of scenario 'hand' exist already"):
        write_offline(pictures, "image", 8)


def test_only_missing_features_are_written(pictures):
    write_offline(pictures, "image", 8)
    write_missing(pictures)
    assert find_features(pictures, "image").width == 8 and find_features(pictures, "text").width == 512


def test_details_are_plain_json(pictures):
    for kind in ("text", "image"):
        text = json.dumps(ENCODE[kind](pictures, 8).details, allow_nan=False)
        assert '"sklearn"' in text


@pytest.mark.slow
@pytest.mark.data
def test_real_titles(tmp_path):
    table = REAL_DATA / "movie_book" / "items.tsv"
    if not table.exists():
        pytest.skip(f"{table} is absent")
    real = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False, quoting=3)
    matrix = encode_text(make_scenario(tmp_path, real.title.tolist()), 32)
    assert len(matrix.rows) == 100_782
    assert matrix.details["items_with_text"] == (real.title.str.strip() != "").sum()
    star_wars = np.flatnonzero(real.title.str.contains("Star Wars", regex=False))
    cosine = (matrix.rows[star_wars] @ matrix.rows[star_wars].T).mean()
    rest = matrix.rows[matrix.has].mean(axis=0) @ matrix.rows[star_wars].mean(axis=0)
    assert len(star_wars) > 20 and cosine > rest + 0.3
