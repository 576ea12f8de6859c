"""`llmemf features` as a user meets it: what it prints, its exit codes, and what lies on disk afterwards."""

import dataclasses

import command_calls
import numpy as np
import pytest
from PIL import Image

from llmemf.features.finding import find_features
from llmemf.scenarios.scenario import find_scenario


@pytest.fixture
def root(tiny_scenario, tmp_path, monkeypatch):
    """A data root with the scenario `tiny` (texts, no images), passed on by the environment."""
    tiny_scenario(tmp_path / "data")
    monkeypatch.setenv("LLMEMF_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


call, refuse = command_calls.below("features")


def with_images(root):
    """Give every item of `tiny` a picture."""
    scenario = find_scenario("tiny", root)
    names = [f"{number}.png" for number in range(scenario.num_items)]
    changed = dataclasses.replace(scenario, items=scenario.items.assign(image=names))
    folder = changed.save(root, overwrite=True)
    for number, name in enumerate(names):
        Image.new("RGB", (40, 40), (30 * number, 255 - 30 * number, 40)).save(folder / name)


def test_offline_both(root):
    with_images(root)
    printed = call("offline", "tiny", "--width", 4)
    assert "text: 5 of 7 items" in printed and "image: 7 of 7 items" in printed
    assert "2 of 3 (67 %)" in printed and "3 of 4 (75 %)" in printed
    scenario = find_scenario("tiny", root)
    assert find_features(scenario, "text", "offline").has.tolist() == [True, True, False, True, True, True, False]
    assert find_features(scenario, "image").width == 4


def test_offline_without_images_says_so_and_how_to_go_on(root):
    printed = call("offline", "tiny")
    assert "no item of scenario 'tiny' has a stored image" in printed and "--set modalities=id,text" in printed
    assert f"sweep --scenario tiny --data-root {root}" in printed.splitlines()[-1]
    assert "of 512 columns carry something" in printed
    assert [path.name for path in (root / "tiny" / "features").iterdir()] == ["text.offline"]


def test_offline_with_nothing_to_do_fails(root, capsys):
    line = refuse(capsys, "offline", "tiny", "--kind", "image")
    assert "has a stored image: nothing was written" in line and "--set modalities=id,text" in line
    assert not (root / "tiny" / "features").exists()


def test_offline_twice_needs_overwrite(root, capsys):
    call("offline", "tiny", "--kind", "text", "--width", 4)
    assert "text.offline of scenario 'tiny' exist already; give --overwrite" in refuse(capsys, "offline", "tiny")
    call("offline", "tiny", "--kind", "text", "--width", 3, "--overwrite")
    assert find_features(find_scenario("tiny", root), "text").width == 3


def test_offline_refuses_a_width_that_would_never_end(root, capsys):
    assert "--width 100000000: must be from 1 to 8192" in refuse(capsys, "offline", "tiny", "--width", 100_000_000)


def test_offline_names_unreadable_images(root):
    with_images(root)
    (root / "tiny" / "3.png").write_text("broken")
    printed = call("offline", "tiny", "--kind", "image")
    assert "image: 6 of 7 items" in printed
    assert "1 image cannot be read, counted as missing; first: 3.png" in printed


def test_addresses_that_nobody_fetched_are_told_with_the_command_that_fetches_them(root):
    with_images(root)
    scenario = find_scenario("tiny", root)
    pictures = scenario.items.image.tolist()
    fetch = f"features images tiny --data-root {root}"
    for addresses in (2, 7):
        cells = [*["https://example.com/1.jpg"] * addresses, *pictures[addresses:]]
        dataclasses.replace(scenario, items=scenario.items.assign(image=cells)).save(root, overwrite=True)
        for number, name in enumerate(pictures):
            Image.new("RGB", (40, 40), (30 * number, 255 - 30 * number, 40)).save(root / "tiny" / name)
        (told,) = [line for line in call("offline", "tiny").splitlines() if fetch in line]
        assert told.startswith(f"note: {addresses} items")


def test_images_of_a_folder_end_with_the_next_commands(root, tmp_path):
    names = find_scenario("tiny", root).items.external_id
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), (30, 255, 40)).save(tmp_path / "photos" / f"{names[0]}.png")
    also, following = call("images", "tiny", "--folder", "photos").splitlines()[-2:]
    assert also.startswith("also: ") and "features offline tiny --kind image" in also
    assert following.startswith("next: ") and "features encode tiny --kind image" in following


def test_import_and_show(root, tmp_path):
    text, image = np.random.default_rng(0).standard_normal((2, 7, 6)).astype(np.float32)
    image[0] = 0
    np.save(tmp_path / "text_feat.npy", text)
    np.save(tmp_path / "image_feat.npy", image)
    call("import", "tiny", "--text", "text_feat.npy", "--image", "image_feat.npy", "--encoder", "clip")
    scenario = find_scenario("tiny", root)
    assert np.array_equal(find_features(scenario, "text", "clip").rows, text)
    assert find_features(scenario, "image", "clip").has.tolist() == [False] + [True] * 6
    call("offline", "tiny")
    shown = call("show", "tiny")
    rows = [line.split() for line in shown.splitlines() if "%)" in line]
    assert [row[:3] for row in rows] == [["image", "clip", "6"], ["text", "clip", "6"], ["text", "offline", "512"]]
    assert rows[0][-1] == find_features(scenario, "image", "clip").hash()[:12]


def test_a_bad_second_matrix_keeps_the_first_from_being_written(root, tmp_path, capsys):
    np.save(tmp_path / "text_feat.npy", np.ones((7, 2), np.float32))
    np.save(tmp_path / "image_feat.npy", np.ones((9, 2), np.float32))
    line = refuse(capsys, "import", "tiny", "--text", "text_feat.npy", "--image", "image_feat.npy")
    assert "image_feat.npy: shape (9, 2) does not fit scenario 'tiny'" in line
    assert not (root / "tiny" / "features").exists()


def test_import_needs_something(root, tmp_path, capsys):
    assert "nothing to import" in refuse(capsys, "import", "tiny")


def test_show_without_features_names_the_next_command(root):
    assert "llmemf features offline tiny" in call("show", "tiny")


def test_show_notices_damage(root, capsys):
    call("offline", "tiny", "--width", 4)
    path = root / "tiny" / "features" / "text.offline" / "rows.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    capsys.readouterr()
    assert "was changed after it was written" in refuse(capsys, "show", "tiny")


@pytest.mark.parametrize("command", ["offline", "show", "import"])
def test_an_unknown_scenario_gets_the_nearest_name(root, capsys, command):
    extra = ["--text", "x.npy"] if command == "import" else []
    assert "unknown scenario 'tinny'" in (line := refuse(capsys, command, "tinny", *extra))
    assert "did you mean 'tiny'?" in line
