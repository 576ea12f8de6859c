"""Replays over made-up curves: what a search spends and finds is counted by hand, and a real sweep does the same."""

import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import search_efficiency
from curves import Curves, gather
from outcomes import Outcome, correlations, landscape, mean_difference
from replay import Choices, Course, draw_seeds, epoch_result, replay_grid, replay_sweep, replay_top

from llmemf.errors import InputError
from sweeps.search.space_entries import build_space
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState

FAKES = str(Path(__file__).resolve().parents[1] / "sweeps")


def table(values, epochs, seeds=(0,), shape=None):
    """Rows of settings a, b, ... whose curves are `values(point, seed, epoch)`, the point being a tuple of settings."""
    rows = []
    for point in itertools.product(*shape.values()):
        for seed, epoch in itertools.product(seeds, range(1, epochs + 1)):
            value = values(dict(zip(shape, point)), seed, epoch)
            rows.append({**dict(zip(shape, point)), "seed": seed, "epoch": epoch, "objective": value, "val_mrr": value})
    return pd.DataFrame(rows)


def flat(values, order=0, epochs=9):
    """One setting with as many points as values: the sweep of seed `order` meets them in this order, constant curves."""
    count = len(values)
    space = build_space({"lr": [0.1 * (n + 1) for n in range(count)]})
    met = {point["lr"]: value for point, value in zip(space.shuffled(order), values)}
    shape = {"lr": list(met)}
    return Curves.from_table(table(lambda point, seed, epoch: met[point["lr"]], epochs, shape=shape))


def none(curves):
    return np.zeros(len(curves.final), dtype=int)


def test_a_table_becomes_curves_in_the_order_of_the_space_whatever_its_own():
    shape = {"lr": [0.01, 0.001], "kind": ["mlp", "linear"], "alpha": [0.5, 0.1, 0.9]}

    def value(point, seed, epoch):
        return 100 * point["lr"] + 10 * (point["kind"] == "mlp") + point["alpha"] + 0.01 * seed + 0.001 * epoch

    rows = table(value, 3, (4, 7), shape).sample(frac=1, random_state=0)
    curves = Curves.from_table(rows)
    assert curves.objective.shape == (12, 2, 3) and curves.seeds == (4, 7)
    for index in range(12):
        point = curves.space.point(index)
        assert curves.objective[index, 1, 2] == value(point, 7, 3)
        assert curves.mixture(point) == [(index, 1.0)]
        assert curves.final[index] == pytest.approx(value(point, 5.5, 3))


def test_seeds_that_lack_an_epoch_are_left_out_and_named():
    rows = table(lambda p, s, e: p["lr"], 3, (0, 1), {"lr": [0.1, 0.2]})
    curves = Curves.from_table(rows.drop(rows.index[(rows.seed == 1) & (rows.epoch == 2) & (rows.lr == 0.2)]))
    assert curves.seeds == (0,) and curves.left_out == (1,)
    with pytest.raises(InputError, match="no seed has all 2 points to epoch 3"):
        Curves.from_table(rows.drop(rows.index[(rows.epoch == 2) & (rows.lr == 0.2)]))


def test_a_table_that_is_no_whole_grid_is_refused():
    rows = table(lambda p, s, e: 1.0, 2, (0,), {"lr": [0.1, 0.2], "alpha": [0.3, 0.4]})
    with pytest.raises(InputError, match="not a whole grid: 4 points of lr, alpha"):
        Curves.from_table(rows[~((rows.lr == 0.1) & (rows.alpha == 0.3))])
    with pytest.raises(InputError, match="stands twice"):
        Curves.from_table(pd.concat([rows, rows[:1]]))
    with pytest.raises(InputError, match="lacks the column seed"):
        Curves.from_table(rows.drop(columns="seed"))


def test_settings_between_grid_points():
    shape = {"lr": [0.001, 0.01, 0.1], "alpha": [0.0, 1.0]}
    rows = table(lambda p, s, e: np.log10(p["lr"]) + 5 + 3 * p["alpha"], 2, (0,), shape)
    curves = Curves.from_table(rows)
    # On a log scale, in thirds, 0.004 belongs to 0.001 and 0.006 to 0.01; on a linear one both would belong to 0.001.
    for lr, alpha, expected in [(0.004, 0.4, (0.001, 0.0)), (0.006, 0.6, (0.01, 1.0)), (0.03, 0.1, (0.1, 0.0))]:
        ((index, weight),) = curves.mixture({"lr": lr, "alpha": alpha})
        assert tuple(curves.space.point(index).values()) == expected and weight == 1
    # This surface is linear in log lr and alpha: interpolation meets it everywhere.
    for lr, alpha in [(0.002, 0.4), (0.05, 0.9), (0.1, 1.0), (0.001, 0.0)]:
        mixture = curves.mixture({"lr": lr, "alpha": alpha}, "linear")
        assert sum(weight for _, weight in mixture) == pytest.approx(1)
        assert curves.truth(mixture) == pytest.approx(np.log10(lr) + 5 + 3 * alpha)
        assert curves.curve(mixture, none(curves)) == pytest.approx(curves.truth(mixture))


def test_a_random_draw_meets_all_points_of_an_even_grid_alike():
    shape = {"lr": [0.001, 0.01, 0.1], "alpha": [0.0, 1.0]}
    curves = Curves.from_table(table(lambda p, s, e: 1.0, 1, (0,), shape))
    draws = np.random.default_rng(0).random((6000, 2))
    met = [curves.mixture({"lr": 10 ** (2 * u - 3), "alpha": v})[0][0] for u, v in draws]
    assert np.bincount(met, minlength=6) == pytest.approx(1000, abs=120)


def test_halving_spends_what_a_hand_computation_says():
    """Rungs 1 and 3: 1 < 2 ends at once; 3 goes on; 1.9 is below the 2/3 quantile 2 1/3 of 1, 2, 3."""
    curves = flat([2.0, 1.0, 3.0, 1.9])
    course = replay_sweep(curves, Choices("grid", grace_period=1, trials=4), 0, none(curves))
    assert course.trials == (9, 1, 9, 1)
    assert course.incumbents.tolist() == [2.0] * 10 + [3.0] * 10
    assert course.spent == course.rounds == 20 and course.reached(0.99 * 3) == 11


def test_workers_train_side_by_side():
    """The second ends in round 1, the third has its place from round 2 to 10, the fourth takes that of the first."""
    curves = flat([2.0, 1.0, 3.0, 1.9])
    course = replay_sweep(curves, Choices("grid", grace_period=1, trials=4, workers=2), 0, none(curves))
    assert course.trials == (9, 1, 9, 1) and course.spent == 20 and course.rounds == 10
    # Round 1 charges two epochs, round 2 the first trial's, then the third's, which leads.
    assert course.reached(3.0) == 4


def test_patience_ends_a_trial_by_the_rule_of_the_trainer():
    curve = np.array([1.0, 2.0, 2.0, 2.0, 5.0])
    found = [epoch_result(curve, epoch, 2) for epoch in range(1, 6)]
    assert [result["best_epoch"] for result in found] == [1, 2, 2, 2, 5]
    assert [result["stopped_early"] for result in found] == [False, False, False, True, False]
    assert not any(epoch_result(curve, epoch, 0)["stopped_early"] for epoch in range(1, 6))
    rows = table(lambda p, s, e: curve[e - 1], 5, (0,), {"lr": [0.1, 0.2]})
    curves = Curves.from_table(rows)
    assert replay_grid(curves, 0, none(curves), patience=2).trials == (4, 4)
    course = replay_sweep(curves, Choices("grid", "none", patience=2), 0, none(curves))
    assert course.trials == (4, 4)


@pytest.mark.parametrize("order", range(5))
def test_the_plain_grid_is_a_set_of_nested_loops(order):
    shape = {"lr": [0.1, 0.2, 0.3], "alpha": [0.4, 0.5], "beta": [0.0, 0.1]}
    curves = Curves.from_table(table(lambda p, s, e: p["lr"], 2, (0,), shape))
    course = replay_grid(curves, order, none(curves))
    assert course.spent == 24 and len({json.dumps(settings) for settings in course.settings}) == 12
    # In nested loops each setting changes 2, 3 or 5 (6, 7, 8, 11) times; the innermost one at every step.
    changes = [sum(a[key] != b[key] for a, b in itertools.pairwise(course.settings)) for key in shape]
    assert max(changes) == 11 and min(changes) in (1, 2)


def test_random_order_runs_each_point_once_to_its_end():
    curves = flat([float(n) for n in (3, 1, 4, 1.5, 5, 9, 2, 6)], order=3)
    course = replay_sweep(curves, Choices("grid", "none"), 3, none(curves))
    # The order of `flat` is the sweep's own: the best value is the sixth.
    assert course.trials == (9,) * 8 and course.reached(9.0) == 5 * 9 + 1


def test_one_epoch_then_the_best_few():
    """Best after one epoch are 0.4 and 0.3; the end turns them round, and 0.1 would have beaten both."""
    final = {0.1: 9.0, 0.2: 2.0, 0.3: 8.0, 0.4: 7.0}
    rows = table(lambda p, s, e: p["lr"] if e == 1 else final[p["lr"]], 3, (0,), {"lr": list(final)})
    curves = Curves.from_table(rows)
    course = replay_top(curves, 0, none(curves), first=1, keep=2)
    assert course.spent == 4 + 2 * 2
    assert dict(zip((s["lr"] for s in course.settings), course.trials)) == {0.1: 1, 0.2: 1, 0.3: 3, 0.4: 3}
    assert course.reached(8.0) == 7 and course.reached(9.0) == np.inf
    assert replay_top(curves, 0, none(curves), first=1, keep=4).reached(9.0) < np.inf


def test_the_goal_counts_from_when_it_is_kept():
    def course(*values):
        return Course(np.array(values), len(values), (), ())

    assert course(1.0, 5.0, 1.0, 5.0, 5.0).reached(4) == 4
    assert course(5.0, 5.0).reached(5) == 1
    assert course(5.0, 1.0).reached(4) == np.inf
    outcome = Outcome.of([course(1.0, 5.0), course(5.0, 1.0), course(5.0, 5.0)], 4, grid_epochs=100)
    assert outcome.cost.tolist() == [2, 102, 1] and outcome.failures == pytest.approx(1 / 3)
    assert outcome.quartiles() == (1, 2, np.inf)


def test_a_lucky_seed_misses_the_goal_of_the_mean():
    ends = {0.1: (5.0, 1.0), 0.2: (4.0, 4.0), 0.3: (3.98, 3.99)}
    curves = Curves.from_table(table(lambda p, s, e: ends[p["lr"]][s] * e / 2, 2, (0, 1), {"lr": list(ends)}))
    land = landscape(curves, 0.99)
    assert curves.space.point(land.best) == {"lr": 0.2} and land.value == 4 and land.good == 2
    assert land.noise == 0 and land.luckiest == (3.0, 4.0)
    assert replay_grid(curves, 0, draw_seeds(curves, 0, mixed=False)).reached(land.goal) == np.inf
    assert replay_grid(curves, 0, draw_seeds(curves, 1, mixed=False)).reached(land.goal) < np.inf
    seen = curves.averaged()
    assert replay_grid(seen, 0, draw_seeds(seen, 0, mixed=False)).reached(land.goal) < np.inf
    assert seen.final == pytest.approx(curves.final)


def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0).random((8, 2, 3)).cumsum(axis=2).round(1)
    rows = table(
        lambda p, s, e: draw[round(10 * p["lr"]) - 1, s, e - 1], 3, (0, 1), {"lr": [n / 10 for n in range(1, 9)]}
    )
    curves = Curves.from_table(rows)
    found = correlations(curves)
    assert found.shape == (2, 3)
    for seed, epoch in itertools.product(range(2), range(3)):
        assert found[seed, epoch] == pytest.approx(
            spearmanr(draw[:, seed, epoch], draw[:, :, 2].mean(axis=1)).statistic
        )


def test_the_interval_of_a_mean_difference_is_near_the_normal_one():
    rng = np.random.default_rng(0)
    second = rng.normal(50, 20, 400)
    first = second + rng.normal(3, 5, 400)
    mean, low, high = mean_difference(first, second)
    half = 1.96 * (first - second).std(ddof=1) / 20
    assert mean == pytest.approx((first - second).mean())
    assert (low, high) == (pytest.approx(mean - half, abs=0.05), pytest.approx(mean + half, abs=0.05))


def test_seeds_of_a_replay():
    curves = Curves.from_table(table(lambda p, s, e: s, 1, (0, 1, 2), {"lr": [n / 100 for n in range(60)]}))
    assert [set(draw_seeds(curves, order, mixed=False)) for order in range(4)] == [{0}, {1}, {2}, {0}]
    assert set(draw_seeds(curves, 0, mixed=True)) == {0, 1, 2}
    assert (draw_seeds(curves, 5, mixed=True) == draw_seeds(curves, 5, mixed=True)).all()


def recorded(folder, seed, **record):
    """A sweep's folder with two trials, one of them completed."""
    values = {"requested": "sample", "scenario": "sample", "data_root": "", "storage": str(folder), "tracking_uri": ""}
    sweep = SweepRecord(name=f"curves-seed{seed}", seed=seed, scheduler="none", **values, **record)
    sweep.folder.mkdir(parents=True)
    sweep.save()
    state = SweepState(sweep.folder)
    for lr, epochs in ((0.1, 2), (0.2, 1)):
        trial = state.propose({"lr": lr, "alpha": 0.5}, ["lr"], 2, {})
        for epoch in range(1, epochs + 1):
            result = {
                "epoch": epoch,
                "objective": lr * epoch,
                "best_epoch": epoch,
                "stopped_early": False,
                "val/mrr": lr,
            }
            state.add(trial, result, stopped=False)
    return sweep.folder


def test_a_table_is_gathered_from_the_event_logs_of_sweeps(tmp_path):
    folders = [recorded(tmp_path, seed) for seed in (0, 3)]
    found = gather(folders)
    expected = [[0.1, 0.5, seed, epoch, 0.1 * epoch, 0.1] for seed in (0, 3) for epoch in (1, 2)]
    assert found.columns.tolist() == ["lr", "alpha", "seed", "epoch", "objective", "val_mrr"]
    assert found.to_numpy().tolist() == expected
    with pytest.raises(InputError, match="fixed differs"):
        gather([folders[0], recorded(tmp_path, 5, fixed={"batch_size": 7})])


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["search_efficiency.py", *map(str, words)])
    search_efficiency.main()


def test_the_command_replays_a_table(tmp_path, monkeypatch, capsys):
    shape = {"lr": [0.01, 0.1], "alpha": [0.2, 0.6]}
    curves = table(lambda p, s, e: p["lr"] * e + p["alpha"] + s / 100, 4, (0, 1), shape)
    curves.to_csv(tmp_path / "curves.csv", index=False)
    command(monkeypatch, "replay", tmp_path / "curves.csv", "--orders", "1")
    shown = capsys.readouterr().out
    assert "4 points, 2 seeds, 4 epochs" in shown and "best seed-mean 1.0050 at lr 0.1, alpha 0.6" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| ")]
    # 4 epochs; 3 + 3 baselines, 3 samplers without halving, 4 with, 4 workers; 9 choices; three headings.
    assert len(rows) == 4 + 6 + 3 + 4 + 1 + 9 + 3


def test_a_missing_table_is_named_on_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "replay", tmp_path / "no.csv")
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and str(tmp_path / "no.csv") in said


def test_recording_runs_one_sweep_per_seed_and_hands_on_all_options(tmp_path, monkeypatch, capsys):
    asked = []

    def run(words, **options):
        asked.append(words)
        recorded(tmp_path / "s", int(words[words.index("--seed") + 1]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    given = ["--scenario", "sample", "--epochs", "4", "--set", "lr=1e-3,1e-2"]
    command(monkeypatch, "record", tmp_path / "c.csv", "--storage", tmp_path / "s", "--seeds", "3,5", "--", *given)
    assert [words[words.index("--name") + 1] for words in asked] == ["curves-seed3", "curves-seed5"]
    assert all(words[-len(given) :] == given and "none" in words and "grid" in words for words in asked)
    assert set(pd.read_csv(tmp_path / "c.csv")["seed"]) == {3, 5}


def test_a_sweep_that_stopped_ends_the_recording(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda words, **options: SimpleNamespace(returncode=3))
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "record", tmp_path / "c.csv", "--storage", tmp_path / "s", "--seeds", "3")
    assert stopped.value.code == 2 and "curves-seed3" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("search", "grid_points"), [("optuna", 4), ("auto", None)])
def test_a_real_sweep_proposes_trains_and_stops_the_same_trials(tmp_path, monkeypatch, search, grid_points):
    from rich.console import Console
    from sweep_fakes import fake_evaluate, fast_trial, objective, tiny_data

    from sweeps.core.options import Options
    from sweeps.core.plan import plan_sweep
    from sweeps.core.run import run_sweep
    from sweeps.core.sweep import TrialBackend

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMEMF_DATA_ROOT", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [FAKES, os.environ.get("PYTHONPATH", "")])))
    assignments = ["lr=1e-4,1e-3,8e-3", "alpha=0.2,0.4,0.8", "beta=0.1", "lambda1=0.1,1.0", "lambda2=0.1", "l2=0"]
    options = Options(
        scenario="sample",
        name="s1",
        search=search,
        trials=9,
        grid_points=grid_points,
        epochs=6,
        grace_period=2,
        concurrency=1,
        seed=5,
        assignments=assignments,
    )
    plan = plan_sweep(options)
    backend = TrialBackend(data=tiny_data(), trainable=fast_trial, evaluate=fake_evaluate)
    assert run_sweep(plan, Console(file=io.StringIO()), backend=backend).exit_code == 0
    real = list(SweepState(plan.record.folder).records.values())

    formula = SimpleNamespace(
        space=plan.space,
        epochs=6,
        mixture=lambda config, between: config,
        curve=lambda config, seed_of: np.array([objective(config, epoch) for epoch in range(1, 7)]),
        truth=lambda config: 0.0,
    )
    choices = Choices(search, grace_period=2, reduction_factor=3, trials=9, grid_points=grid_points)
    course = replay_sweep(formula, choices, 5, np.zeros(0))
    assert [record.config for record in real] == list(course.settings)
    assert [record.epoch for record in real] == list(course.trials)
    assert len({record.outcome for record in real}) == 2, "halving stopped some"


def test_searches_between_recorded_points_are_compared(tmp_path, monkeypatch, capsys):
    rng, rows = np.random.default_rng(0), []
    for lr, alpha in rng.random((12, 2)) * (0.09, 0.8) + (0.01, 0.1):
        for seed, epoch in itertools.product((0, 1), (1, 2, 3)):
            value = (1 - (lr - 0.05) ** 2 * 100 - (alpha - 0.5) ** 2) * (0.7 + epoch / 10) + 0.001 * seed
            rows.append({"lr": lr, "alpha": alpha, "seed": seed, "epoch": epoch, "objective": value})
    pd.DataFrame(rows).to_csv(tmp_path / "random.csv", index=False)
    names = ("random, ASHA", "auto, ASHA, warm", "1 epoch, best 3 continue", "oracle, ASHA")
    only = [word for name in names for word in ("--only", name)]
    command(
        monkeypatch, "between", tmp_path / "random.csv", "--orders", "1", "--trials", "5", "--workers", "1,4", *only
    )
    shown = capsys.readouterr().out
    held_out = float(re.search(r"rank correlation ([\d.]+)", shown)[1])
    assert "12 recorded points, 3 epochs" in shown and held_out > 0.8
    rows = {
        cells[0]: cells for line in shown.splitlines() if (cells := line.strip("| ").split(" | ")) and " to " in line
    }
    assert list(rows) == [
        f"{name}, {workers}"
        for name in names
        for workers in (1, 4)
        if (name, workers) != ("1 epoch, best 3 continue", 4)
    ]
    # Five trials of one epoch, then three of two more; the best point, trained first, leads from its first epoch.
    assert rows["1 epoch, best 3 continue, 1"][7].startswith("11 ")
    assert rows["oracle, ASHA, 1"][1:4] == ["1", "0%", "1 (1 to 1)"]
    in_all, in_a_row = re.findall(r"\d+", rows["random, ASHA, 4"][7])
    assert int(in_a_row) < int(in_all)
