import os
import socket

import pytest
from report_fakes import START, make_sweep, metrics, rising, trial

from llmemf.errors import InputError
from sweeps.reporting.gather import gather
from sweeps.state.sweep_record import SweepRecord, find_sweep


def test_a_sweep_is_read_as_its_journal_tells(tmp_path):
    test = {"test/mrr": 0.07, "test/movie/mrr": 0.08}
    record = make_sweep(tmp_path, [trial(rising(0.05)), trial([0.01, 0.03, 0.02, 0.025], "pruned"), trial([], "failed")],
                        tests={1: test}, grace_period=2, reduction_factor=2.0)  # fmt: skip
    found = gather(record)
    assert found.state == "completed" and found.best.name == "t01" and found.test == test
    assert [trial.name for trial in found.ranked] == ["t01", "t02", "t03"] and len(found.valued) == 2
    assert found.trials[2].curve == [0.01, 0.03, 0.02, 0.025] and found.trials[2].record.objective == 0.03
    assert found.trials[2].epoch_seconds == pytest.approx(2.0)
    assert found.rungs == [2, 4] and found.domains == ["movie", "book"] and found.epochs == 6
    assert [p.key for p in found.parameters] == ["lr", "alpha", "beta"]
    assert found.monitored == "validation MRR"


def test_the_values_of_a_grid_are_the_ticks_of_its_axis(tmp_path):
    given = {"layers": [1, 2], "width": [16, 24, 32], "alpha, beta": {"simplex": 0.1}}
    record = make_sweep(
        tmp_path, [trial(rising(0.05), settings={"layers": 2, "width": 16, "alpha": 0.2, "beta": 0.1})], space=given
    )
    ticks = {found.key: [text for _, text in found.axis.ticks] for found in gather(record).parameters}
    assert ticks["layers"] == ["1", "2"] and ticks["width"] == ["16", "24", "32"]
    # Eleven shares would touch one another.
    assert len(ticks["alpha"]) < 6


def test_the_curve_is_what_is_monitored(tmp_path):
    record = make_sweep(tmp_path, [trial([0.01, 0.02])], fixed={"monitor": "val_loss"})
    found = gather(record)
    assert found.trials[1].curve == [-(5 - 0.01), -(5 - 0.02)] and found.monitored == "negative validation loss"


@pytest.mark.parametrize(
    ("host", "pid", "state"),
    [
        (socket.gethostname(), os.getpid(), "running"),
        (socket.gethostname(), 2**22 + 5, "interrupted"),
        (socket.gethostname(), None, "interrupted"),
        ("another", 1, "running"),
    ],
    ids=["here", "gone", "unknown", "elsewhere"],
)
def test_a_running_sweep_is_told_from_one_whose_driver_is_gone(tmp_path, host, pid, state):
    trials = [trial(rising(0.05)), trial([0.01], ""), trial([], "pending")]
    record = make_sweep(tmp_path, trials, status="running", opened={"host": host, "pid": pid})
    found = gather(record, now=START / 1000 + 100)
    assert found.state == state and found.state_note
    assert found.trials[2].record.outcome == state and found.trials[3].record.outcome == "pending"
    assert ("another" in found.state_note) == (host == "another")


def test_reading_leaves_a_folder_as_it_was(tmp_path):
    record = make_sweep(
        tmp_path, [trial(rising(0.05)), trial([0.01], "")], status="running", opened={"pid": os.getpid()}
    )
    with (record.folder / "journal.jsonl").open("a") as journal:
        journal.write('{"event": "epo')
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in record.folder.iterdir()}
    assert gather(record).trials[2].record.epoch == 1
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in record.folder.iterdir()} == before


def test_the_newest_sweep_is_meant_and_a_moved_storage_is_followed(tmp_path):
    make_sweep(tmp_path / "old", [trial(rising(0.05))], name="a")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new" / "mlflow.db").touch()
    record = find_sweep(tmp_path / "new")
    assert record.name == "a" and record.folder == tmp_path / "new" / "sweeps" / "a"
    assert record.tracking_uri == f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    with pytest.raises(InputError, match="there is no sweep 'b'"):
        find_sweep(tmp_path / "new", name="b")


@pytest.mark.parametrize("root", ["comparisons", "ablations", "reruns"])
def test_a_part_of_a_group_knows_it(tmp_path, root):
    record = make_sweep(tmp_path, [trial(rising(0.05), settings={"seed": 1}), trial(rising(0.06), settings={"seed": 2})],
                        name="c1--sasrec--seeds", space={"seed": [1, 2]})  # fmt: skip
    assert gather(record).group == ""
    (tmp_path / root / "c1").mkdir(parents=True)
    found = gather(record)
    assert found.group == f"{root[:-1]} c1" and found.parameters == []


def test_a_sweep_without_a_journal_is_empty(tmp_path):
    record = make_sweep(tmp_path, [], status="planned")
    found = gather(record)
    assert found.trials == {} and found.best is None and found.domains == []
    assert isinstance(found.record, SweepRecord) and metrics(0.1)["val/movie/mrr"] == pytest.approx(0.12)
