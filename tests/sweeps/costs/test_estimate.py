"""--estimate: extrapolation, ASHA's share of the epochs, and processes that stand for trials."""

import io
import multiprocessing

import numpy as np
import pytest
import torch
from rich.console import Console
from sweep_fakes import tiny_data

from llmemf import batches, training
from llmemf.batches import TrialData
from llmemf.errors import InputError
from llmemf.scenarios.sequences import Sequences
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.resume import plan_resume
from sweeps.costs import estimate
from sweeps.costs import measure as measuring
from sweeps.costs.estimate import gpu_share, num_left, sampled_configs, scale
from sweeps.costs.measure import TrialCost, TrialProcesses, measure, visible_gpus
from sweeps.search.rungs import expected_epochs
from sweeps.state.sweep_state import SweepState

SMALL = ["modalities=id", "id_dim=8", "batch_size=2"]


def make(*assignments, **options):
    return plan_sweep(Options(**{"scenario": "sample", "assignments": [*SMALL, *assignments], **options}))


def data_in_a_process():
    data = measuring._data
    arrays = data.train.items, data.valid_candidates
    return data.fingerprint, [(array.copy(), array.flags.owndata, array.flags.writeable) for array in arrays]


@pytest.mark.slow
def test_data_is_mapped_and_not_copied(project_folder, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    data = tiny_data().trial_data
    with TrialProcesses(data, make().record, 1) as processes:
        fingerprint, found = processes._pool.submit(data_in_a_process).result()
    assert fingerprint == data.fingerprint
    for (array, owns, writeable), expected in zip(found, (data.train.items, data.valid_candidates), strict=True):
        assert np.array_equal(array, expected) and array.dtype == expected.dtype and not owns and not writeable


class FormulaTrainer:
    """Half a second per step and 0.2 s + 10 ms per case, by formula; the first epoch takes much longer."""

    device = torch.device("cpu")

    def __init__(self, config, data):
        self.config, self.data, self.first = config, data, True
        self.train_sequences = batches.device_sequences(config, data, "train", "cpu")
        self.valid_cases = None
        self.pieces = []

    def epochs(self):
        while True:
            steps = -(-len(self.train_sequences) // self.config.batch_size)
            slow = 50 if self.first else 1
            self.first = False
            seconds = {
                "seconds_train": slow * 0.5 * steps,
                "seconds_valid": slow * (0.2 + 0.01 * len(self.valid_cases)),
            }
            self.pieces.append((steps, len(self.valid_cases)))
            yield seconds

    def save(self, folder):
        """Nothing to write."""


def big_data():
    """100 training sequences, 60 validation cases."""
    tiny = tiny_data().trial_data
    held = Sequences.from_rows(range(60), [[0, 3, case % 6] for case in range(60)])
    return TrialData(
        domains=tiny.domains,
        num_x=3,
        num_items=6,
        num_users=100,
        train=Sequences.from_rows(range(100), [[0, 3, 1, 4]] * 100),
        valid=held,
        valid_candidates=np.zeros((60, 2), dtype=np.int32),
        text=None,
        image=None,
        fingerprint="x",
    )


@pytest.mark.parametrize("seconds", [3.0, 30.0, 300.0])
def test_pieces_of_epochs_are_scaled_up_without_the_warm_up(monkeypatch, seconds):
    made = []
    monkeypatch.setattr(training, "Trainer", lambda config, data: made.append(FormulaTrainer(config, data)) or made[0])
    config = make("eval_batch_size=4").configs[0].model_copy(update={"batch_size": 8})
    found = measure(config, big_data(), seconds)
    assert found.train == pytest.approx(13 * 0.5) and found.valid == pytest.approx(0.2 + 0.01 * 60)
    assert found.epoch == found.train + found.valid
    steps, cases = made[0].pieces[-1]
    assert (steps, cases) == (found.steps, found.cases)
    spent = sum(0.5 * steps + 0.2 + 0.01 * cases for steps, cases in made[0].pieces[2:])
    assert spent < 1.2 * seconds + 3 * (0.5 + 0.36), "one step and two batches per domain are the least"
    assert (steps == 13 and cases == 60) == (seconds == 300)


def test_a_real_trial_is_measured():
    found = measure(make().configs[0], big_data(), 0.2)
    assert found.train > 0 and found.valid > 0 and found.save > 0 and found.build > 0
    assert 0 < found.private < found.memory
    assert found.gpu_memory == 0 and found.device == "CPU"


def test_trials_are_sampled_over_the_grid_points_and_the_later_proposals(project_folder):
    plan = make("lambda1=0.0,0.5,1.0", "encoder_layers=1,2", trials=20, grid_points=10)
    configs = sampled_configs(plan, 10)
    on_grid = [config.lambda1 in (0.0, 0.5, 1.0) for config in configs]
    assert on_grid == [True] * 5 + [False] * 5, "proposals lie between the grid values"
    points = [plan.points[place] for place in (0, 2, 4, 6, 8)]
    assert [(c.lambda1, c.alpha) for c in configs[:5]] == [(p["lambda1"], p["alpha"]) for p in points]
    assert sampled_configs(plan, 10) == configs
    drawn = sampled_configs(make("encoder_layers=1,2", trials=40, search="random"), 40)
    assert {config.encoder_layers for config in drawn} == {1, 2}
    assert 0.2 < np.mean([config.lambda1 for config in drawn]) < 0.8


def cost(train, valid=1.0, **others):
    return TrialCost(**{"build": 2.0, "train": train, "valid": valid, "save": 0.5, "steps": 1, "cases": 1, "memory": 9,
                        "private": 6, **others})  # fmt: skip


def test_a_sweep_is_scaled_up_from_its_trials(project_folder):
    """By hand: epochs of 5 and 11 s; 2 s to build, 2 of 10 trials wait for a process of 4 + 1 s; 2 saves of 0.5 s."""
    plan, data = (
        make(trials=10, epochs=6, scheduler="asha", grace_period=2, reduction_factor=4, gpus_per_trial=1),
        tiny_data(),
    )
    assert plan.rungs == [2]
    found = scale(plan, data, 2, [cost(4), cost(10)], cost(12, memory=20), 2, 4.0)
    assert (found.mean("epoch"), found.highest("memory"), found.start) == (8, 20, 3)
    once = estimate.SWEEP_START + 1.0 * 2 / 2
    share = expected_epochs(10, 6, [2], 4)
    assert plan.most_repeats == 2, "the best two run again, both at once"
    assert found.at_most == pytest.approx(once + (5 + 1) * (3 + 1 + 6 * 8))
    assert found.expected == pytest.approx(once + 5 * (3 + 1 + share * 8) + 52) and found.epochs == share
    assert found.gpu_hours == pytest.approx((10 * (4 + share * 8) + 2 * 52) / 3600)
    assert found.gpu_hours_at_most == pytest.approx(12 * 52 / 3600)
    few = scale(make(trials=2, epochs=6, grace_period=2), data, 2, [cost(7)], cost(7), 2, 4.0)
    assert few.expected == few.at_most, "one trial runs to its end, beside the other"


def test_of_a_resumed_sweep_what_is_left_is_counted(project_folder):
    plan = make(trials=6, grid_points=4, epochs=6, grace_period=2, name="s1")
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    state = SweepState(plan.record.folder)
    for point in plan.points[:4]:
        record = state.propose(point, plan.space.varied_keys, 6, {})
        state.start(record)
        result = {"epoch": 2, "objective": 0.1, "best_epoch": 2, "stopped_early": False}
        state.add(record, result, stopped=record.number < 4)
    plan = plan_resume(Options(name="s1"))
    assert num_left(plan) == 3
    found = scale(plan, tiny_data(), 1, [cost(4)], cost(4), 1, 4.0)
    epochs = 6 * expected_epochs(6, 6, [2], 3) - 3 * expected_epochs(3, 6, [2], 3)
    assert found.epochs == pytest.approx(epochs / 3) and found.epochs < expected_epochs(6, 6, [2], 3)
    once, around = estimate.SWEEP_START + 1.0, 2 + (4 + 1) / 3 + 1
    assert found.at_most == pytest.approx(once + 3 * (around + 6 * 5))
    assert found.expected == pytest.approx(once + 3 * (around + found.epochs * 5))


@pytest.mark.parametrize("gigabytes", [0.3, 1, 3, 7, 11, 19, 30, 60])
def test_the_share_of_a_gpu_packs_as_many_trials_as_its_memory_holds(gigabytes):
    total, used = 80 * 2**30, int(gigabytes * 2**30)
    share = gpu_share(used, total)
    fit = int(1 / share + 1e-9)
    assert fit * (used + estimate.CUDA_CONTEXT) <= estimate.GPU_FILLED * total or fit == 1
    assert (fit + 1) * (used + estimate.CUDA_CONTEXT) > estimate.GPU_FILLED * total
    assert gpu_share(0, 0) is None


def test_gpus_are_dealt_as_ray_deals_them():
    assert [visible_gpus(index, 0.5, None) for index in range(4)] == ["0", "0", "1", "1"]
    assert [visible_gpus(index, 2, None) for index in range(2)] == ["0,1", "2,3"]
    assert [visible_gpus(index, 0.25, "4,6") for index in (0, 3, 4)] == ["4", "4", "6"]
    assert visible_gpus(0, 0, "1") == ""


@pytest.mark.slow
def test_an_estimate_from_end_to_end(project_folder, monkeypatch):
    monkeypatch.setattr(estimate, "TRIALS_SECONDS", 0.4)
    monkeypatch.setattr(estimate, "MEASURED_TRIALS", 4)
    monkeypatch.setattr(estimate, "machine", lambda: {"CPU": 2.0, "GPU": 0.0})
    monkeypatch.setenv("RAY_worker_niceness", "0")
    plan = make("lambda1=0,0.5", trials=30, epochs=9)
    console = Console(file=io.StringIO(), width=160, highlight=False)
    found = estimate.estimate(plan, tiny_data(), 2, console, gpu_price=2.0)
    text = console.file.getvalue()
    assert found.together == 2 and len(found.trials) == 3
    assert 1 < found.epochs < 9 and found.expected < found.at_most
    assert found.at_most > estimate.SWEEP_START + 30 / 2 * found.start
    assert found.gpu_hours == 0 and "--gpus-per-trial" in text.partition("money")[2]
    for row in ("sweep", "device", "epoch", "start", "memory", "one trial", "at most", "expected", "disk", "assumed"):
        assert f"\n{row} " in text or f"\n{row}\n" in text, row
    assert not list(project_folder.iterdir()), "an estimate leaves nothing behind"


@pytest.mark.slow
def test_processes_report_what_a_trial_says_and_their_own_end(project_folder, tmp_path, monkeypatch):
    """They find modules where this one does, as where the package is not installed: no PYTHONPATH leads there."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "only_there.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    import only_there

    plan = make()
    with TrialProcesses(tiny_data().trial_data, plan.record, 2) as processes:
        assert processes.start_seconds > 0.1 and len(multiprocessing.active_children()) == 2
        assert processes._pool.submit(only_there.answer).result() == 42
        bad = plan.configs[0].model_copy(update={"modalities": ("id", "text")})
        with pytest.raises(InputError, match="a trial cannot run: .*text"):
            processes.measure([bad], 0.1)
        assert len(processes.measure([plan.configs[0]] * 2, 0.1)) == 2, "they are ready for the next one"
        multiprocessing.active_children()[0].kill()
        with pytest.raises(InputError, match="ended early"):
            processes.measure([plan.configs[0]] * 2, 0.1)


def test_a_machine_without_room_is_told(project_folder, monkeypatch):
    monkeypatch.setattr(estimate, "machine", lambda: {"CPU": 2.0, "GPU": 0.0})
    with pytest.raises(InputError, match="1 GPU.*--gpus-per-trial.*a machine like those of the trials"):
        estimate.estimate(make(gpus_per_trial=1), tiny_data(), 1, Console(file=io.StringIO()))


def test_an_estimate_refuses_a_device_that_is_not_here(project_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="cuda"):
        estimate.estimate(make("device=cuda", gpus_per_trial=0), tiny_data(), 1, Console(file=io.StringIO()))
