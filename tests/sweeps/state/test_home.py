"""Where a stored sweep lies, and whose it is."""

import re
import shutil
import uuid

import pytest
import yaml

from llmemf.errors import InputError
from sweeps.state.home import is_copy, is_elsewhere, is_former
from sweeps.state.sweep_record import GROUPS, SweepRecord, find_sweep, stored_sweeps


def store(storage, name="s1", **values):
    record = SweepRecord(
        name=name, requested="sample", scenario="sample", data_root="/data", storage=str(storage),
        tracking_uri=f"sqlite:///{storage}/mlflow.db", created="2026-01-01T00:00:00.000001", **values
    )  # fmt: skip
    record.folder.mkdir(parents=True)
    record.save()
    return record


@pytest.fixture
def storage(tmp_path):
    return tmp_path / "m1"


def test_a_sweep_has_an_identity_of_its_own_that_it_keeps(storage):
    one, two = store(storage), store(storage, "s2")
    assert uuid.UUID(one.identity) != uuid.UUID(two.identity)
    loaded = SweepRecord.load(one.folder)
    assert loaded.identity == one.identity and not is_elsewhere(loaded) and not is_former(loaded)


def test_a_sweep_of_a_former_version_has_one_that_follows_from_its_beginning(storage):
    record = store(storage)
    values = yaml.safe_load(record.file.read_text())
    del values["identity"], values["moved_from"]
    record.file.write_text(yaml.safe_dump(values))
    one, two = SweepRecord.load(record.folder), SweepRecord.load(record.folder)
    assert one.identity == two.identity and is_former(one)
    record.file.write_text(yaml.safe_dump({**values, "created": "2026-01-01T00:00:00.000002"}))
    assert SweepRecord.load(record.folder).identity != one.identity
    one.save()
    assert is_former(SweepRecord.load(record.folder)), "also after its identity was written down"


@pytest.mark.parametrize("inside", [True, False])
def test_what_was_moved_takes_a_database_of_its_storage_along(storage, tmp_path, inside):
    record = store(storage)
    if not inside:
        record.tracking_uri = f"sqlite:///{tmp_path}/shared.db"
        record.save()
    storage.rename(tmp_path / "m2")
    moved = SweepRecord.load(tmp_path / "m2" / "sweeps" / "s1")
    assert moved.storage == str(tmp_path / "m2") and is_elsewhere(moved) and not is_copy(moved)
    assert moved.home == str(storage / "sweeps" / "s1")
    assert moved.tracking_uri == f"sqlite:///{tmp_path}/{'m2/mlflow' if inside else 'shared'}.db"


def test_a_copy_is_one_as_long_as_the_original_is_there(storage, tmp_path):
    record = store(storage)
    shutil.copytree(storage, tmp_path / "backup")
    copy = SweepRecord.load(tmp_path / "backup" / "sweeps" / "s1")
    assert is_elsewhere(copy) and is_copy(copy) and copy.identity == record.identity
    record.file.write_text("{")
    assert is_copy(copy), "the original is damaged, yet there"
    shutil.rmtree(storage)
    assert not is_copy(copy)
    store(storage)
    assert not is_copy(copy), "another sweep of that name"


def test_a_copy_inside_of_its_storage_has_the_name_of_its_folder(storage):
    record = store(storage)
    shutil.copytree(record.folder, storage / "sweeps" / "s1-copy")
    copy = SweepRecord.load(storage / "sweeps" / "s1-copy")
    assert copy.name == "s1-copy" and is_elsewhere(copy) and is_copy(copy)
    assert copy.tracking_uri == record.tracking_uri


def test_a_link_leads_to_the_sweep_of_the_other_storage(storage, tmp_path):
    record = store(storage)
    (tmp_path / "m2" / "sweeps").mkdir(parents=True)
    (tmp_path / "m2" / "sweeps" / "s1").symlink_to(record.folder)
    found = SweepRecord.load(tmp_path / "m2" / "sweeps" / "s1")
    assert found.folder == record.folder and not is_elsewhere(found)


def test_a_link_at_the_old_path_leads_to_the_new_one(storage, tmp_path):
    record = store(storage)
    storage.rename(tmp_path / "big")
    storage.symlink_to(tmp_path / "big")
    found = SweepRecord.load(record.folder)
    assert found.storage == str(tmp_path / "big") and not is_elsewhere(found)


@pytest.mark.parametrize("content", ["{", "name: s2\nfuture_option: 1\n", "[]", "name: [1]\nstorage: 3\n"])
def test_what_cannot_be_read_is_left_out_with_one_notice(storage, caplog, content):
    record = store(storage)
    damaged = storage / "sweeps" / "s2" / "sweep.yaml"
    damaged.parent.mkdir()
    damaged.write_text(content)
    for _ in range(2):
        assert [found.name for found in stored_sweeps(storage)] == ["s1"]
    assert find_sweep(storage).folder == record.folder
    assert len(caplog.messages) == 1 and str(damaged) in caplog.text
    with pytest.raises(InputError, match=r"s2/sweep\.yaml"):
        find_sweep(storage, name="s2")


@pytest.mark.parametrize(("root", "kind"), GROUPS.items())
def test_who_names_a_group_is_shown_its_page(storage, root, kind):
    page = storage / root / "c1" / f"{kind}.html"
    page.parent.mkdir(parents=True)
    page.touch()
    store(storage)
    with pytest.raises(InputError, match=re.escape(str(page))):
        find_sweep(storage, name="c1")


def test_sweeps_of_a_group_are_not_offered_beside_others(storage):
    store(storage)
    (storage / "comparisons" / "c1").mkdir(parents=True)
    own = storage / "sweeps" / "c1--sasrec" / "sweep.yaml"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(InputError, match="valid names: s1$"):
        find_sweep(storage, name="x")
