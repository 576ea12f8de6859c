import os

import pytest

from llmemf.errors import InputError
from sweeps.state.checkpoints import clear_leftovers, keep_weights, load, newest, save, stored, trial_folder


class Trainer:
    """Saves an epoch in files of a few megabytes whose content can be checked."""

    def __init__(self, megabytes=0.001):
        self.epoch, self.size = 0, int(megabytes * 2**20)

    def save(self, folder):
        block = self.epoch.to_bytes(4, "big") * (self.size // 4)
        (folder / "state.pt").write_bytes(block)
        (folder / "best.safetensors").write_bytes(block[: self.size // 2])
        (folder / "config.yaml").write_text(f"epoch: {self.epoch}\n")

    def load(self, folder):
        content = (folder / "state.pt").read_bytes()
        self.epoch = int.from_bytes(content[:4], "big")
        if content != content[:4] * (self.size // 4):
            raise InputError(f"{folder}/state.pt cannot be read")


def saved(folder, *epochs, trainer=None):
    trainer = trainer or Trainer()
    for epoch in epochs:
        trainer.epoch = epoch
        save(trainer, folder, {"epoch": epoch, "objective": epoch / 10})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_and_its_report_come_back(tmp_path):
    folder = trial_folder(tmp_path, 7)
    assert folder == tmp_path / "trials" / "t07"
    saved(folder, 4)
    assert names(folder / "epoch-0004") == ["best.safetensors", "config.yaml", "report.json", "state.pt"]
    trainer, report = load(Trainer, folder)
    assert trainer.epoch == 4 and report == {"epoch": 4, "objective": 0.4}


def test_a_trial_without_checkpoints_starts_anew(tmp_path):
    trainer, report = load(Trainer, tmp_path / "t01")
    assert trainer.epoch == 0 and report is None and newest(tmp_path / "t01") is None


def test_the_newest_two_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, 9, 10)
    assert names(tmp_path) == ["epoch-0009", "epoch-0010"]
    assert newest(tmp_path).name == "epoch-0010"


def test_order_is_by_number(tmp_path):
    saved(tmp_path, 9998, 9999, 10_000, 10_001)
    assert [path.name for path in stored(tmp_path)] == ["epoch-10001", "epoch-10000"]


@pytest.mark.parametrize("damage", ["cut", "gone", "no report", "bad report", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_older_one(tmp_path, damage):
    saved(tmp_path, 2, 3)
    path = newest(tmp_path)
    if damage == "cut":
        os.truncate(path / "state.pt", 100)
    elif damage == "gone":
        (path / "state.pt").unlink()
    elif damage == "no report":
        (path / "report.json").unlink()
    elif damage == "bad report":
        (path / "report.json").write_text('{"epoch": 3, "obj')
    else:
        for file in path.iterdir():
            file.unlink()
    trainer, report = load(Trainer, tmp_path)
    assert trainer.epoch == 2 and report["epoch"] == 2
    saved(tmp_path, 3)
    assert load(Trainer, tmp_path)[1]["epoch"] == 3, "the epoch that is repeated replaces the damaged one"


def test_if_none_can_be_read_the_trial_does_not_start_over_in_silence(tmp_path):
    saved(tmp_path, 2, 3)
    for path in stored(tmp_path):
        os.truncate(path / "state.pt", 100)
    with pytest.raises(InputError, match="cannot be read"):
        load(Trainer, tmp_path)


def test_a_save_that_fails_leaves_the_older_ones_and_no_rest(tmp_path):
    saved(tmp_path, 1, 2)

    class Full(Trainer):
        def save(self, folder):
            super().save(folder)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, 3, trainer=Full())
    assert names(tmp_path) == ["epoch-0001", "epoch-0002"]
    assert load(Trainer, tmp_path)[1]["epoch"] == 2


def test_what_a_killed_process_left_is_cleared(tmp_path):
    saved(tmp_path, 1)
    (tmp_path / ".epoch-0002.77.tmp").mkdir()
    (tmp_path / ".epoch-0002.77.tmp" / "state.pt").write_text("half")
    assert [path.name for path in stored(tmp_path)] == ["epoch-0001"]
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["epoch-0001"]
    clear_leftovers(tmp_path / "not there")


def test_of_an_ended_trial_its_weights_are_left(tmp_path):
    saved(tmp_path, 1, 2)
    for _ in range(2):
        keep_weights(tmp_path)
        assert names(tmp_path) == ["epoch-0002"]
        assert names(tmp_path / "epoch-0002") == ["best.safetensors", "config.yaml", "report.json"]
    keep_weights(tmp_path / "not there")
