"""Groups of sweeps on a trial floor of formulas: plan, resume and run them."""

from __future__ import annotations

import datetime
import io
import json
import zlib
from unittest.mock import MagicMock

import numpy as np
from rich.console import Console
from sweep_fakes import FakeTrainer, epoch_result, grow, tiny_data

from llmemf.ranking import summarise
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.groups.evaluation import TestEvaluation
from sweeps.groups.new_group import GroupOptions
from sweeps.groups.plan import NEW, check_new, plan_group
from sweeps.groups.run import GroupBackend, run_group
from sweeps.state import checkpoints
from sweeps.state.sweep_state import SweepState

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)


def plan(kind, **options):
    """A new group."""
    group = NEW[kind](GroupOptions(**options), NOW)
    check_new(group)
    return group


def resume(kind, **options):
    """A stored group."""
    return plan_group(kind, GroupOptions(**options), resume=True)


def go(group, floor, data=None, mlflow=False, server=None, **more):
    """Run a group; gives exit code and what was shown. Without `mlflow` its runs are kept by `server`, or nowhere."""
    out = io.StringIO()
    client = None if mlflow else no_server if server is None else lambda: server
    backend = GroupBackend(data=data or tiny_data(), train=floor.train, rank=floor.rank, client=client)
    console = Console(file=out, width=160, highlight=False, markup=False)
    code = run_group(group, console, backend=backend, **more)
    return code, out.getvalue()


def make_sweep(name, scores, status="completed"):
    """A sweep of two epochs on the sample as it lies on the disk: learning rate -> best objective of its trial."""
    planned = plan_sweep(Options(scenario="sample", name=name, epochs=2))
    record = planned.record
    record.folder.mkdir(parents=True)
    record.status = status
    record.save()
    state = SweepState(record.folder)
    rest = {key: block.points[0][i] for block in planned.space.blocks for i, key in enumerate(block.keys)}
    for lr, score in scores.items():
        grow(state, state.propose({**rest, "lr": lr, "alpha": 0.2, "beta": 0.3}, ("lr",), 2, {}), 2, value=score)
    state.stop(status)
    return record


class Floor:
    """Trains and tests by formulas; fails or is stopped where it is told to.

    Args:
        fails: systems of which every trial fails.
        stops_at: the n-th trial or test raises KeyboardInterrupt.
        nan: systems whose test has no numbers.
        value: settings and epoch -> objective.
    """

    def __init__(self, fails=(), stops_at=None, nan=(), value=lambda config, epoch: config.get("lr", 0.5) * epoch):
        self.fails, self.stops_at, self.nan, self.value = fails, stops_at, nan, value
        self.trained, self.tests = [], []

    def _count(self, steps, what):
        if len(self.trained) + len(self.tests) + 1 == self.stops_at:
            raise KeyboardInterrupt
        steps.append(what)

    def train(self, sweep):
        place = 0
        while isinstance(given := sweep.search.suggest(f"id{place}"), dict):
            record, model = sweep.state.records[given["trial"]], sweep.plan.record.model
            self._count(self.trained, (sweep.plan.record.name, record.number))
            sweep.state.start(record)
            sweep.tracking.start_trial(record)
            if model in self.fails:
                sweep.state.fail(record, "error", f"NonFiniteLoss: {model}")
            else:
                config = {**sweep.plan.fixed, **record.config}
                trainer = FakeTrainer(config)
                for epoch in range(1, record.epochs + 1):
                    trainer.epoch = epoch
                    result = epoch_result(epoch, self.value(config, epoch), seconds_train=2.0)
                    checkpoints.save(trainer, checkpoints.trial_folder(sweep.folder, record.number), result)
                    event = sweep.state.add(record, result, stopped=False)
                    sweep.tracking.log_epoch(record, event["result"], event["time"])
            sweep.search.on_trial_complete(f"id{place}")
            sweep.search.tell(record)
            sweep.tracking.end_trial(record)
            sweep.retention.end(record)
            place += 1

    def rank(self, folder, data):
        config = json.loads((folder / "config.yaml").read_text())
        model, seed = config["model"], config["seed"]
        self._count(self.tests, (model, seed, folder))
        if model in self.nan:
            raise FloatingPointError("a score is NaN")
        rng = np.random.default_rng(zlib.crc32(json.dumps(config, sort_keys=True).encode()))
        targets = data.scenario.test.targets
        domain = (targets >= data.scenario.num_x).astype(int)
        sampled, full = rng.integers(1, 9, (2, len(targets))).astype(float)
        ranks = {"case": np.arange(len(targets)), "domain": domain, "sampled": sampled, "full": full}
        metrics = summarise({**ranks, "nll": np.ones(len(targets))}, data.scenario.domains, "test")
        return TestEvaluation(ranks, metrics, 100 * seed, "faithful", {"graph": "abc"} if model == "gru4rec" else {})


def no_server():
    """A client of MLflow that keeps nothing: a database takes most of the time of a comparison of fakes."""
    client = MagicMock()
    client.search_runs.return_value = []
    return client
