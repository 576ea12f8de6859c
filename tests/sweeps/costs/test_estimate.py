"""--estimate: extrapolation, the schedule of trials, halving against Ray's own, and processes that stand for trials."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from sweep_fakes import tiny_data

from llmemf import batches, training
from llmemf.batches import TrialData
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.scenarios.scenario import Sequences
from sweeps.core.plan import Options, plan_sweep
from sweeps.costs import estimate, halving_simulation
from sweeps.costs import trial as trial_costs
from sweeps.costs.classes import class_key
from sweeps.costs.estimate import gpu_share
from sweeps.costs.halving_simulation import cutoff, simulate
from sweeps.costs.probe import Measured, attach_data, measure, share_data
from sweeps.costs.processes import Probes, visible_gpus
from sweeps.costs.projection import Projected
from sweeps.costs.trial import trial_factors

SMALL = ["modalities=id", "id_dim=8", "batch_size=2"]


def make(*assignments, **options):
    return plan_sweep(Options(**{"scenario": "sample", "assignments": [*SMALL, *assignments], **options}))


def test_trials_take_the_next_free_slot():
    """By hand: t1 takes 1 + 2 x 1, t2 1 + 2 x 2; t3 follows t1 at 3 and ends at 6."""
    found = simulate([1, 2, 1], start_seconds=1, slots=2, epochs=2)
    assert (found.epochs, found.busy, found.wall) == (2, 11, 6)
    assert simulate([1, 2, 1], start_seconds=1, slots=1, epochs=2).wall == 11
    assert simulate([1, 2, 1], start_seconds=1, slots=9, epochs=2).wall == 5


@pytest.mark.parametrize("factor", [2, 3, 4.5])
def test_the_cutoff_is_numpys_quantile(factor):
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 10, 31):
        values = sorted(rng.standard_normal(count))
        assert cutoff(values, factor) == pytest.approx(np.percentile(values, (1 - 1 / factor) * 100), abs=1e-12)


def test_halving_stops_the_trials_that_rays_own_stops():
    """The same curves, one trial after the other, through the bracket of Ray's ASHA."""
    from ray.tune.schedulers.async_hyperband import _Bracket

    rungs, epochs, factor, trials = [2, 6, 18], 20, 3, 60
    shown = np.random.default_rng(1).standard_normal((trials, len(rungs)))
    bracket = _Bracket(min_t=2, max_t=20, reduction_factor=factor, s=0)
    total = 0
    for number in range(trials):
        trial = SimpleNamespace(trial_id=str(number))
        ran = epochs
        for epoch in range(1, epochs + 1):
            index = sum(rung <= epoch for rung in rungs) - 1
            value = shown[number, index] if index >= 0 else 0.0
            if epoch in rungs and bracket.on_result(trial, epoch, value) == "STOP":
                ran = epoch
                break
        total += ran
    found = halving_simulation._one([1.0] * trials, shown, 0.0, 1, epochs, rungs, factor)
    assert found == (total / trials, total, total)
    assert total < 0.7 * trials * epochs


def test_halving_lets_about_one_of_so_many_pass():
    """With many trials and one rung at epoch 1 of 10, a third goes on: 1 + 9 / 3 epochs in the mean."""
    found = simulate([1.0] * 3000, start_seconds=0, slots=1, epochs=10, rungs=[1], reduction_factor=3)
    assert found.epochs == pytest.approx(4, abs=0.2)
    assert found.wall == pytest.approx(found.busy)
    few = simulate([1.0] * 2, start_seconds=0, slots=2, epochs=10, rungs=[1], reduction_factor=3)
    assert few.epochs == pytest.approx(1 + 9 * 0.75, abs=0.7), "the first always goes on, the second half of the times"
    assert simulate([1.0] * 5, start_seconds=0, slots=1, epochs=10, rungs=[3], seed=3) == simulate(
        [1.0] * 5, start_seconds=0, slots=1, epochs=10, rungs=[3], seed=3
    )


def test_data_is_mapped_and_not_copied(tmp_path):
    data = tiny_data().trial_data
    with (tmp_path / "data").open("w+b") as file:
        found = attach_data(file.fileno(), share_data(data, file))
    assert found.fingerprint == data.fingerprint and found.domains == data.domains
    for one, two in ((found.train.items, data.train.items), (found.valid_candidates, data.valid_candidates)):
        assert np.array_equal(one, two) and one.dtype == two.dtype
        assert not one.flags.owndata and not one.flags.writeable


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
    assert spent < 1.2 * seconds + 5 * (0.5 + 0.36), "one step and two batches per domain are the least"
    assert (steps == 13 and cases == 60) == (seconds == 300)


def test_a_real_trial_is_measured():
    found = measure(make().configs[0], big_data(), 0.5)
    assert found.train > 0 and found.valid > 0 and found.save > 0 and found.build > 0
    assert 0 < found.private < found.memory and found.libraries <= found.memory
    assert found.gpu_memory == 0 and found.device == "CPU"


def test_trials_cost_what_their_settings_cost(project_folder):
    """Half the cost without lambda1, three times with 4 layers; what Optuna proposes later costs the mean of the layers."""
    plan = make("lambda1=0,0.1,0.3", "encoder_layers=2,4", trials=20, grid_points=12)
    ratios = []
    for block in plan.space.blocks:
        keys = {class_key(block, point) for point in block.points} or {(False,)}
        special = {"lambda1": {(True,): 0.5, (False,): 1.0}, "encoder_layers": {(2,): 1.0, (4,): 3.0}}
        ratios.append(special.get(block.keys[0], dict.fromkeys(keys, 1.0)))
    factors = trial_factors(plan, ratios)
    expected = [(0.5 if p["lambda1"] == 0 else 1) * (3 if p["encoder_layers"] == 4 else 1) for p in plan.points]
    assert factors[:12] == pytest.approx(expected) and set(expected) == {0.5, 1, 1.5, 3}
    assert factors[12:] == pytest.approx([2.0] * 8)


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
    assert visible_gpus(0, 0, "1") is None


def test_an_estimate_from_end_to_end(project_folder, monkeypatch):
    for name in ("TYPICAL_SECONDS", "KIND_SECONDS", "ENDS_SECONDS", "CROWD_SECONDS"):
        monkeypatch.setattr(trial_costs, name, 0.1)
    monkeypatch.setattr(estimate, "machine", lambda: {"CPU": 2.0, "GPU": 0.0})
    plan = make("lambda1=0,0.5", trials=30, epochs=9, stack=2)
    console = Console(file=io.StringIO(), width=160, highlight=False)
    found = estimate.estimate(plan, tiny_data(), 2, console, gpu_price=2.0)
    text = console.file.getvalue()
    assert found.together == 2 and found.crowded >= 1
    assert 1 < found.expected_epochs < 9 and found.expected < found.at_most
    assert found.at_most > estimate.SWEEP_START + 30 / 2 * found.start
    assert found.gpu_share is None and found.gpu_hours == 0 and found.disk.fits
    for phrase in ("training +", "with 2 at once", "before a trial's first step", "without early stopping", "with ASHA",
                   "expectation over simulated sweeps", "cheapest", "projected, not measured", "10 x items",
                   "this size, one H200", "docs/scale.md", "all times are of single trials"):  # fmt: skip
        assert phrase in text, phrase
    assert found.calibration.device.flops > 1e8 and found.calibration.device.bandwidth > 1e7
    assert not list(project_folder.iterdir()), "an estimate leaves nothing behind"


def test_projected_sweeps_and_their_money(project_folder):
    """By hand: 10 trials of 4 expected epochs, 2 s to start; 20 s epochs on 2 slots that slow each other 1.5 times."""
    typical = Measured(1, 15, 5, 0, 1, 1, 0, 0, 0)
    found = SimpleNamespace(typical=typical, crowded=1.5, epoch=1.5 * 20, start=2.0, expected_epochs=4.0)
    plan = SimpleNamespace(trials=10)
    here = Projected("here", 15, 5, 0, on_device=0, walls=[])
    assert estimate.projected_sweep(plan, found, here, 2) == pytest.approx(estimate.SWEEP_START + 10 * (2 + 4 * 30) / 2)
    gpu = Projected("gpu", 1, 0.5, 0, on_device=1e9, walls=[])
    assert estimate.projected_sweep(plan, found, gpu, 2) == pytest.approx(estimate.SWEEP_START + 10 * (2 + 4 * 1.5))


def test_other_systems_are_not_projected(project_folder):
    config = model_class("sasrec").config_class()
    assert estimate._calibration(None, SimpleNamespace(config=config), 1) is None


def test_what_a_trial_says_is_said(project_folder):
    plan = make()
    record = plan.record
    with Probes(tiny_data().trial_data, record) as probes:
        probes.start(1)
        assert probes.imports > 0.5
        bad = plan.configs[0].model_copy(update={"modalities": ("id", "text")})
        with pytest.raises(InputError, match="a trial cannot run: .*text"):
            probes.measure([bad], 0.1)
        assert isinstance(probes.measure([plan.configs[0]], 0.1)[0], Measured), "and it goes on"
        probes._processes[0].kill()
        with pytest.raises(InputError, match="memory ran out|ended early"):
            probes.measure([plan.configs[0]], 0.1)


def test_a_machine_without_room_is_told(project_folder, monkeypatch):
    monkeypatch.setattr(estimate, "machine", lambda: {"CPU": 2.0, "GPU": 0.0})
    with pytest.raises(InputError, match="asks for 1 GPUs.*run the estimate on a machine like those of the trials"):
        estimate.estimate(make(gpus_per_trial=1), tiny_data(), 1, Console(file=io.StringIO()))
