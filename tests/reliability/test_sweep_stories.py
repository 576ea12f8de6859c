"""Any story of a sweep, told by Hypothesis: it starts, reports, fails, loses workers, is killed, resumed (also with
`--retry-failed`) and extended, while the server comes and goes, and never differs from the model of it. A story that fails is told again as its shortest form.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from durable_events import memory_folder
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from memory_mlflow import MemoryMlflow
from small_sweep import FastClock, _NoThread, deliver
from sweep_fakes import epoch_result
from sweep_model import SweepModel

from llmemf.errors import InputError
from sweeps.core.callback import SweepCallback
from sweeps.core.interrupt import StopRequest
from sweeps.core.storage import locked
from sweeps.search.search import SweepSearch
from sweeps.search.space_entries import build_space
from sweeps.state.checkpoint_retention import CheckpointRetention
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.sweep_state import SweepState
from sweeps.tracking import mlflow_writer
from sweeps.tracking.mlflow_runs import TrackingTarget
from sweeps.tracking.owned_runs import PARENT, RunOwner
from sweeps.tracking.runs import Tracking

EPOCHS = 3
POINTS = [{"lr": rate / 1000, "alpha": 0.3} for rate in range(1, 7)]
SPACE = build_space({"lr": [point["lr"] for point in POINTS], "alpha": [0.3]}, [])
WITHOUT_A_SCREEN = SimpleNamespace(**dict.fromkeys(("update", "say", "tell"), lambda *_: None), trouble="")


def value_of(number: int, epoch: int) -> float:
    return number / 10 + epoch / 100


class Stories(RuleBasedStateMachine):
    """One sweep, its driver (None while nobody drives), its server, and the model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=memory_folder().parent))
        self.server, self.is_up = MemoryMlflow(), True
        self.model = SweepModel(planned=3, epochs=EPOCHS)
        self.patch = pytest.MonkeyPatch()
        names = vars(mlflow_writer.threading)
        self.patch.setattr(mlflow_writer, "threading", SimpleNamespace(**{**names, "Thread": _NoThread}))
        self.patch.setattr(mlflow_writer, "time", FastClock())
        self.patch.setattr("sweeps.core.callback.read_error", lambda trial: (trial.exception, trial.trace))
        self.driver: Any = None

    def teardown(self) -> None:
        if self.driver is None:
            self.is_up = True
            self.resume()
        self.is_up = True
        while self.model.waiting() or self.driver.live:
            for trial in list(self.driver.live):
                self.tell_report(trial, pruned=False)
            if self.model.waiting():
                self.start()
        self.leave("completed")
        self.assert_server_has_all()
        self.patch.undo()
        shutil.rmtree(self.folder)

    # The driver.

    @initialize()
    def first_start(self) -> None:
        self.open()

    def open(self, more: int = 0, *, retry_failed: bool = False) -> None:
        state = SweepState(self.folder)
        if retry_failed:
            state.take_back_failed()
        if more:
            state.extend(self.model.planned, {})
        state.open()
        state.retry()
        used = len(state.records)
        search = SweepSearch(
            SPACE,
            state,
            method="grid",
            trials=self.model.planned,
            epochs=EPOCHS,
            points=POINTS[used : self.model.planned],
            varied_keys=("lr",),
        )
        tracking = Tracking(self.target(), lambda: self.server.client(self.answer))
        retention = CheckpointRetention(self.folder, state, keep=2)
        tracking.connect()
        tracking.open(state)
        sweep = SimpleNamespace(
            folder=self.folder,
            state=state,
            search=search,
            tracking=tracking,
            display=WITHOUT_A_SCREEN,
            retention=retention,
        )
        callback = SweepCallback(sweep, StopRequest())
        self.driver = SimpleNamespace(
            state=state, search=search, tracking=tracking, callback=callback, live=[], count=0
        )
        self.work()

    def target(self) -> TrackingTarget:
        owner = RunOwner("identity", "s", "", str(self.folder))
        return TrackingTarget("memory", "sample", owner, params={"seed": 0})

    def answer(self, name: str) -> None:
        if not self.is_up:
            raise ConnectionError("no server answers")

    def work(self) -> None:
        """The writer's thread gets its turn."""
        deliver(self.driver.tracking.writer)

    def hook(self, name: str, trial: Any, **more: Any) -> None:
        getattr(self.driver.callback, name)(iteration=1, trials=self.driver.live, trial=trial, **more)
        self.work()

    def record(self, trial: Any) -> Any:
        return self.driver.state.records[trial.config["trial"]]

    # What happens.

    @precondition(lambda self: self.driver and self.model.waiting() and len(self.driver.live) < 2)
    @rule()
    def start(self) -> None:
        """Tune has a place free."""
        self.driver.count += 1
        identity = f"id{self.driver.count}"
        config = self.driver.search.suggest(identity)
        trial = SimpleNamespace(trial_id=identity, config=config)
        self.driver.live.append(trial)
        self.hook("on_trial_start", trial)
        self.model.start(config["trial"])

    @precondition(lambda self: self.driver and self.driver.live)
    @rule(place=st.integers(0, 1), pruned=st.booleans(), repeats=st.booleans())
    def report(self, place: int, pruned: bool, repeats: bool) -> None:
        """A trial reports its next epoch; one that continues may report the last one again before."""
        trial = self.driver.live[place % len(self.driver.live)]
        known = self.record(trial).epoch
        if repeats and known:
            self.hook("on_trial_result", trial, result=self.result(trial, known) | {"done": False})
        self.tell_report(trial, pruned=pruned)

    def tell_report(self, trial: Any, *, pruned: bool) -> None:
        number, epoch = trial.config["trial"], self.record(trial).epoch + 1
        self.hook("on_trial_result", trial, result=self.result(trial, epoch) | {"done": pruned or epoch == EPOCHS})
        self.model.report(number, pruned=pruned)
        if self.model.trials[number].ended:
            self.end(trial)
            self.hook("on_trial_complete", trial)

    def result(self, trial: Any, epoch: int) -> dict[str, Any]:
        return epoch_result(epoch, value_of(trial.config["trial"], epoch))

    def end(self, trial: Any) -> None:
        self.driver.live.remove(trial)
        self.driver.search.on_trial_complete(trial.trial_id)

    @precondition(lambda self: self.driver and self.driver.live)
    @rule(place=st.integers(0, 1))
    def fail(self, place: int) -> None:
        """A trial raises an error of its own."""
        trial = self.driver.live[place % len(self.driver.live)]
        trial.exception, trial.trace = None, "Traceback\nllmemf.training.NonFiniteLoss: nan\n"
        self.end(trial)
        self.hook("on_trial_error", trial)
        self.model.fail(trial.config["trial"])

    @precondition(lambda self: self.driver and self.driver.live)
    @rule(place=st.integers(0, 1))
    def pre_empt(self, place: int) -> None:
        """A node goes away with the process of a trial."""
        from ray.exceptions import ActorDiedError

        trial = self.driver.live[place % len(self.driver.live)]
        if self.model.trials[trial.config["trial"]].losses:
            return  # how often is too often is a matter of `test_callback.py`
        trial.exception, trial.trace = ActorDiedError(), "The actor died unexpectedly\n"
        self.end(trial)
        self.hook("on_trial_error", trial)
        self.model.lose(trial.config["trial"])

    @precondition(lambda self: self.driver)
    @rule(torn=st.sampled_from([b"", b'{"event": "epo', b"\x00\x00"]))
    def kill(self, torn: bytes) -> None:
        """The driver is gone, and with it what it had not delivered; the log may have a torn line."""
        self.driver.state.event_log.close()
        self.driver = None
        with (self.folder / EVENT_LOG).open("ab") as file:
            file.write(torn)

    @precondition(lambda self: self.driver)
    @rule()
    def stop(self) -> None:
        """SIGTERM: trials are closed as interrupted."""
        self.leave("interrupted")

    def leave(self, outcome: str) -> None:
        for record in self.driver.state.records.values():
            if not record.ended:
                record.outcome = "interrupted"
                self.driver.tracking.end_trial(record)
        self.driver.tracking.close(outcome)
        self.driver.state.stop(outcome)
        self.driver.state.event_log.close()
        self.driver = None

    @precondition(lambda self: self.driver is None and self.is_up)
    @rule()
    def resume(self) -> None:
        self.model.resume()
        self.open()

    @precondition(lambda self: self.driver is None and self.is_up)
    @rule()
    def resume_and_retry_failed(self) -> None:
        self.model.retry_failed()
        self.model.resume()
        self.open(retry_failed=True)

    @precondition(
        lambda self: self.driver is None and self.is_up and self.model.planned < len(POINTS) and self.model.trials
    )
    @rule()
    def extend(self) -> None:
        self.model.planned += 1
        self.model.resume()
        self.open(more=1)

    @precondition(lambda self: self.driver is None and not self.is_up)
    @rule()
    def resume_without_a_server(self) -> None:
        """It is refused, and nothing has changed but that a driver tried."""
        with pytest.raises(InputError):
            self.open()
        self.driver = None

    @rule()
    def server_goes_or_comes(self) -> None:
        self.is_up = not self.is_up

    @precondition(lambda self: self.driver)
    @rule()
    def second_driver(self) -> None:
        """Two commands at once: the second is refused as long as the first holds the folder."""
        with locked(self.folder, "s"), pytest.raises(InputError), locked(self.folder, "s"):
            raise AssertionError

    # What always holds.

    @invariant()
    def the_log_says_what_the_model_says(self) -> None:
        if not (self.folder / EVENT_LOG).exists():
            return
        state = SweepState(self.folder)
        state.event_log.close()
        assert state.records.keys() == self.model.trials.keys()
        assert len({record.config["lr"] for record in state.records.values()}) == len(state.records)
        for number, trial in self.model.trials.items():
            record = state.records[number]
            assert record.values == [value_of(number, epoch) for epoch in range(1, trial.epoch + 1)]
            if trial.ended:
                assert record.outcome == trial.outcome
        if self.driver is not None:
            running = {trial.config["trial"] for trial in self.driver.live}
            assert running == {number for number, trial in self.model.trials.items() if trial.outcome == "running"}

    @invariant()
    def the_server_knows_nothing_that_the_log_does_not(self) -> None:
        for run in self.server.runs.values():
            if (name := run["tags"]["trial"]) != PARENT:
                points = [(step, value) for step, value, _ in run["metrics"].get("objective", [])]
                number = int(name[1:])
                known = self.model.trials[number].epoch if number in self.model.trials else 0
                assert points == [(epoch, value_of(number, epoch)) for epoch in range(1, len(points) + 1)]
                assert len(points) <= known

    def assert_server_has_all(self) -> None:
        names = [run["tags"]["trial"] for run in self.server.runs.values()]
        assert sorted(names) == sorted([PARENT, *(f"t{number:02d}" for number in self.model.trials)])
        for run in self.server.runs.values():
            if (name := run["tags"]["trial"]) != PARENT:
                assert len(run["metrics"].get("objective", [])) == self.model.trials[int(name[1:])].epoch
            assert run["status"] != "RUNNING"


SETTINGS = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
}


def test_no_story_differs_from_the_model():
    run_state_machine_as_test(Stories, settings=settings(max_examples=15, stateful_step_count=20, **SETTINGS))


@pytest.mark.slow
def test_no_long_story_differs_from_the_model():
    run_state_machine_as_test(Stories, settings=settings(max_examples=150, stateful_step_count=60, **SETTINGS))
