"""Images from a folder, by external id."""

import command_calls
import pandas as pd
from image_server import logged, picture

call, refuse = command_calls.below("features", "images")


def test_a_local_folder_by_external_id(photo_shop, tmp_path):
    scenario = photo_shop([""] * 7)
    source = tmp_path / "photos"
    (source / "deep").mkdir(parents=True)
    (source / "i0.JPG").write_bytes(picture(seed=0))
    (source / "deep" / "i4.jpeg").write_bytes(picture("PNG", seed=4))
    (source / "i2.png").write_bytes(b"broken")
    (source / "unknown.jpg").write_bytes(picture())
    printed = call("tiny", "--folder", source)
    table = pd.read_parquet(scenario.folder / "images.parquet")
    assert table.status.tolist() == ["ok", "no file", "not an image", "no file", "ok", "no file", "no file"]
    assert table.path[4] == "images/000004.png", "the suffix is that of the content"
    assert table.address[4] == "deep/i4.jpeg"
    assert (scenario.folder / table.path[4]).read_bytes() == picture("PNG", seed=4)
    assert "no file" in printed
    call("tiny", "--folder", source)
    assert logged(scenario) == 3, "a second run notes nothing new"


def test_a_folder_per_domain_keeps_equal_ids_apart(photo_shop, tmp_path):
    scenario = photo_shop([""] * 7)
    for domain, name in (("film", "i0"), ("book", "i3"), ("book", "i0")):
        (tmp_path / "photos" / domain).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / domain / f"{name}.png").write_bytes(picture("PNG"))
    call("tiny", "--folder", tmp_path / "photos")
    table = pd.read_parquet(scenario.folder / "images.parquet")
    assert table.address[[0, 3]].tolist() == ["film/i0.png", "book/i3.png"]


def test_mistakes_with_a_folder(photo_shop, tmp_path, capsys):
    photo_shop([""] * 7)
    assert "no such folder" in refuse(capsys, "tiny", "--folder", tmp_path / "none")
    (tmp_path / "photos").mkdir()
    assert "named by an external id" in refuse(capsys, "tiny", "--folder", tmp_path / "photos")
    for suffix in ("png", "jpg"):
        (tmp_path / "photos" / f"i1.{suffix}").write_bytes(picture())
    assert "item 'i1' has several images" in refuse(capsys, "tiny", "--folder", tmp_path / "photos")
