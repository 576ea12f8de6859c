"""The GPU benchmark at toy shapes on a CPU: every part runs, a failing one is reported, the time ends it."""

import io
import json
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_bench import DRY, REAL, Bench, Shape, movie_book


@pytest.fixture
def bench():
    return Bench(torch.device("cpu"), DRY)


def test_every_part_that_needs_no_further_process_runs_at_toy_shapes(bench, tmp_path, capsys):
    wanted = [name for name in gpu.PARTS if name != "processes"]
    found = gpu.run(bench, wanted, 5, tmp_path / "out.json")
    assert list(found) == ["machine", *wanted]
    assert not [part for part in found.values() if "failed" in part or "left out" in part], capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text()).keys() == found.keys()
    assert found["accuracy"]["gradients, fp32"] <= 1e-5
    assert found["accuracy"]["gradients, fp16 operands"] <= 5e-3
    assert found["operations"]["encoders, single / grouped"] >= 2
    assert found["operations"]["step, single / grouped"] > 1.5
    assert "needs a GPU" in found["kernel"]["kernel"]


def test_a_child_gets_ready_and_trains_on_a_word(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    gpu.child(bench, 0.05)
    ready, rate = capsys.readouterr().out.split()
    assert ready == "ready" and float(rate) > 0


def test_children_start_together_and_their_rates_add_up():
    pretend = "print('ready', flush=True); input(); print(3.5)"
    assert gpu.together([sys.executable, "-c", pretend], 2) == 7.0
    with pytest.raises(AssertionError, match="ready"):
        gpu.together([sys.executable, "-c", "print('broken')"], 1)


def test_a_part_that_fails_is_reported_and_the_time_ends_the_rest(bench, monkeypatch, capsys):
    def broken(bench):
        raise RuntimeError("no such thing\nmore")

    monkeypatch.setattr(gpu, "PARTS", {"broken": broken, "ceilings": gpu.ceilings})
    found = gpu.run(bench, ["broken", "ceilings"], 5, None)
    assert found["broken"] == {"failed": "RuntimeError: no such thing"}
    assert found["ceilings"]["TB/s, copy"] > 0
    assert "no such thing" in capsys.readouterr().out
    assert "0 minutes are spent" in gpu.run(bench, ["ceilings"], 0, None)["ceilings"]["left out"]


def test_histories_are_as_long_as_movie_books():
    shape = Shape(**{**vars(DRY), "sequences": 3000})
    train = movie_book(shape).train
    lengths = train.offsets[1:] - train.offsets[:-1]
    assert lengths.mean() == pytest.approx(11.98, abs=0.1) and lengths.max() <= 15
    of_x = (train.items < shape.num_x).mean()
    assert of_x == pytest.approx(4.79 / 9.65, abs=0.02)
    assert gpu.epoch_floor(Bench(torch.device("cpu"), REAL)) == pytest.approx(0.9, abs=0.35)


def test_without_a_gpu_it_asks_for_the_toy_shapes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == 2 and "--dry" in capsys.readouterr().err
