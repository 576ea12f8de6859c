"""Feature matrices on disk: what is written comes back, what does not fit is refused, nothing half-written stays."""

import dataclasses
import json

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.features.finding import find_features
from llmemf.features.matrix import FeatureMatrix, feature_folders, save_all, unit_rows


@pytest.fixture
def scenario(tiny_scenario, tmp_path):
    return tiny_scenario(tmp_path / "data")


def matrix_of(scenario, kind="text", encoder="hand", width=5, **changes):
    rows = np.random.default_rng(3).standard_normal((scenario.num_items, width)).astype(np.float32)
    has = np.arange(scenario.num_items) != 2
    rows[2] = 0
    matrix = FeatureMatrix(kind, encoder, rows, has, scenario.items_hash(), {"method": "by hand"})
    return dataclasses.replace(matrix, **changes)


def test_round_trip_is_mapped_and_equal(scenario):
    matrix = matrix_of(scenario)
    folder = matrix.save(scenario)
    loaded = find_features(scenario, "text")
    assert folder == scenario.folder / "features" / "text.hand"
    assert isinstance(loaded.rows, np.memmap)
    assert np.array_equal(loaded.rows, matrix.rows) and np.array_equal(loaded.has, matrix.has)
    assert (loaded.name, loaded.width, loaded.details) == ("text.hand", 5, {"method": "by hand"})
    assert loaded.hash() == matrix.hash() == json.loads((folder / "manifest.json").read_text())["hash"]


def test_half_precision_stays_half_precision(scenario):
    matrix = matrix_of(scenario)
    half = dataclasses.replace(matrix, rows=matrix.rows.astype(np.float16))
    half.save(scenario)
    assert find_features(scenario, "text").rows.dtype == np.float16
    assert half.hash() != matrix.hash()


def test_hash_sees_rows_and_mask(scenario):
    matrix = matrix_of(scenario)
    rows, has = matrix.rows.copy(), matrix.has.copy()
    rows[6, 4] += 1
    has[6] = False
    assert (
        len({matrix.hash(), dataclasses.replace(matrix, rows=rows).hash(), dataclasses.replace(matrix, has=has).hash()})
        == 3
    )


def test_what_does_not_fit_is_refused(scenario):
    matrix = matrix_of(scenario)
    broken = matrix.rows.copy()
    broken[4, 1] = np.nan
    cases = [
        (dataclasses.replace(matrix, kind="sound"), "kind must be one of"),
        (dataclasses.replace(matrix, rows=matrix.rows[:6]), r"shape \(6, 5\) does not fit scenario 'tiny'.*7 items"),
        (dataclasses.replace(matrix, rows=matrix.rows[0]), "does not fit scenario"),
        (dataclasses.replace(matrix, has=matrix.has[:6]), "does not fit scenario"),
        (dataclasses.replace(matrix, items_hash="0"), "made for another item table"),
        (dataclasses.replace(matrix, rows=broken), r"row 4 \(item 'i4'\) holds NaN"),
        (dataclasses.replace(matrix, has=np.arange(7) != 5), "row 5 is marked as missing but is not zero"),
    ]
    for wrong, message in cases:
        with pytest.raises(InputError, match=message):
            wrong.save(scenario)
    assert feature_folders(scenario) == []


def test_features_do_not_survive_a_changed_item_table(scenario):
    matrix_of(scenario).save(scenario)
    renamed = dataclasses.replace(scenario, items=scenario.items.assign(title="other"))
    with pytest.raises(InputError, match="another item table"):
        find_features(renamed, "text")


def test_existing_features_are_replaced_only_on_demand(scenario):
    first, second = matrix_of(scenario), matrix_of(scenario, width=4)
    first.save(scenario)
    with pytest.raises(InputError, match="text.hand of scenario 'tiny' exist already; give --overwrite"):
        second.save(scenario)
    assert find_features(scenario, "text").width == 5
    second.save(scenario, overwrite=True)
    assert find_features(scenario, "text").width == 4


def test_several_are_written_together_or_not_at_all(scenario):
    matrix_of(scenario, kind="image").save(scenario)
    with pytest.raises(InputError, match="image.hand"):
        save_all([matrix_of(scenario), matrix_of(scenario, kind="image")], scenario)
    assert [folder.name for folder in feature_folders(scenario)] == ["image.hand"]


def test_a_failed_write_leaves_nothing(scenario, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        matrix_of(scenario).save(scenario)
    assert list((scenario.folder / "features").iterdir()) == []


def test_an_unsaved_scenario_has_no_place_for_features(scenario):
    with pytest.raises(InputError, match="is not on the disk yet"):
        matrix_of(scenario).save(dataclasses.replace(scenario, folder=None))


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"kind": 7}', "[" * 100_000])
def test_a_manifest_of_the_wrong_shape_is_named(scenario, content):
    path = matrix_of(scenario).save(scenario) / "manifest.json"
    path.write_text(content)
    with pytest.raises(InputError, match=str(path)):
        find_features(scenario, "text")


def test_damage_is_noticed(scenario):
    folder = matrix_of(scenario).save(scenario)
    rows = np.load(folder / "rows.npy")
    rows[0, 0] += 1
    np.save(folder / "rows.npy", rows)
    with pytest.raises(InputError, match="was changed after it was written"):
        find_features(scenario, "text")
    (folder / "rows.npy").write_bytes(b"")
    with pytest.raises(InputError, match="rows.npy is not a whole"):
        find_features(scenario, "text")
    (folder / "rows.npy").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        find_features(scenario, "text")


def test_the_encoder_is_found_or_named(scenario):
    with pytest.raises(InputError, match="has no text features .*llmemf features offline tiny.*--set modalities="):
        find_features(scenario, "text")
    matrix_of(scenario).save(scenario)
    matrix_of(scenario, encoder="other", width=3).save(scenario)
    assert find_features(scenario, "text", "other").width == 3
    with pytest.raises(InputError, match="--set text_encoder="):
        find_features(scenario, "text")
    with pytest.raises(InputError, match="no text features from encoder 'clip'"):
        find_features(scenario, "text", "clip")
    with pytest.raises(InputError, match="no image features"):
        find_features(scenario, "image")


def test_rows_of_any_size_get_their_direction():
    rows = np.array([[3, 4], [3e30, 4e30], [3e38, 0], [3e-42, 4e-42], [0, 0], [-3, 4], [7, 7]], np.float32)
    has = np.array([True] * 6 + [False])
    before = rows.copy()
    found = unit_rows(rows, has)
    expected = [[0.6, 0.8], [0.6, 0.8], [1, 0], [0.6, 0.8], [0, 0], [-0.6, 0.8], [0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0)
    np.testing.assert_allclose(found[[0, 1, 5]], np.array(expected)[[0, 1, 5]], rtol=1e-6, atol=0)
    assert found.dtype == np.float32 and np.array_equal(rows, before)


def test_rows_of_usual_size_keep_their_bits():
    """Results of earlier versions, which divided by the norm alone, can be repeated."""
    rows = np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32) * 100
    plain = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.array_equal(unit_rows(rows, np.ones(50, bool)), plain)
