import math

import numpy as np
from sweep_fakes import FakeTrainer

from sweeps.state.metrics import epoch_result, metrics_of
from sweeps.state.sweep_state import SweepState

REPORT = {"epoch": np.int64(3), "best_epoch": 2, "objective": np.float64(0.25), "stopped_early": np.bool_(True)}


def test_plain_types_and_finite_values_only():
    found = epoch_result({**REPORT, "train/loss": math.inf, "val/mrr": math.nan, "gpu_mem_gb": 1.5, "odd": 1})
    assert found == {"epoch": 3, "best_epoch": 2, "objective": 0.25, "gpu_mem_gb": 1.5, "stopped_early": True}
    assert {type(value) for value in found.values()} == {int, float, bool}


def test_nothing_of_the_test_split_or_of_tune_enters_the_event_log(tmp_path):
    state = SweepState(tmp_path)
    record = state.propose({"lr": 0.1, "alpha": 0.4, "lambda1": 0.0}, ["lr"], 2, {})
    leaking = next(FakeTrainer({"lr": 1e-3, "alpha": 0.4, "lambda1": 0.0, "epochs": 2}).epochs())
    assert any(name.startswith("test") for name in leaking)
    state.add(record, {**leaking, "pid": 7, "config": {"lr": 0.1}, "time_total_s": 3.0, "testing": 1.0}, stopped=False)
    assert "val/mrr" in record.latest and not [name for name in record.latest if name.startswith("test")]
    text = (tmp_path / "journal.jsonl").read_text()
    assert '"test' not in text and "pid" not in text and "time_total_s" not in text


def test_metrics_of_an_epoch_are_all_but_its_progress():
    assert metrics_of(epoch_result({**REPORT, "val/mrr": 0.1})) == {"objective": 0.25, "val/mrr": 0.1}
