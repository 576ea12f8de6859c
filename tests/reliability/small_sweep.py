"""A whole sweep in a fraction of a second: the real driver over a trainer of a few numbers, without Ray and MLflow's server.

Everything that a sweep writes is written by the product's own code. What stands in for the rest is `fake_tune`,
`memory_mlflow`, and `SmallTrainer` below, whose numbers follow from its random state: a trial that is resumed without it gets
other ones.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from durable_events import Event, Recorder, Tree, read_tree, write_tree
from fake_tune import FakeTune, Stuck
from memory_mlflow import MemoryMlflow
from rich.console import Console
from sweep_fakes import tiny_data
from verdicts import Facts

from llmemf import references
from llmemf.append_only_log import read_records
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models.bprmf import BPRMFConfig
from llmemf.scenarios.scenario import Scenario
from sweeps.core import results, sweep, trial
from sweeps.core import run as sweep_run
from sweeps.core.options import Options
from sweeps.core.plan import Plan
from sweeps.core.resume import plan_continue
from sweeps.core.run import run_sweep
from sweeps.core.sweep import TrialBackend
from sweeps.core.trial import run_epochs
from sweeps.state import checkpoints
from sweeps.state.event_log import EVENT_LOG
from sweeps.state.sweep_state import SweepState
from sweeps.tracking import mlflow_writer, owned_runs

NAME = "s"
GRID = {"search": "grid", "scheduler": "none", "epochs": 3, "assignments": ["lr=1e-3,3e-3", "l2=0", "user_mode=auto"]}
"""Two points, both at once, each to its end: results do not depend on any order."""
CONFIRMED = {**GRID, "confirm": 1.0}
"""The same two points; then both run again with a new seed."""
TPE = {"search": "optuna", "trials": 5, "grid_points": 2, "grace_period": 1, "reduction_factor": 2, "epochs": 4,
       "keep": 2, "assignments": ["lr=1e-4,1e-3,1e-2", "l2=0", "user_mode=auto"]}  # fmt: skip
"""Grid points, then Optuna's, with successive halving, one at a time: what is decided depends on all before."""


STALE = re.compile(r"\.\d+\.tmp\b")
"""Temporary files have the number of their process; that of a killed one is no other's."""


class Killed(BaseException):
    """The process ends here; nothing in the product may catch it, and nothing that it does afterwards counts."""


@dataclass
class Witness:
    """What happened, told by the trainer and the driver themselves, whatever is on the disk.

    Attributes:
        trained: (settings of a trial, epoch) -> how often it was trained.
        safe: settings of a trial -> epoch of its newest checkpoint that was written to the end.
        events: events of trials in the log that were written to the end, as (event, trial, epoch).
        lost: see `verdicts.Facts`.
        drivers: how many there were.
        tests: how often the test split was evaluated.
    """

    trained: Counter[tuple[str, int]] = field(default_factory=Counter)
    safe: dict[str, int] = field(default_factory=dict)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    drivers: int = 0
    tests: int = 0


class SmallTrainer:
    """A model of one weight that wanders; every epoch draws from a generator that is part of the checkpoint."""

    def __init__(self, config: dict[str, Any], witness: Witness) -> None:
        self.config, self.witness = config, witness
        self.point = json.dumps({key: value for key, value in config.items() if key != "trial"}, sort_keys=True)
        self.random = random.Random(self.point)
        self.epoch, self.weight, self.best, self.best_epoch, self.best_weight = 0, 0.0, -1.0, 0, 0.0

    def load(self, folder: Path) -> None:
        state = json.loads((folder / "state.pt").read_text())
        json.loads((folder / "best.safetensors").read_text())
        self.epoch, self.weight, self.best, self.best_epoch, self.best_weight = state["numbers"]
        version, words, rest = state["random"]
        self.random.setstate((version, tuple(words), rest))
        if self.epoch < self.witness.safe.get(self.point, 0):
            newest = self.witness.safe[self.point]
            self.witness.lost.append(f"{self.point} resumes after epoch {self.epoch}; epoch {newest} was safe")

    def save(self, folder: Path) -> None:
        numbers = [self.epoch, self.weight, self.best, self.best_epoch, self.best_weight]
        (folder / "state.pt").write_text(json.dumps({"numbers": numbers, "random": self.random.getstate()}))
        (folder / "best.safetensors").write_text(json.dumps({"weight": self.best_weight, "epoch": self.best_epoch}))
        (folder / "config.yaml").write_text(json.dumps({"facts": {"source": "small"}, "point": self.point}))

    def epochs(self) -> Iterator[dict[str, Any]]:
        if self.epoch == 0 and self.witness.safe.get(self.point):
            self.witness.lost.append(f"{self.point} starts anew; epoch {self.witness.safe[self.point]} was safe")
        while self.epoch < self.config["epochs"]:
            self.epoch += 1
            self.witness.trained[self.point, self.epoch] += 1
            self.weight += self.random.gauss(1, 1)
            value = 1 / (1 + abs(self.weight - 3) + 100 * self.config["lr"])
            if value > self.best:
                self.best, self.best_epoch, self.best_weight = value, self.epoch, self.weight
            yield {
                "epoch": self.epoch,
                "objective": self.best,
                "best_epoch": self.best_epoch,
                "stopped_early": False,
                "train/loss": self.weight,
                "val/movie/mrr": value,
                "val/book/mrr": value / 2,
            }


@dataclass
class World:
    """What outlives a driver: the disk, the server, and what a witness saw.

    Attributes:
        disk: the tree below the storage's parent.
    """

    disk: Tree = field(default_factory=dict)
    server: MemoryMlflow = field(default_factory=MemoryMlflow)
    witness: Witness = field(default_factory=Witness)


@dataclass
class Moment:
    """The world at a boundary between two events, once for each thing that a crash may do to the disk."""

    event: Event | None
    worlds: dict[str, World]


@dataclass
class Crash:
    """One world that a crash leaves: at which event, and what it does to unflushed data."""

    event: Event | None
    kind: str
    world: World

    def __str__(self) -> str:
        where = (
            "after the last event"
            if self.event is None
            else f"before event {self.event.number} ({self.event.kind} {self.event.path}, {self.event.site})"
        )
        return f"{self.kind}, {where}"

    @property
    def site(self) -> tuple[str, str]:
        """Crashes of one site are alike: the same line of the product, and the same loss."""
        return (self.event.kind + self.event.site if self.event else "end", self.kind)


def distinct(moments: list[Moment]) -> list[Crash]:
    """The worlds of all moments, each once."""
    found, seen = [], set()
    for moment in moments:
        for kind, world in moment.worlds.items():
            key = hash((tuple(sorted(world.disk.items())), repr(world.server.runs)))
            if key not in seen:
                seen.add(key)
                found.append(Crash(moment.event, kind, world))
    return found


def one_per_site(crashes: list[Crash]) -> list[Crash]:
    return list({crash.site: crash for crash in reversed(crashes)}.values())


def of_each_site(crashes: list[Crash]) -> list[Crash]:
    """Of the crashes of a site the first, one from the middle, and the last: other trials, other epochs."""
    sites: dict[tuple[str, str], list[Crash]] = {}
    for crash in crashes:
        sites.setdefault(crash.site, []).append(crash)
    return [found[place] for found in sites.values() for place in sorted({0, len(found) // 2, len(found) - 1})]


class SmallSweep:
    """Starts drivers in a folder, one after the other.

    Args:
        root: an empty folder; every driver finds the disk there.
        options: `GRID`, `CONFIRMED` or `TPE`.
        seed: draws the order in which trials report.
    """

    def __init__(self, root: Path, options: dict[str, Any] = GRID, seed: int = 0) -> None:
        self.root, self.options, self.seed = root, options, seed
        self.folder = root / "mlruns" / "sweeps" / NAME
        self.parallel = 1 if options is TPE else 2
        root.mkdir(parents=True, exist_ok=True)

    def plan(self) -> Plan:
        given = {"scenario": "sample", "model": "bprmf", "name": NAME, **self.options}
        return plan_continue(Options(storage=self.root / "mlruns", data_root=self.root / "data", **given))

    def drive(
        self,
        world: World,
        *,
        before: Callable[[Event], None] | None = None,
        looks: bool = False,
        disturb: Callable[[int], None] = lambda trial: None,
        client: Callable[[str], None] = lambda name: None,
        answered: Callable[[str], None] = lambda name: None,
        plan: Callable[[], Plan] | None = None,
    ) -> tuple[Facts, Recorder]:
        """One driver from its start to its end, on a world that it changes.

        Args:
            before: called before each durable event and each call of the server; None records nothing.
            looks: whether it asks the recorder for the disk.
            disturb: see `fake_tune.FakeTune`.
            client: called before each call of the server; what it raises takes its place.
            answered: called after each call of the server; what it raises takes the place of the answer.
            plan: instead of `--continue`.
        """
        write_tree(self.root, world.disk)
        self._check_log(world.witness)
        world.witness.drivers += 1
        recorder = Recorder(self.root, before or (lambda event: None), disk=looks)

        def call(name: str) -> None:
            if before is not None:
                recorder.call(f"mlflow {name}")
            client(name)

        code, error, stuck = None, "", False
        with _stand_ins(self, disturb), recorder if before else nullcontext():
            backend = self.backend(world, call, answered)
            try:
                plan_now = (plan or self.plan)()
                code = run_sweep(plan_now, _Screen(file=io.StringIO(), width=120), backend=backend).exit_code
            except Stuck as found:
                stuck, error = True, str(found)
            except Exception as found:  # noqa: BLE001  the verdict tells it
                error = f"{type(found).__name__}: {found}"
                self.raised: BaseException | None = found
        world.disk = read_tree(self.root)
        try:
            return self.facts(world, code, error, stuck), recorder
        except InputError as damaged:
            return Facts(code, f"what it left cannot be read: {damaged}"), recorder

    def backend(
        self,
        world: World,
        before: Callable[[str], None] = lambda name: None,
        after: Callable[[str], None] = lambda name: None,
    ) -> TrialBackend:
        """What a driver gets in the place of the trial floor and of the server."""
        return TrialBackend(
            data=DATA,
            trainable=_trainable(world.witness),
            evaluate=_evaluate(world.witness),
            client=lambda: world.server.client(before, after),
            saved=lambda event: world.witness.events.append(event_key(event)) if "trial" in event else None,
        )

    def _check_log(self, witness: Witness) -> None:
        """What the driver before wrote to the end must still be in the event log; one event more may be."""
        log = [event_key(event) for event in read_records(self.folder / EVENT_LOG) if "trial" in event]
        if log[: len(witness.events)] != witness.events:
            witness.lost.append(f"the event log has {len(log)} events, {len(witness.events)} were written: {log[-1:]}")
        witness.events = log

    def moments(self, world: World, **options: Any) -> tuple[Facts, list[Moment]]:
        """Run a driver, and keep the world before every event and after the last."""
        found: list[Moment] = []
        world = deepcopy(world)
        facts, recorder = self.drive(
            world, before=lambda event: found.append(self._moment(Recorder.active, event, world)), looks=True, **options
        )
        recorder.settle()
        found.append(self._moment(recorder, None, world))
        return facts, found

    def crashes(self, **options: Any) -> tuple[Facts, list[Crash]]:
        """What an undisturbed sweep comes to, and every different world that a crash can leave of it, in their order."""
        facts, moments = self.moments(World(), **options)
        assert not facts.error, facts.error
        return facts, distinct(moments)

    def resume(self, world: World, **options: Any) -> Facts:
        """What the next driver makes of a world, which stays as it is."""
        return self.drive(deepcopy(world), **options)[0]

    def _moment(self, recorder: Recorder, event: Event | None, world: World) -> Moment:
        worlds: dict[str, World] = {}
        server, witness = deepcopy(world.server), deepcopy(world.witness)
        for kind, tree in recorder.disks().items():
            disk = {STALE.sub(".99999999.tmp", name): content for name, content in tree.items()}
            if all(disk != other.disk for other in worlds.values()):
                worlds[kind] = World(disk, server, witness)
        return Moment(event, worlds)

    def facts(self, world: World, code: int | None = 0, error: str = "", stuck: bool = False) -> Facts:
        """What the world holds of the sweep."""
        if error:
            return Facts(code, error, stuck)
        state = SweepState(self.folder)
        log = [event_key(event) for event in state.event_log.read()]
        state.event_log.close()
        witness = world.witness
        lost = list(witness.lost)
        if [key for key in log if key[1] is not None] != witness.events:
            lost.append(f"the event log has {len(log)} events, {len(witness.events)} of trials were written")
        # One more for each driver that may have died in the middle of it.
        lost += [
            f"{point} trained epoch {epoch} {times} times"
            for (point, epoch), times in witness.trained.items()
            if times > witness.drivers
        ]
        runs = {run["tags"]["trial"]: run for run in world.server.runs.values()}
        found = {
            "number of trials": len(state.records),
            "values": {point_of(record): list(record.values) for record in state.records.values()},
            "outcomes": {point_of(record): record.outcome for record in state.records.values()},
            "repeated events": [
                key for key, n in Counter(log).items() if n > 1 and key[0] in ("epoch", "proposed", "tested")
            ],
            "numbers of runs": Counter(run["tags"]["trial"] for run in world.server.runs.values()),
            "runs": {run_point(run): run_facts(run) for run in runs.values()},
            "record": re.findall(r"^status: (\w+)", self._text("sweep.yaml"), re.MULTILINE),
            "leaderboard": leaderboard(self._text("leaderboard.csv")),
            "best.yaml": self._text("best.yaml").partition("\n")[2],
            "test": [test["metrics"] for test in state.tests],
            "weights": self._weights(state),
        }
        return Facts(code, "", False, found, tuple(lost), tuple(self._left(world)))

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text().replace(str(self.root), "ROOT") if path.exists() else ""

    def _weights(self, state: SweepState) -> dict[str, str]:
        """Weights by the point of their trial; those of an interrupted one are checked when it resumes."""
        found = {"best": self._text("best/best.safetensors")}
        for record in state.records.values():
            newest = checkpoints.newest(checkpoints.trial_folder(self.folder, record.number))
            # An error of the disk may have left half of a folder that was being removed.
            if newest and record.ended and (newest / "best.safetensors").exists():
                found[point_of(record)] = (newest / "best.safetensors").read_text()
        return found

    def _left(self, world: World) -> Iterator[str]:
        for path in self.root.rglob("*"):
            if path.name.endswith(".tmp") or path.name.startswith(".write-test"):
                yield path.name
        for path in (self.folder / "trials").glob("*/*/state.pt"):
            yield f"{path.parent.name}/state.pt"
        yield from (
            f"run of {run['tags']['trial']}" for run in world.server.runs.values() if run["status"] == "RUNNING"
        )


DATA = tiny_data()
HASHES = DATA.scenario.hashes()


def point_of(record: Any) -> str:
    return json.dumps(record.config, sort_keys=True)


def run_point(run: dict[str, Any]) -> str:
    """Whose run it is: numbers of trials depend on nothing, but names of runs must not matter either."""
    return "parent" if run["tags"]["trial"] == owned_runs.PARENT else json.dumps(run["params"], sort_keys=True)


def run_facts(run: dict[str, Any]) -> dict[str, Any]:
    """A run without times and ids."""
    tags = {
        key: value
        for key, value in run["tags"].items()
        if key in ("outcome", "epochs_run", "best_trial", "test_looks", "confirmation", "repeats", "mean")
    }
    metrics = {key: [(step, value) for step, value, _ in points] for key, points in run["metrics"].items()}
    artifacts = {key: value for key, value in run["artifacts"].items() if key.startswith("best/")}
    return {"status": run["status"], **tags, "metrics": metrics, "params": run["params"], "artifacts": artifacts}


def leaderboard(text: str) -> list[dict[str, str]]:
    """Its rows without what a clock says."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(io.StringIO(text))]


def event_key(event: dict[str, Any]) -> tuple[Any, ...]:
    return (event["event"], event.get("trial"), event.get("result", {}).get("epoch"))


def _trainable(witness: Witness) -> Callable[..., Iterator[dict[str, Any]]]:
    def trainable(
        config: dict[str, Any], data: Any, folder: str, checkpoint_epochs: Any = ()
    ) -> Iterator[dict[str, Any]]:
        made: list[SmallTrainer] = []

        def make() -> SmallTrainer:
            made.append(SmallTrainer(config, witness))
            return made[-1]

        return run_epochs(make, config, folder, checkpoint_epochs)

    return trainable


def _evaluate(witness: Witness) -> Callable[..., dict[str, float]]:
    def evaluate(folder: Path, scenario: Any, features: Any, split: str = "test") -> dict[str, float]:
        witness.tests += 1
        weight = json.loads((Path(folder) / "best.safetensors").read_text())["weight"]
        return {"test/movie/mrr": weight, "test/book/mrr": weight / 2, "test/mrr": weight}

    return evaluate


@contextmanager
def _stand_ins(subject: SmallSweep, disturb: Callable[[int], None]) -> Iterator[None]:
    """Fakes in the place of Ray, of threads and of what only costs time."""
    from ray import tune

    _known_references()
    fake = FakeTune(subject.seed, disturb, after_step=lambda hooks: deliver(hooks.tracking.writer))
    fake.errors = subject.root.with_name(subject.root.name + "-errors")
    fake.errors.mkdir(exist_ok=True)
    real_save = checkpoints.save

    def save(trainer: Any, folder: Path, report: dict[str, Any]) -> None:
        real_save(trainer, folder, report)
        if isinstance(trainer, SmallTrainer):
            trainer.witness.safe[trainer.point] = trainer.epoch

    watch = SimpleNamespace(stop=None, listen=lambda: None)
    with ExitStack() as stack:
        for place, name, value in (
            (tune, "run", fake.run),
            (tune, "with_parameters", fake.with_parameters),
            (sweep_run, "start_ray", lambda record, shared: (subject.parallel, [])),
            (sweep_run, "stop_ray", lambda: None),
            (sweep, "ClusterWatch", lambda lost: nullcontext()),
            (sweep_run, "quiet", lambda record: nullcontext(watch)),
            (sweep, "code_version", lambda: "c0de"),
            (results, "code_version", lambda: "c0de"),
            (sweep, "describe_machine", lambda: "a machine"),
            (sweep, "versions", dict),
            (sweep, "Display", _NoDisplay),
            (sweep_run, "print_start", lambda *_, **__: None),
            (sweep, "print_end", lambda *_, **__: None),
            (references, "reference_metrics", _reference_metrics),
            (Scenario, "hashes", lambda scenario: HASHES),
            (trial, "CHECKPOINT_SECONDS", 0.0),
            (trial, "CHECKPOINT_SHARE", float("inf")),
            (checkpoints, "save", save),
            (mlflow_writer, "threading", SimpleNamespace(**vars(threading) | {"Thread": _NoThread})),
            (mlflow_writer, "time", FastClock()),
        ):
            stack.enter_context(patch.object(place, name, value))
        yield


@functools.cache
def _known_references() -> dict[str, dict[str, float]]:
    return references.reference_metrics(build_config(BPRMFConfig, {"model": "bprmf"}), DATA.trial_data)


def _reference_metrics(config: Any, data: Any) -> dict[str, dict[str, float]]:
    """What simple systems reach is the same for all sweeps here."""
    return _known_references()


class _Screen(Console):
    """A console that shows no spinner, which would be a thread."""

    def status(self, *_: Any, **__: Any) -> Any:
        return nullcontext()


class _NoDisplay:
    """A terminal that nobody looks at."""

    trouble = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def nothing(self, *_: Any) -> None:
        pass

    already = update = say = tell = nothing

    def elapsed(self) -> float:
        return 0.0


class _NoThread:
    """The thread of the writer does not run: `deliver` does its work, in this thread, between two steps."""

    def __init__(self, target: Callable[[], None], **_: Any) -> None:
        self.target = target

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass


class FastClock:
    """`time` for the writer: a sleep returns at once, and its clock is that much later."""

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.slept


class _Idle(BaseException):
    """The writer would wait now."""


def deliver(writer: Any) -> None:
    """Run the writer's own loop until it has nothing to do, or would wait for a server that does not answer."""

    def idle(*_: Any) -> None:
        raise _Idle

    def pause(seconds: float | None = None) -> bool:
        if seconds == mlflow_writer.RETRY_SECONDS:
            raise _Idle
        return False

    with patch.object(writer._arrived, "wait", idle), patch.object(writer._closing, "wait", pause):
        try:
            writer._work()
        except _Idle:
            return
