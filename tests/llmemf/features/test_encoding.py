"""CLIP rows of a scenario, compared with calls of open_clip itself on the CPU in fp32 (images bit by bit).

Reference checks: the real photos and their descriptions through `open_clip.create_model_and_transforms`, batch by batch
(the same batches, since nothing promises that a row keeps its last bit in a batch of another size). Behaviour: what is
missing or broken, resuming, and what is never mixed.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_clip import PHOTOS, photos, write_llm_text, write_scenario, write_small_clip

from llmemf.errors import InputError
from llmemf.features.clip import ClipSettings, load_clip
from llmemf.features.encode_job import encoder_name, make_job
from llmemf.features.encoding import encode_shards
from llmemf.features.finding import find_features
from llmemf.features.image_decoding import ImageGroups
from llmemf.features.item_sources import find_sources, image_source, text_source
from llmemf.features.shards import ShardStore

needs_photos = pytest.mark.skipif(not PHOTOS.exists(), reason=f"{PHOTOS} does not exist: set LLMEMF_REAL_DATA")
BATCH = 8


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_clip(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def clip(small):
    return load_clip(ClipSettings(small, ""))


@pytest.fixture(scope="module")
def reference(small):
    """Model, transform and tokenizer as open_clip gives them."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(small)
    return model.eval(), preprocess, open_clip.get_tokenizer(small)


@pytest.fixture
def drawn(tmp_path):
    """Twelve items of one word, each with a drawn picture."""
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (50 + number, 70, 3), np.uint8)).save(tmp_path / f"{number}.png")
    titles = ["fox", "owl", "hen", "cat", "dog", "cow", "pig", "rat", "bat", "elk", "emu", "yak"]
    return write_scenario(tmp_path / "data", titles, [tmp_path / f"{number}.png" for number in range(12)])


def job_of(scenario, clip, source, **options):
    return make_job(scenario, source, clip, **{"batch_size": BATCH, "workers": 0, "shard_size": 32} | options)


def run(job, clip, numbers, *progress):
    """Encode these shards; returns the numbers that were written."""
    return list(encode_shards(job, clip, numbers, *progress))


def encode(scenario, clip, source, **options):
    job = job_of(scenario, clip, source, **options)
    run(job, clip, job.store.pending(source))
    return job.finish()


def images_by_open_clip(reference, paths, shard_size, batch=BATCH):
    """Rows of the readable images: shard by shard, in batches, each image transformed on its own."""
    model, preprocess, _ = reference
    rows = []
    for low in range(0, len(paths), shard_size):
        images = [preprocess(Image.open(path)) for path in paths[low : low + shard_size] if path]
        with torch.inference_mode():
            rows += [
                model.encode_image(torch.stack(images[at : at + batch]), normalize=True)
                for at in range(0, len(images), batch)
            ]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.data
@needs_photos
def test_photos_have_the_rows_of_open_clip(clip, reference, tmp_path, workers):
    names, files, _ = photos()
    scenario = write_scenario(tmp_path / "data", names, files)
    matrix = encode(scenario, clip, image_source(scenario), workers=workers)
    assert len(files) == 81 and matrix.has.all()
    assert np.array_equal(matrix.rows, images_by_open_clip(reference, files, 32))
    assert find_features(scenario, "image").hash() == matrix.hash()


@pytest.mark.data
@needs_photos
def test_missing_and_broken_photos_are_masked_counted_and_listed(clip, reference, tmp_path):
    names, files, _ = photos()
    files[5] = None
    scenario = write_scenario(tmp_path / "data", names, files)
    folder = scenario.folder / "images"
    (folder / "7.jpg").write_bytes(b"")
    (folder / "8.jpg").write_text("<html>no longer here</html>")
    (folder / "40.jpg").write_bytes((folder / "40.jpg").read_bytes()[:1000])
    (folder / "80.jpg").unlink()
    broken = [7, 8, 40, 80]
    matrix = encode(scenario, clip, image_source(scenario))
    gone = [5, *broken]
    assert np.flatnonzero(~matrix.has).tolist() == gone and not matrix.rows[gone].any()
    left = [None if number in gone else path for number, path in enumerate(files)]
    assert np.array_equal(matrix.rows[matrix.has], images_by_open_clip(reference, left, 32))
    assert matrix.details["items_with_image"] == 80 and matrix.details["items_with_unreadable_image"] == 4
    told = matrix.details["unreadable_images"]
    assert told[0] == "item 7 (i7), images/7.jpg: the file is empty"
    assert [line.split()[1] for line in told] == ["7", "8", "40", "80"] and told[3].endswith("no such file")


@pytest.mark.data
@needs_photos
def test_texts_of_one_piece_have_the_rows_of_open_clip(clip, reference, tmp_path):
    names, files, texts = photos()
    scenario = write_scenario(tmp_path / "data", names, [None] * len(files))
    short = {item: text for item, text in enumerate(texts) if len(clip.tokenizer(text)) == 1}
    write_llm_text(scenario, short)
    matrix = encode(scenario, clip, text_source(scenario, "llm"))
    model, _, tokenizer = reference
    expected = np.zeros_like(matrix.rows)
    for low in range(0, len(texts), 32):
        items = [item for item in range(low, min(low + 32, len(texts))) if item in short]
        items.sort(key=lambda item: len(clip.tokenizer(short[item])[0]))
        for at in range(0, len(items), BATCH):
            batch = items[at : at + BATCH]
            with torch.inference_mode():
                expected[batch] = model.encode_text(tokenizer([short[item] for item in batch]), normalize=True).numpy()
    assert len(short) > 60 and np.flatnonzero(matrix.has).tolist() == list(short)
    # Ours are padded to their batch, open_clip's to the whole context: some processors then round differently.
    np.testing.assert_allclose(matrix.rows, expected, rtol=0, atol=1e-6)
    assert matrix.details["llm_text"] == {"model": "some-llm", "prompt_version": "shop-1", "made": "2026-11-21"}


def test_a_long_text_is_the_mean_of_its_pieces(clip, reference, drawn):
    long = " ".join(f"Number {number} of the remarkable teapots." for number in range(60))
    write_llm_text(drawn, {2: long})
    matrix = encode(drawn, clip, text_source(drawn, "llm"))
    model = reference[0]
    pieces = clip.tokenizer(long)
    with torch.inference_mode():
        rows = np.stack(
            [model.encode_text(torch.tensor([piece + [0] * (77 - len(piece))]))[0].numpy() for piece in pieces]
        ).astype(np.float64)
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    assert len(pieces) > 5 and matrix.details["items_in_several_pieces"] == 1
    assert matrix.details["pieces"] == len(pieces)
    assert np.allclose(matrix.rows[2], mean / np.linalg.norm(mean), atol=1e-6)
    assert matrix.has.sum() == 1


def test_the_three_texts_lie_side_by_side_and_title_with_llm_text_comes_first(clip, drawn):
    write_llm_text(drawn, {number: f"an animal with {number} legs" for number in range(5)})
    made = {source: encode(drawn, clip, text_source(drawn, source)) for source in ("title", "llm")}
    assert find_features(drawn, "text").encoder == "clip-small-llm", "LLM text before title"
    made["title+llm"] = encode(drawn, clip, text_source(drawn, "title+llm"))
    assert [matrix.encoder for matrix in made.values()] == [
        "clip-small-title",
        "clip-small-llm",
        "clip-small-title+llm",
    ]
    assert [int(matrix.has.sum()) for matrix in made.values()] == [12, 5, 12]
    assert made["title+llm"].details["items_with_title_only"] == 7
    assert np.allclose(made["title+llm"].rows[7], made["title"].rows[7], atol=1e-6)
    assert not np.allclose(made["title+llm"].rows[2], made["title"].rows[2], atol=1e-2)
    assert find_features(drawn, "text").hash() == made["title+llm"].hash()
    assert find_features(drawn, "text", "clip-small-title").hash() == made["title"].hash()


def test_auto_takes_clip_before_offline_and_does_not_choose_between_two_models(clip, drawn, tmp_path):
    from llmemf.features.offline import write_offline

    write_offline(drawn, "text", 4)
    assert find_features(drawn, "text").encoder == "offline"
    encode(drawn, clip, text_source(drawn, "title"))
    assert find_features(drawn, "text").encoder == "clip-small-title"
    other = load_clip(ClipSettings(write_small_clip(tmp_path / "other", seed=1), ""))
    encode(drawn, other, text_source(drawn, "title"))
    with pytest.raises(InputError, match="choose with --set text_encoder="):
        find_features(drawn, "text")


def test_items_without_any_token_are_missing(clip, drawn):
    titles = drawn.items.title.tolist()
    titles[0], titles[1] = "", " &nbsp; "
    scenario = write_scenario(drawn.folder.parent, titles, [None] * 12, name="blank")
    matrix = encode(scenario, clip, text_source(scenario, "title"))
    assert np.flatnonzero(~matrix.has).tolist() == [0, 1] and not matrix.rows[:2].any()
    assert matrix.details["items_with_text"] == 11 and matrix.details["items_with_text_but_no_token"] == 1


def test_every_kind_of_picture_is_transformed_as_open_clip_does(reference, tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (90, 70, 4), np.uint8)
    made = {
        "gray.png": Image.fromarray(pixels[..., 0]),
        "alpha.png": Image.fromarray(pixels),
        "palette.gif": Image.fromarray(pixels[..., :3]).quantize(16),
        "palette.png": Image.fromarray(pixels[..., :3]).quantize(8),
        "cmyk.jpg": Image.fromarray(pixels[..., :3]).convert("CMYK"),
        "wide.jpg": Image.fromarray(np.repeat(pixels[..., :3], 9, axis=1)),
        "one.png": Image.fromarray(pixels[:1, :1, :3]),
        "bits.png": Image.fromarray(pixels[..., 0] > 90),
        "web.webp": Image.fromarray(pixels[..., :3]),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
    preprocess = reference[1]
    decoded = ImageGroups([[str(tmp_path / name) for name in made]], preprocess)[0]
    expected = torch.stack([preprocess(Image.open(tmp_path / name)) for name in made])
    assert torch.equal(decoded.pixels, expected) and not decoded.problems


def test_grey_images_of_16_bits_have_the_pixels_of_their_twins_of_8_bits(reference, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (2, 90, 70), np.uint8)
    for number, grey in enumerate(pixels):
        Image.fromarray(grey).save(tmp_path / f"8-{number}.png")
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"16-{number}.png")
    paths = [str(tmp_path / f"{bits}-{number}.png") for bits in (8, 16) for number in (0, 1)]
    decoded = ImageGroups([paths], reference[1])[0].pixels
    assert torch.equal(decoded[2:], decoded[:2]) and not torch.equal(decoded[2], decoded[3])


def test_a_bomb_counts_as_broken(clip, drawn, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70 * 61 // 2 - 5)
    matrix = encode(drawn, clip, image_source(drawn))
    assert matrix.has.tolist() == [True] * 11 + [False]
    assert "decompression bomb" in matrix.details["unreadable_images"][0]


class StopError(Exception):
    pass


def stop_after(items):
    """A progress that ends the run, as a signal would, when so many items are through."""
    seen = 0

    def progress(count):
        nonlocal seen
        seen += count
        if seen > items:
            raise StopError

    return progress


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_stopped_run_goes_on_where_it_was(clip, drawn, kind):
    source = text_source(drawn, "title") if kind == "text" else image_source(drawn)
    whole = encode(drawn, clip, source, shard_size=3, batch_size=2)
    shutil.rmtree(drawn.folder / "features")
    job = job_of(drawn, clip, source, shard_size=3, batch_size=2)
    with pytest.raises(StopError):
        run(job, clip, job.store.pending(source), stop_after(7))
    assert job.store.pending(source) == [2, 3]
    with pytest.raises(InputError, match="shard 2 of .* is not in"):
        job.finish()
    encoded = []
    run(job, clip, job.store.pending(source), encoded.append)
    assert sum(encoded) == 6
    assert np.array_equal(job.finish().rows, whole.rows)
    assert not job.store.folder.exists()


def test_only_shards_of_the_same_content_are_kept(clip, drawn):
    source = image_source(drawn)
    job = job_of(drawn, clip, source, shard_size=3)
    run(job, clip, job.store.pending(source))
    assert job.store.pending(source) == []
    Image.new("RGB", (20, 20), "red").save(drawn.folder / "images" / "4.png")
    assert job.store.pending(source) == [1]
    (drawn.folder / "images" / "11.png").unlink()
    assert job.store.pending(source) == [1, 3]
    job.store.path(0).write_bytes(job.store.path(0).read_bytes()[:-20])
    assert job.store.pending(source) == [0, 1, 3], "a damaged shard is made again"


def test_nothing_made_by_another_model_is_mixed_in(clip, drawn, tmp_path):
    source = image_source(drawn)
    job = job_of(drawn, clip, source, shard_size=3)
    run(job, clip, [0, 1])
    folder = write_small_clip(tmp_path / "small", seed=9)
    other = load_clip(ClipSettings(folder, ""))
    second = job_of(drawn, other, source, shard_size=3)
    assert second.store.folder == job.store.folder, "the same name, so the same folder"
    assert second.store.pending(source) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="is another one: weights_sha256 differ"):
        run(job, other, [2])
    rough = load_clip(ClipSettings(clip.settings.model, "", "cpu", "bf16"))
    assert job_of(drawn, rough, source, shard_size=3).store.pending(source) == [0, 1, 2, 3]
    assert job_of(drawn, clip, source, shard_size=4).store.pending(source) == [0, 1, 2]


def test_a_finished_matrix_knows_what_it_was_made_from(clip, drawn, tmp_path):
    source = text_source(drawn, "title")
    assert job_of(drawn, clip, source).difference() is None
    encode(drawn, clip, source)
    assert job_of(drawn, clip, source).difference() == []
    assert job_of(drawn, clip, source, batch_size=3, shard_size=5).difference() == []
    other = load_clip(ClipSettings(write_small_clip(tmp_path / "small", seed=9), ""))
    assert job_of(drawn, other, source).difference() == ["weights_sha256"]
    write_llm_text(drawn, {0: "red"})
    encode(drawn, clip, text_source(drawn, "llm"))
    write_llm_text(drawn, {0: "blue"})
    assert job_of(drawn, clip, text_source(drawn, "llm")).difference() == ["source_sha256"]


def test_rows_that_are_not_finite_are_refused(clip, drawn, monkeypatch):
    source = text_source(drawn, "title")
    job = job_of(drawn, clip, source)
    monkeypatch.setattr(type(clip), "encode_text", lambda self, ids: torch.full((len(ids), 24), torch.nan))
    with pytest.raises(InputError, match="item 0 of text.clip-small-title: its row is not finite in fp32"):
        run(job, clip, [0])
    assert job.store.pending(source) == [0]


def test_two_commands_do_not_encode_the_same(tmp_path):
    script = (
        "import sys; from pathlib import Path; from llmemf.errors import InputError\n"
        "from llmemf.features.shards import ShardStore\n"
        "try:\n    with ShardStore(Path(sys.argv[1]), {}, 1, 1).locked(): print('free')\n"
        "except InputError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "shards")]
    with ShardStore(tmp_path / "shards", {}, 1, 1).locked():
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert f"another command encodes the same features now (process {os.getpid()} on " in said
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "free\n"


def test_images_as_the_download_left_them(clip, drawn):
    import pandas as pd

    paths = [f"images/{number}.png" if number % 2 else None for number in range(12)]
    status = ["ok" if path else "404" for path in paths]
    table = pd.DataFrame({"item": range(12), "path": paths, "status": status, "address": "http://x/y"})
    table.to_parquet(drawn.folder / "images.parquet", index=False)
    matrix = encode(drawn, clip, image_source(drawn))
    assert np.flatnonzero(matrix.has).tolist() == [1, 3, 5, 7, 9, 11]
    assert matrix.details["image_status"] == {"404": 6, "ok": 6}
    table.assign(item=range(1, 13)).to_parquet(drawn.folder / "images.parquet", index=False)
    with pytest.raises(InputError, match="item 12 is out of range.*items 0 to 11"):
        image_source(drawn)
    (drawn.folder / "images.parquet").write_text("no table")
    with pytest.raises(InputError, match="images.parquet cannot be read"):
        image_source(drawn)


def test_what_cannot_be_encoded_is_told_before_any_work(drawn):
    with pytest.raises(InputError, match="no LLM text.*features enrich shop.*--text title"):
        find_sources(drawn, ("text",), ["title+llm"])
    with pytest.raises(InputError, match="must be one of title.llm, llm, title"):
        find_sources(drawn, ("text",), ["titles"])
    with pytest.raises(InputError, match="each source once"):
        find_sources(drawn, ("text",), ["title", "title"])
    remote = write_scenario(drawn.folder.parent, ["a"] * 4, [None] * 4, name="remote")
    remote.items["image"] = "https://images.example/1.jpg"
    with pytest.raises(InputError, match="are addresses .*features images remote"):
        find_sources(remote, ("image",), [])
    bare = write_scenario(drawn.folder.parent, ["a"] * 4, [None] * 4, name="bare")
    sources, absent = find_sources(bare, ("text", "image"), ["title"])
    assert [source.kind for source in sources] == ["text"] and absent == ["an image"]
    with pytest.raises(InputError, match="no item of scenario 'bare' has an image"):
        find_sources(bare, ("image",), [])


def test_names_of_encoders(drawn):
    title, image = text_source(drawn, "title"), image_source(drawn)
    assert encoder_name("ViT-B-32", title) == "clip-ViT-B-32-title"
    assert encoder_name("ViT-B-32", image) == "clip-ViT-B-32"
    assert encoder_name("hf-hub:some/CLIP.v2", image) == "clip-some-CLIP-v2"
    assert encoder_name("ViT-B-32", title, "laion") == "laion-title"
    for wrong in ("a b", "../x", "offline", "auto"):
        with pytest.raises(InputError, match="encoder name"):
            encoder_name("ViT-B-32", title, wrong)
