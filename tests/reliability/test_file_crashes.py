"""What is written outside a sweep: every crash leaves the old, the new, or nothing, and nothing that looks whole and is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable_events import ERRORS, write_tree
from file_crashes import broken_order, crashed_disks, failing
from small_training import continued, scenario, trained
from tiny import make_features

from llmemf.checkpoint import evaluate_checkpoint
from llmemf.errors import InputError, StorageError
from llmemf.export.folder import ExportedModel, export_checkpoint
from llmemf.features.matrix import FeatureMatrix
from llmemf.features.shards import Shard, ShardStore
from llmemf.scenarios.scenario import Scenario
from sweeps.groups.evaluation import ARRAYS, load_ranks, save_ranks
from sweeps.state import checkpoints
from sweeps.state.sweep_record import SweepRecord


@dataclass
class Kind:
    """A kind of file or folder.

    Attributes:
        prepare: writes what is there before, below a folder.
        write: writes it, and gives what `read` gives of it.
        read: what is there; None where nothing is.
    """

    prepare: Callable[[Path], Any]
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]


def saved_scenario(root: Path) -> Scenario:
    if not (root / "tiny").exists():
        scenario().save(root)
    return Scenario.load(root / "tiny")


def write_record(root: Path, status: str) -> None:
    record = SweepRecord(
        name="s", requested="tiny", scenario="tiny", data_root="d", storage=str(root), tracking_uri="u", status=status
    )
    record.folder.mkdir(parents=True, exist_ok=True)
    record.save()


def read_record(root: Path) -> str | None:
    folder = root / "sweeps" / "s"
    return SweepRecord.load(folder).status if (folder / "sweep.yaml").exists() else None


def write_features(root: Path, seed: int) -> None:
    matrix = make_features(scenario(), "text", seed=seed)
    matrix.save(Scenario.load(root / "tiny"), overwrite=True)


def read_features(root: Path) -> Any:
    folder = root / "tiny" / "features" / "text.random"
    return FeatureMatrix.load(folder).rows[0, 0] if folder.exists() else None


STORE = {"identity": {"model": "m"}, "num_items": 6, "size": 4}


def write_shard(root: Path, value: float) -> None:
    rows = np.full((4, 3), value, np.float32)
    ShardStore(root / "shards", **STORE).write(0, Shard(rows, np.ones(4, bool), np.zeros((4, 32), np.uint8)))


def read_shard(root: Path) -> Any:
    found = ShardStore(root / "shards", **STORE).read(0)
    return None if found is None else float(found.rows[0, 0])


def write_ranks(root: Path, value: int) -> None:
    save_ranks(root / "ranks" / "row--seed1.npz", dict.fromkeys(ARRAYS, np.full(5, value)))


def read_ranks(root: Path) -> Any:
    path = root / "ranks" / "row--seed1.npz"
    return int(load_ranks(path)["case"][0]) if path.exists() else None


def read_export(root: Path) -> Any:
    return ExportedModel.load(root / "model").metrics["valid"]["number"] if (root / "model").exists() else None


def write_export(root: Path, number: int) -> None:
    export_checkpoint(
        root / "checkpoint",
        scenario(),
        {},
        root / "model",
        metrics={"valid": {"number": number}},
        source={},
        notes=[],
        overwrite=True,
    )


KINDS = {
    "sweep.yaml": Kind(
        lambda root: write_record(root, "planned"), lambda root: write_record(root, "running"), read_record
    ),
    "feature shard": Kind(lambda root: write_shard(root, 1), lambda root: write_shard(root, 2), read_shard),
    "ranks of a group": Kind(lambda root: write_ranks(root, 1), lambda root: write_ranks(root, 2), read_ranks),
}
FOLDERS = {
    "scenario": Kind(
        lambda root: None,
        lambda root: scenario().save(root, overwrite=True),
        lambda root: (root / "tiny").exists() and Scenario.load(root / "tiny").fingerprint,
    ),
    "feature matrix": Kind(saved_scenario, lambda root: write_features(root, 2), read_features),
    "exported model": Kind(
        lambda root: trained()[0].save(root / "checkpoint"), lambda root: write_export(root, 2), read_export
    ),
}


@pytest.mark.parametrize("name", [*KINDS, *FOLDERS])
def test_a_crash_leaves_the_old_or_the_new_and_the_next_attempt_succeeds(quick_folder, name):
    kind = {**KINDS, **FOLDERS}[name]
    quick_folder.mkdir(exist_ok=True)
    kind.prepare(quick_folder)
    before = kind.read(quick_folder)
    written = crashed_disks(quick_folder, lambda: kind.write(quick_folder))
    after = kind.read(quick_folder)
    assert after not in (None, before) and len(written.disks) > 3
    assert broken_order(written.events) == []
    for place, (where, disk) in enumerate(written.disks):
        write_tree(quick_folder, disk)
        assert kind.read(quick_folder) in (before, after), where
        if place % 3 == 0:
            kind.write(quick_folder)
            assert kind.read(quick_folder) == after, where
    for lost, disk in written.end.items():
        write_tree(quick_folder, disk)
        assert kind.read(quick_folder) == after, lost


WAYS = [("ENOSPC", False), ("EIO", True), ("EACCES", True)]
"""Which error, and whether all that follow fail, too."""


@pytest.mark.parametrize(("code", "for_ever"), WAYS)
@pytest.mark.parametrize("name", [*KINDS, *FOLDERS])
def test_an_error_of_the_disk_is_told_and_leaves_the_old_or_the_new(quick_folder, name, for_ever, code):
    kind = {**KINDS, **FOLDERS}[name]
    quick_folder.mkdir(exist_ok=True)
    kind.prepare(quick_folder)
    before = kind.read(quick_folder)
    results = failing(quick_folder, lambda: kind.write(quick_folder), ERRORS[code], for_ever=for_ever)
    after = kind.read(quick_folder)
    for where, raised, disk in results:
        write_tree(quick_folder, disk)
        found = kind.read(quick_folder)
        if raised is None:
            assert found == after, f"{where}: no error, and not written"
        else:
            assert isinstance(raised, StorageError) and raised.errno == ERRORS[code], f"{where}: {raised!r}"
            assert str(quick_folder) in str(raised), where
            assert found in (before, after), where
        if not for_ever:
            assert "remove" in where or "rmdir" in where or not any(".tmp" in name for name in disk), where


def test_a_crash_of_a_later_save_leaves_a_checkpoint_that_continues_to_the_same_numbers(quick_folder):
    """`llmemf train` writes one folder again and again."""
    folder = quick_folder / "run"
    trained()[0].save(folder)
    expected = continued(folder)[1]
    written = crashed_disks(quick_folder, lambda: trained()[1].save(folder))
    assert broken_order(written.events) == []
    epochs = set()
    for where, disk in written.disks:
        write_tree(quick_folder, disk)
        epoch, metrics = continued(folder)
        assert metrics == expected, where
        epochs.add(epoch)
        assert evaluate_checkpoint(folder, scenario(), {}, "valid", device="cpu"), where
        trained()[1].save(folder)
        assert continued(folder) == (2, expected), where
    assert epochs == {1, 2}
    for lost, disk in written.end.items():
        write_tree(quick_folder, disk)
        assert continued(folder)[0] == 2, lost


def test_a_crash_of_the_first_save_leaves_a_checkpoint_or_none(quick_folder):
    quick_folder.mkdir(exist_ok=True)
    folder = quick_folder / "run"
    written = crashed_disks(quick_folder, lambda: trained()[0].save(folder))
    loaded = 0
    for where, disk in written.disks:
        write_tree(quick_folder, disk)
        try:
            epoch, _ = continued(folder)
        except InputError as error:
            if str(folder) not in str(error):
                raise
            trained()[0].save(folder)
            epoch, _ = continued(folder)
        else:
            loaded += 1
        assert epoch == 1, where
    assert loaded


@pytest.mark.parametrize(("code", "for_ever"), WAYS)
def test_a_save_of_a_checkpoint_that_fails_says_so_and_the_one_before_loads(quick_folder, code, for_ever):
    folder = quick_folder / "run"
    trained()[0].save(folder)
    for where, raised, disk in failing(
        quick_folder, lambda: trained()[1].save(folder), ERRORS[code], for_ever=for_ever
    ):
        write_tree(quick_folder, disk)
        epoch, _ = continued(folder)
        assert epoch in (1, 2), where
        if raised is None:
            assert epoch == 2, where
        else:
            assert isinstance(raised, StorageError) and str(folder) in str(raised), f"{where}: {raised!r}"


def test_checkpoints_of_a_trial_are_there_whole_or_not_at_all(quick_folder):
    folder = quick_folder / "trials" / "t01"
    quick_folder.mkdir(exist_ok=True)
    checkpoints.save(trained()[0], folder, {"epoch": 1})
    written = crashed_disks(quick_folder, lambda: checkpoints.save(trained()[1], folder, {"epoch": 2}))
    assert broken_order(written.events) == []
    for where, disk in written.disks:
        write_tree(quick_folder, disk)
        newest = checkpoints.newest(folder)
        assert continued(newest)[0] == int(newest.name[-4:]), where
    for lost, disk in written.end.items():
        write_tree(quick_folder, disk)
        assert checkpoints.newest(folder).name == "epoch-0002", lost
