"""What --dry-run shows, and the sizes behind it against models and checkpoints that really exist."""

import io
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from rich.console import Console
from sweep_fakes import tiny_data, tiny_scenario

from llmemf.batches import TrialData
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.models.recommender import num_parameters
from llmemf.training import Trainer
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.resume import plan_resume
from sweeps.core.sweep_data import SweepData
from sweeps.costs import disk_need as needs
from sweeps.costs.dry_run import print_dry_run, remaining
from sweeps.search.search import SweepSearch
from sweeps.state.sweep_state import SweepState

SMALL = ["modalities=id", "id_dim=8", "batch_size=2"]


@pytest.fixture
def data():
    return tiny_data()


def make(*assignments, **options):
    return plan_sweep(Options(**{"scenario": "sample", "assignments": [*SMALL, *assignments], **options}))


def shown(plan, data, parallel=2, *, terminal=False):
    console = Console(file=io.StringIO(), width=160, force_terminal=terminal, color_system=None, highlight=False)
    print_dry_run(plan, data, parallel, console)
    return console.file.getvalue()


def test_every_point_is_listed_and_what_comes_later_is_counted(project_folder, data):
    plan = make(trials=120, grid_points=100)
    text = shown(plan, data)
    lines = [line.split() for line in text.splitlines()]
    rows = [line for line in lines if line and line[0].startswith("t") and line[0][1:].isdecimal() and line[1] != "to"]
    assert [row[0] for row in rows] == [f"t{number:02d}" for number in range(1, 101)]
    assert ["trial", "lr", "l2", "alpha", "beta", "lambda1", "lambda2"] in lines
    first = plan.points[0]
    assert [float(value) for value in rows[0][1:]] == [first[key] for key in plan.space.varied_keys]
    assert "t101 to t120: 20 more" in text
    assert "nothing was started or written" in text and not list(project_folder.iterdir())


def test_the_spread_points_of_a_search_by_a_model_are_those_that_it_proposes(project_folder, tmp_path):
    plan = make(trials=9)
    (tmp_path / "s1").mkdir()
    state = SweepState(tmp_path / "s1")
    search = SweepSearch(
        plan.space, state, method=plan.record.search, trials=9, epochs=3, points=plan.points, seed=plan.record.seed
    )
    _, points, later = remaining(plan, SweepState(tmp_path / "s2"))
    proposed = [search.suggest(f"t{index}") for index in range(4)]
    assert points == [{key: config[key] for key in plan.varied_keys} for config in proposed] and later == 5
    assert remaining(plan, state)[1] == []


def test_a_terminal_gets_the_first_rows_of_a_long_list(project_folder, data):
    text = shown(make(trials=120, grid_points=100), data, terminal=True)
    assert "t40" in text and "t41" not in text and "... and 60 more; add | less" in text
    assert "more; add" not in shown(make(trials=80, grid_points=40), data, terminal=True)


def test_what_constraints_drop_is_counted_with_its_reason(project_folder, data):
    text = shown(make(), data)
    assert "dropped  55 combinations: alpha + beta <= 1" in text
    # Ids alone with alpha = 0 have no weight: 11 of the 66 pairs that the simplex leaves.
    assert "dropped  11 combinations" in text and "no weight" in text
    assert "grid     5,280 of 11,616 points are left" in text


def test_resources_of_the_machine(project_folder, data, monkeypatch):
    monkeypatch.setattr("sweeps.costs.dry_run.machine", lambda: {"CPU": 8.0, "GPU": 1.0})
    plan = make(cpus_per_trial=3, gpus_per_trial=0.5)
    text = shown(plan, data, 2)
    assert "3 CPUs, 0.5 GPUs" in text and "8 CPUs, 1 GPU: 2 trials at once, 2 CPUs idle" in text
    text = shown(make(ray_address="10.0.0.1:6379", concurrency=7, gpus_per_trial=1), data, 7)
    assert "10.0.0.1:6379, which a dry run does not ask; 7 at once" in text and "\nmachine" not in text


def test_a_cluster_of_ray_up_shows_what_it_may_start(project_folder, data, monkeypatch):
    description = project_folder / "ray_bootstrap_config.yaml"
    description.write_text(
        "head_node_type: head\nmax_workers: 5\navailable_node_types:\n"
        "  head: {resources: {CPU: 0}}\n  spot: {resources: {CPU: 8, GPU: 1}, max_workers: 4}\n"
    )
    monkeypatch.setattr("sweeps.costs.dry_run.BOOTSTRAP", description)
    text = shown(make(ray_address="auto", gpus_per_trial=0.25), data, 1)
    assert "at most 4 of spot" in text and "4 trials each" in text and "16 trials at once when it has grown" in text


def test_a_disk_that_is_too_small_is_told(project_folder, data, monkeypatch):
    plan = make(trials=12)
    need = needs.disk_need(plan, data.trial_data, 2)
    assert need.total == need.running + need.kept + need.artifacts + need.records and need.where == project_folder
    assert "free some, give another --storage" not in shown(plan, data)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, need.total - 1))
    assert "free some, give another --storage" in shown(plan, data)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, need.total))
    assert "free some, give another --storage" not in shown(plan, data)


def test_a_server_keeps_the_artifacts(project_folder, data):
    here = needs.disk_need(make(keep=3), data.trial_data, 2)
    there = needs.disk_need(make(keep=3, tracking_uri="http://127.0.0.1:5000"), data.trial_data, 2)
    assert here.artifacts == 3 * here.model.best and there.artifacts == 0
    assert needs.disk_need(make(keep=6), data.trial_data, 4).running == 2 * here.running


def test_data_that_is_not_made_yet(project_folder):
    assert "known once sample has been made" in shown(make(), None)


def test_a_resumed_sweep_shows_what_is_left(project_folder, data):
    plan = make(trials=6, grid_points=4, name="s1")
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    state = SweepState(plan.record.folder)
    for point in plan.points[:2]:
        record = state.propose(point, plan.space.varied_keys, 6, {})
        state.start(record)
        result = {"epoch": 1, "objective": 0.1, "best_epoch": 1, "stopped_early": False}
        state.add(record, result, stopped=record.number == 1)
    text = shown(plan_resume(Options(name="s1")), data)
    assert "1 trial of 6 ended already" in text
    names = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0][1:].isdecimal()]
    assert names == ["t02", "t03", "t04", "t05"] and "continues after epoch 1" in text
    assert "t05 to t06: 2 more" in text


@pytest.mark.parametrize("selection", ["joint", "per_domain"])
def test_sizes_are_those_of_a_real_model_and_checkpoint(tmp_path, project_folder, selection):
    data = tiny_data().trial_data
    config = make("id_dim=300", f"selection={selection}").configs[0]
    size = needs.model_size(config, data)
    trainer = Trainer(config.model_copy(update={"epochs": 1}), data)
    assert size.weights == num_parameters(trainer.model)
    list(trainer.epochs())
    trainer.save(tmp_path / "c")
    written = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    assert size.checkpoint <= written < 1.03 * size.checkpoint + 100_000
    best = (tmp_path / "c" / "best.safetensors").stat().st_size
    assert size.best <= best < 1.03 * size.best + 20_000


def test_frozen_features_are_in_no_checkpoint_and_cost_no_memory_to_count():
    scenario = tiny_scenario()
    rows = np.zeros((scenario.num_items, 64), dtype=np.float32)
    rows[:, 0] = 1
    text = FeatureMatrix("text", "offline", rows, np.ones(len(rows), dtype=bool), scenario.items_hash())
    data = SweepData(scenario, {"text": text}, TrialData.build(scenario, text=text))
    plan = make("modalities=id,text", "beta=0", "item_projection=none")
    wide = needs.model_size(plan.configs[0], data.trial_data)
    model = Trainer(plan.configs[0], data.trial_data).model
    assert wide.weights == num_parameters(model)
    assert wide.best == sum(t.numel() * t.element_size() for t in model.trainable_state().values())


def test_the_largest_model_of_the_space_counts(project_folder, data):
    largest = needs.largest_config(make("id_dim=8,64,16", "encoder_layers=3,1"), data.trial_data)
    assert (largest.id_dim, largest.encoder_layers) == (64, 3)
    need = needs.disk_need(make("id_dim=8,64,16", "encoder_layers=3,1"), data.trial_data, 2)
    assert need.model == needs.model_size(largest, data.trial_data)


def test_values_that_give_a_model_of_the_same_size_are_built_once(project_folder, data, monkeypatch):
    """Of 66 pairs: inside the triangle, on each of its three edges, at each of its three corners."""
    counted = []
    size = needs.model_size
    monkeypatch.setattr(needs, "model_size", lambda config, data: counted.append(config) or size(config, data))
    needs.largest_config(plan_sweep(Options(scenario="sample", assignments=["modalities=id"])), data.trial_data)
    pairs = {(config.alpha, config.beta) for config in counted}
    assert 2 <= len(pairs) <= 8


def test_a_device_that_is_not_here_is_refused_as_training_refuses_it(project_folder, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    plan = make("device=cuda", gpus_per_trial=0)
    with pytest.raises(InputError) as training:
        Trainer(plan.configs[0], data.trial_data)
    with pytest.raises(InputError, match="cuda") as dry_run:
        shown(plan, data)
    assert str(dry_run.value) == str(training.value)
    elsewhere = make("device=cuda", gpus_per_trial=1, ray_address="10.0.0.1:6379")
    assert "10.0.0.1:6379" in shown(elsewhere, data), "the cluster may have one"


def test_a_gpu_that_no_trial_reserves_is_refused(project_folder, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="device = cuda with --gpus-per-trial 0"):
        shown(make("device=cuda", gpus_per_trial=0), data)
    assert "1 GPU" in shown(make("device=cuda", gpus_per_trial=1), data)
