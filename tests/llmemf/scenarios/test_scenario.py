"""A scenario on disk: the same when loaded, noticed when changed, whole or absent when saving fails."""

from __future__ import annotations

import dataclasses
import errno
import json

import numpy as np
import pandas as pd
import pytest

from llmemf.errors import InputError
from llmemf.scenarios.candidates import draw_candidates
from llmemf.scenarios.images import save_with_images
from llmemf.scenarios.scenario import Scenario, find_scenario
from llmemf.scenarios.sequences import Sequences

NUM_X, NUM_ITEMS = 3, 8


def make_scenario(**changes) -> Scenario:
    rows = [[0, 3, 1, 4], [2, 5, 6], [7, 1]]
    times = [[10, 20, 30, 40], [5, 5, 6], [1, 2]]
    test = Sequences.from_rows([0, 1], [[0, 3, 1, 4, 2], [2, 5, 6, 7]], [[10, 20, 30, 40, 50], [5, 5, 6, 9]])
    valid = Sequences.from_rows([2, 0], [[7, 1, 0], [3, 4]], [[1, 2, 3], [20, 40]])
    parts = {
        "name": "tiny",
        "domains": ("movie", "book"),
        "num_x": NUM_X,
        "items": pd.DataFrame(
            {
                "external_id": [f"A{i}" for i in range(NUM_ITEMS)],
                "title": ["One", "", "Drei \u00fc", *[""] * 5],
                "description": [""] * NUM_ITEMS,
                "image": [""] * NUM_ITEMS,
            }
        ),
        "user_ids": np.array(["u0", "u1", "u2"], dtype=object),
        "train": Sequences.from_rows([0, 1, 2], rows, times),
        "valid": valid,
        "test": test,
        "candidates": {
            name: draw_candidates(s.targets, NUM_X, NUM_ITEMS, 999, 0, name)
            for name, s in (("valid", valid), ("test", test))
        },
        "source": {"reader": "hand"},
    }
    return Scenario(**(parts | changes))


def test_a_loaded_scenario_equals_the_saved_one(tmp_path):
    scenario = make_scenario()
    folder = scenario.save(tmp_path)
    loaded = Scenario.load(folder)
    assert folder == tmp_path / "tiny" and loaded.folder == folder
    assert (
        loaded.fingerprint == scenario.fingerprint == json.loads((folder / "manifest.json").read_text())["fingerprint"]
    )
    for name in ("train", "valid", "test"):
        for part in ("users", "offsets", "items", "times"):
            assert np.array_equal(getattr(loaded.split(name), part), getattr(scenario.split(name), part))
    assert loaded.items.title.tolist() == scenario.items.title.tolist()
    assert loaded.user_ids.tolist() == scenario.user_ids.tolist()
    assert loaded.domains == ("movie", "book") and loaded.source == {"reader": "hand"}


def test_every_part_moves_the_fingerprint():
    scenario = make_scenario()
    changed = [
        make_scenario(domains=("film", "book")),
        make_scenario(num_x=2),
        make_scenario(user_ids=np.array(["u0", "u1", "other"], dtype=object)),
        make_scenario(items=scenario.items.assign(title=scenario.items.title.replace("One", "Two"))),
        make_scenario(items=scenario.items.assign(image=["a.png"] + [""] * 7)),
        make_scenario(train=dataclasses.replace(scenario.train, times=scenario.train.times + 1)),
        make_scenario(train=dataclasses.replace(scenario.train, items=scenario.train.items[::-1])),
        make_scenario(candidates=scenario.candidates | {"test": scenario.candidates["test"][:, ::-1]}),
    ]
    assert len({scenario.fingerprint, *(other.fingerprint for other in changed)}) == len(changed) + 1


@pytest.mark.parametrize(
    "file", [f"{split}.{part}.npy" for split in ("train", "valid", "test") for part in ("users", "items", "times")]
)
def test_a_changed_array_is_noticed(tmp_path, file):
    folder = make_scenario().save(tmp_path)
    array = np.load(folder / file)
    array[0] += 1
    np.save(folder / file, array)
    with pytest.raises(InputError, match=f"'{file.split('.')[0]}' was changed after it was written; import it again"):
        Scenario.load(folder)


def test_changed_candidates_items_users_and_domains_are_noticed(tmp_path):
    folder = make_scenario().save(tmp_path / "a")
    table = np.load(folder / "candidates.test.npy")
    np.save(folder / "candidates.test.npy", table[:, ::-1])
    with pytest.raises(InputError, match="'candidates_test' was changed"):
        Scenario.load(folder)
    folder = make_scenario().save(tmp_path / "b")
    items = pd.read_parquet(folder / "items.parquet")
    items.assign(title=items.title.replace("One", "Uno")).to_parquet(folder / "items.parquet")
    with pytest.raises(InputError, match="'items' was changed"):
        Scenario.load(folder)
    folder = make_scenario().save(tmp_path / "c")
    pd.DataFrame({"external_id": ["u0", "u2", "u1"]}).to_parquet(folder / "users.parquet")
    with pytest.raises(InputError, match="'users' was changed"):
        Scenario.load(folder)
    folder = make_scenario().save(tmp_path / "d")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"domains": ["book", "movie"]}))
    with pytest.raises(InputError, match="manifest.json was changed"):
        Scenario.load(folder)


def test_missing_truncated_and_foreign_files_are_input_errors(tmp_path):
    folder = make_scenario().save(tmp_path / "a")
    (folder / "train.items.npy").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        Scenario.load(folder)
    folder = make_scenario().save(tmp_path / "b")
    (folder / "train.items.npy").write_bytes(b"")
    with pytest.raises(InputError, match="train.items.npy is not a whole"):
        Scenario.load(folder)
    folder = make_scenario().save(tmp_path / "c")
    (folder / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99, this version reads 1"):
        Scenario.load(folder)
    (folder / "manifest.json").write_text('{\n"format": ')
    with pytest.raises(InputError, match="manifest.json, line 2"):
        Scenario.load(folder)


def test_an_existing_scenario_is_kept_unless_overwrite_is_given(tmp_path):
    first = make_scenario()
    folder = first.save(tmp_path)
    (folder / "features").mkdir()
    second = make_scenario(source={"reader": "other"})
    with pytest.raises(InputError, match="exists already.*--overwrite"):
        second.save(tmp_path)
    assert Scenario.load(folder).source == {"reader": "hand"}
    second.save(tmp_path, overwrite=True)
    assert Scenario.load(folder).source == {"reader": "other"}
    assert not (folder / "features").exists()


@pytest.mark.parametrize("fails_at", [1, 5, 14])
def test_a_full_disk_leaves_nothing_and_keeps_the_old_scenario(tmp_path, monkeypatch, fails_at):
    real_save, calls = np.save, []

    def full_disk(path, array):
        calls.append(path)
        if len(calls) % 14 == fails_at % 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_save(path, array)

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        make_scenario().save(tmp_path / "fresh")
    assert list((tmp_path / "fresh").iterdir()) == []
    monkeypatch.setattr(np, "save", real_save)
    kept = make_scenario().save(tmp_path / "old")
    calls.clear()
    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        make_scenario(source={}).save(tmp_path / "old", overwrite=True)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["tiny"]
    assert Scenario.load(kept).source == {"reader": "hand"}


def test_a_data_root_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="tiny cannot be written"):
        make_scenario().save(tmp_path / "file")


def test_find_scenario_offers_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match="no scenario is prepared there yet"):
        find_scenario("tiny", tmp_path)
    make_scenario(name="movie_book_windows").save(tmp_path)
    make_scenario(name="toy_game").save(tmp_path)
    assert find_scenario("toy_game", tmp_path).name == "toy_game"
    with pytest.raises(InputError, match="unknown scenario 'movie_bok_window'.*did you mean 'movie_book_windows'"):
        find_scenario("movie_bok_window", tmp_path)


def test_validation_names_the_offending_value():
    good = make_scenario()
    good.validate()
    for changes, message in (
        ({"num_x": 0}, "domain 'movie' is empty"),
        ({"num_x": NUM_ITEMS}, "domain 'book' is empty"),
        ({"domains": ("book", "book")}, "two different domain names"),
        ({"train": Sequences.from_rows([0], [[0, 8]])}, "item id 8 is out of range 0..7"),
        ({"train": Sequences.from_rows([0], [[0]])}, "at least 2 are needed"),
        ({"train": Sequences.from_rows([3], [[0, 1]])}, "user id 3 is out of range 0..2"),
        ({"train": Sequences.from_rows([], [])}, "there is no sequence"),
        ({"candidates": good.candidates | {"test": np.array([[0, 1], [2, 3]])}}, "outside the target's domain"),
        ({"candidates": good.candidates | {"test": np.array([[0, 2], [3, 4]])}}, "among its own candidates"),
        ({"candidates": good.candidates | {"test": np.array([[0, 1], [-1, -1]])}}, "case 1 has no candidate"),
        ({"candidates": {"valid": good.candidates["valid"]}}, "one row per case"),
    ):
        with pytest.raises(InputError, match=message):
            make_scenario(**changes).validate()


def test_images_are_copied_into_the_scenario(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    (pictures / "deep" / "one.JPG").write_bytes(b"picture of one")
    (pictures / "two.png").write_bytes(b"picture of two")
    items = make_scenario().items.assign(image=["deep/one.JPG", "", "two.png", *[""] * 5])
    saved = save_with_images(make_scenario(items=items), tmp_path / "data", pictures)
    folder = saved.location
    loaded = Scenario.load(folder)
    assert saved.fingerprint == loaded.fingerprint, "what is shown is what was written"
    assert loaded.items.image.tolist() == ["images/0.jpg", "", "images/2.png", *[""] * 5]
    assert (folder / "images/0.jpg").read_bytes() == b"picture of one"
    assert (folder / "images/2.png").read_bytes() == b"picture of two"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    without = make_scenario(name="without_images").save(tmp_path / "data")
    assert folder.stat().st_mode == without.stat().st_mode, "others may read it as well"


def test_a_missing_image_is_named_before_anything_is_written(tmp_path):
    items = make_scenario().items.assign(image=["gone.jpg", *[""] * 7])
    with pytest.raises(InputError, match="1 of 1 images.*'gone.jpg' of item 'A0'"):
        save_with_images(make_scenario(items=items), tmp_path / "data", tmp_path)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("image", ["/etc/passwd", "../../../../etc/passwd", "a/../../b.png"])
def test_an_image_outside_the_folder_is_refused(tmp_path, image):
    (tmp_path / "b.png").write_bytes(b"picture")
    (tmp_path / "shop" / "a").mkdir(parents=True)
    items = make_scenario().items.assign(image=[image, *[""] * 7])
    with pytest.raises(InputError, match=f"'A0': .*'{image}'"):
        save_with_images(make_scenario(items=items), tmp_path / "data", tmp_path / "shop")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[]", "list"),
        (b"null", "null"),
        (b'"text"', "str"),
        (b'{"name": "\xe4"}', "UTF-8"),
        (b'{"format": 1, "name": 5}', "'name'"),
        (b'{"format": 1, "name": "tiny", "domains": ["film"]}', "'domains.1'"),
        (None, "directory"),
    ],
)
def test_a_manifest_of_the_wrong_shape_is_an_input_error(tmp_path, content, expected):
    folder = make_scenario().save(tmp_path)
    path = folder / "manifest.json"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=f"manifest.json.*{expected}"):
        Scenario.load(folder)
