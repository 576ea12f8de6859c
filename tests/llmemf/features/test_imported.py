"""Import of ready matrices: rows arrive as they are, missing ones are marked, and every misfit is named."""

import hashlib

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.features import imported
from llmemf.features.finding import find_features
from llmemf.features.imported import import_matrix


@pytest.fixture
def scenario(tiny_scenario, tmp_path):
    return tiny_scenario(tmp_path / "data")


@pytest.fixture
def save(tmp_path):
    def write(array, name="text_feat.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return write


def rows_of(count=7, width=3, dtype=np.float32):
    return np.random.default_rng(1).standard_normal((count, width)).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "stored"), [(np.float16, np.float16), (np.float32, np.float32), (np.float64, np.float32)]
)
def test_rows_arrive_unchanged(scenario, save, dtype, stored):
    rows = rows_of(dtype=dtype)
    rows[5] = 0
    path = save(rows)
    matrix = import_matrix(scenario, "text", path, encoder="clip-b32")
    assert matrix.rows.dtype == stored and np.array_equal(matrix.rows, rows.astype(stored))
    assert matrix.has.tolist() == [True] * 5 + [False, True]
    assert matrix.details["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert matrix.details["items_without_feature"] == 1
    matrix.save(scenario)
    assert find_features(scenario, "text", "clip-b32").hash() == matrix.hash()


def test_chunks_do_not_matter(scenario, save, monkeypatch):
    rows = rows_of()
    rows[[1, 4]] = 0
    path = save(rows)
    whole = import_matrix(scenario, "text", path)
    monkeypatch.setattr(imported, "BLOCK", 2)
    assert import_matrix(scenario, "text", path).hash() == whole.hash()


def test_values_that_do_not_fit_are_named(scenario, save):
    broken = rows_of()
    broken[4, 0] = np.inf
    large = rows_of(dtype=np.float64)
    large[3, 1] = 1e300
    long = rows_of()
    long[2] = 3e38
    tiny = rows_of(dtype=np.float64)
    tiny[1] = 1e-60
    cases = [
        (long, r"row 2 \(item 'i2'\) is longer than 3.4e\+38"),
        (tiny, r"row 1 \(item 'i1'\) holds values too small for float32"),
        (
            rows_of(6),
            r"shape \(6, 3\) does not fit scenario 'tiny': one row for each of its 7 items.*3 of film first, then 4 of book",
        ),
        (rows_of(8), r"shape \(8, 3\)"),
        (rows_of()[0], r"shape \(3,\)"),
        (rows_of()[None], r"shape \(1, 7, 3\)"),
        (np.zeros((7, 0), np.float32), r"shape \(7, 0\)"),
        (np.ones((7, 3), int), "values of type int64"),
        (broken, r"row 4 \(item 'i4'\) holds NaN, infinity"),
        (large, r"row 3 \(item 'i3'\).*beyond float32"),
        (np.zeros((7, 3), np.float32), "no row holds any value but zero"),
    ]
    for array, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            import_matrix(scenario, "text", save(array))
        assert "text_feat.npy" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_matrix_are_named(scenario, save, tmp_path):
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "several.npz", a=rows_of())
    np.save(tmp_path / "objects.npy", np.array([{}] * 7, dtype=object), allow_pickle=True)
    whole = save(rows_of()).read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-5])
    for name, message in {
        "text.npy": "not a whole .npy file",
        "empty.npy": "not a whole .npy file",
        "several.npz": "archive of several arrays",
        "objects.npy": "not a whole .npy file of plain values",
        "short.npy": "not a whole .npy file",
        "gone.npy": "No such file",
        "data": "Is a directory",
    }.items():
        with pytest.raises(InputError, match=message):
            import_matrix(scenario, "text", tmp_path / name)


def test_wrong_kinds_and_names(scenario, save):
    path = save(rows_of())
    for encoder in ("offline", "auto", "", "../x", "a b", ".hidden", "a.b"):
        with pytest.raises(InputError, match="encoder name"):
            import_matrix(scenario, "text", path, encoder=encoder)
    with pytest.raises(InputError, match="feature kind 'sound'"):
        import_matrix(scenario, "sound", path)


def test_rows_of_extreme_size_are_imported(scenario, save):
    rows = rows_of()
    rows[2], rows[3] = rows[2] * 1e30, rows[3] * 1e-42
    matrix = import_matrix(scenario, "text", save(rows))
    assert matrix.has.all() and np.array_equal(matrix.rows, rows)
