"""A trial floor of formulas for groups of sweeps: comparisons, ablations, reruns."""

from __future__ import annotations

import json
import zlib
from unittest.mock import MagicMock

import numpy as np
from sweep_fakes import FakeTrainer, epoch_result

from llmemf.ranking import summarise
from sweeps.comparison.seeds import TestEvaluation
from sweeps.state import checkpoints


class Floor:
    """Trains and tests by formulas; fails or is stopped where it is told to.

    Args:
        fails: systems of which every trial fails.
        stops_at: the how-manieth trial or look raises KeyboardInterrupt.
        nan: systems whose test has no numbers.
        value: settings and epoch -> objective.
    """

    def __init__(self, fails=(), stops_at=None, nan=(), value=lambda config, epoch: config.get("lr", 0.5) * epoch):
        self.fails, self.stops_at, self.nan, self.value = fails, stops_at, nan, value
        self.trained, self.looks = [], []

    def _count(self, steps, what):
        if len(self.trained) + len(self.looks) + 1 == self.stops_at:
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
        self._count(self.looks, (model, seed, folder))
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
