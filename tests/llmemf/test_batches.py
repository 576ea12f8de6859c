"""Device batches against a slow loop over sequences, and what a trial may see."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_features, make_features_of_both_kinds, make_scenario, make_sequences

from llmemf.batches import VIEWS, DeviceSequences, TrialData
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.scenarios.sequences import Sequences

PAD = NUM_ITEMS
MEMBER = {"x": lambda item: item < NUM_X, "y": lambda item: item >= NUM_X, "xy": lambda item: True}


def slow_windows(row, max_length):
    """From the end: pieces of at most max_length + 1 items, each beginning with the item the one before ended with."""
    windows, stop = [], len(row)
    while True:
        start = max(0, stop - max_length - 1)
        windows.append(row[start:stop])
        if start == 0:
            return windows
        stop = start + 1


def slow_view(window, name, max_length, *, held_out, layout):
    """Lists (items, next_same, next_merged) of one row without padding (compact) or with gaps (aligned)."""
    inputs = len(window) if held_out else len(window) - 1
    columns = []
    for t in range(inputs):
        item = window[t]
        if not MEMBER[name](item):
            if layout == "aligned":
                columns.append((PAD, PAD, PAD))
            continue
        same = [later for later in window[t + 1 :] if MEMBER[name](later)]
        columns.append((item, same[0] if same else PAD, window[t + 1] if t + 1 < len(window) else PAD))
    return columns[-max_length:]


def rows_of(sequences):
    return [sequences.row(index).tolist() for index in range(len(sequences))]


@pytest.mark.parametrize("layout", ["compact", "aligned"])
@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(("longest", "max_length"), [(9, 12), (9, 8), (25, 4), (25, 5), (9, 2)])
def test_views_equal_a_loop_over_sequences(layout, split, longest, max_length):
    scenario = make_scenario(longest=longest)
    held_out = split != "train"
    device = make_sequences(scenario, split, max_length=max_length, layout=layout)
    expected = []
    for user, row in zip(scenario.split(split).users, rows_of(scenario.split(split))):
        windows = [row[:-1]] if held_out else slow_windows(row, max_length)
        expected += [(int(user), window) for window in windows]
    assert len(device) == len(expected)
    batch = device.batch(torch.arange(len(device)))
    assert batch.users.tolist() == [user for user, _ in expected]
    for name in VIEWS:
        view = batch.views[name]
        assert view.items.dtype == torch.int64
        width = view.items.shape[1]
        longest_row = 1
        for number, (_, window) in enumerate(expected):
            columns = slow_view(window, name, max_length, held_out=held_out, layout=layout)
            columns = [(PAD, PAD, PAD)] * (width - len(columns)) + columns[-width:]
            actual = zip(
                view.items[number].tolist(), view.next_same[number].tolist(), view.next_merged[number].tolist()
            )
            assert list(actual) == columns, (name, window)
            real = [place for place, column in enumerate(columns) if column[0] != PAD]
            longest_row = max([longest_row, *(width - place for place in real)])
        assert width == min(max_length, longest_row)


def test_a_batch_takes_the_named_rows_in_their_order():
    device = make_sequences(make_scenario(), "valid")
    everything, some = device.batch(torch.arange(len(device))), device.batch(torch.tensor([5, 0, 5]))
    assert len(some) == 3
    for name in VIEWS:
        torch.testing.assert_close(some.views[name].items, everything.views[name].items[[5, 0, 5]])
    assert some.targets.tolist() == everything.targets[[5, 0, 5]].tolist()


@pytest.mark.parametrize("max_length", [2, 3, 4, 7, 24, 25])
def test_every_next_item_of_long_sequences_is_a_target_exactly_once(max_length):
    scenario = make_scenario(longest=25)
    device = make_sequences(scenario, "train", max_length=max_length)
    view = device.batch(torch.arange(len(device))).views["xy"]
    found = sorted(zip(view.items[view.items < PAD].tolist(), view.next_merged[view.items < PAD].tolist()))
    expected = sorted(pair for row in rows_of(scenario.train) for pair in itertools.pairwise(row))
    assert found == expected


def test_last_item_of_a_training_window_is_no_input():
    scenario = make_scenario(rows={"train": [[0, NUM_X, 1, 2], [3, NUM_X + 1]]})
    batch = make_sequences(scenario, "train").batch(torch.arange(2))
    assert batch.targets is None
    assert batch.views["x"].items.tolist() == [[0, 1], [PAD, 3]]
    assert batch.views["x"].next_same.tolist() == [[1, 2], [PAD, PAD]]
    assert batch.views["x"].next_merged.tolist() == [[NUM_X, 2], [PAD, NUM_X + 1]]
    assert batch.views["y"].items.tolist() == [[NUM_X], [PAD]]
    assert batch.views["xy"].items.tolist() == [[0, NUM_X, 1], [PAD, PAD, 3]]


def test_target_is_no_part_of_its_history():
    scenario = make_scenario()
    batch = make_sequences(scenario, "valid").batch(torch.arange(len(scenario.valid)))
    assert batch.targets.tolist() == scenario.valid.targets.tolist()
    for view in batch.views.values():
        assert not (view.items == batch.targets[:, None]).any()
        assert not (view.next_same == batch.targets[:, None]).any()
        assert not (view.next_merged == batch.targets[:, None]).any()


def test_a_domain_that_no_history_has_gives_one_column_of_padding():
    sequences = Sequences.from_rows([0, 1], [[0, 1, NUM_X], [2, 3, 4]])
    device = DeviceSequences(sequences, num_x=NUM_X, num_items=NUM_ITEMS, max_length=5, held_out=True)
    assert device.batch(torch.arange(2)).views["y"].items.tolist() == [[PAD], [PAD]]


def test_trial_data_holds_nothing_of_the_test_split():
    scenario = make_scenario()
    other = make_scenario(
        rows={name: rows_of(scenario.split(name)) for name in ("train", "valid")} | {"test": [[1, 2]]}
    )
    other.candidates["valid"][:] = scenario.candidates["valid"]
    one, two = make_data(scenario), make_data(other)
    names = {field.name for field in dataclasses.fields(one)}
    assert names >= {"train", "valid", "valid_candidates"} and not [name for name in names if "test" in name]
    for name in names - {"fingerprint"}:
        a, b = getattr(one, name), getattr(two, name)
        for part_a, part_b in zip(parts(a), parts(b), strict=True):
            np.testing.assert_array_equal(part_a, part_b, err_msg=name)


def parts(value):
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [value]


def test_features_become_unit_rows_and_the_originals_stay():
    scenario = make_scenario()
    features = make_features_of_both_kinds(scenario)
    before = {kind: matrix.rows.tobytes() for kind, matrix in features.items()}
    data = TrialData.build(scenario, **features)
    for kind, matrix in features.items():
        rows = getattr(data, kind).rows
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), matrix.has.astype(float), rtol=1e-6)
        np.testing.assert_allclose(
            rows[matrix.has] * np.linalg.norm(matrix.rows[matrix.has], axis=1, keepdims=True),
            matrix.rows[matrix.has],
            rtol=1e-5,
        )
        assert matrix.rows.tobytes() == before[kind] and rows.dtype == np.float32


def test_half_precision_features_and_rows_of_zero():
    scenario = make_scenario()
    matrix = make_features(scenario, "image")
    rows = matrix.rows.astype(np.float16)
    rows[4] = 0
    data = TrialData.build(scenario, image=dataclasses.replace(matrix, rows=rows))
    assert data.image.rows.dtype == np.float32 and not data.image.rows[4].any()
    np.testing.assert_allclose(np.linalg.norm(np.delete(data.image.rows, 4, 0), axis=1), 1, rtol=1e-6)


def test_features_of_another_scenario_are_refused():
    scenario, other = make_scenario(), make_scenario()
    other.items.loc[0, "title"] = "changed"
    with pytest.raises(InputError, match="another item table"):
        TrialData.build(scenario, image=make_features(other, "image"))


def test_hashes_of_features_travel_with_the_data(monkeypatch):
    """Every trial would otherwise read all features once more, to say which ones it used."""
    data = make_data()
    expected = {kind: getattr(data, kind).hash() for kind in ("text", "image")}
    sent = pickle.dumps(data)
    monkeypatch.setattr(FeatureMatrix, "hash", lambda self: pytest.fail("hashed again"))
    assert pickle.loads(sent).feature_hashes == expected
