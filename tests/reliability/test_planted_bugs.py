"""The net holds: each planted mistake is caught, and the product without it is not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_training
from durable_events import Event, write_tree
from file_crashes import broken_order, crashed_disks
from planted_bugs import DRIVERS, GRID, PLANTED, SEARCH, TRAIN
from rich.console import Console
from small_sweep import GRID as GRID_OPTIONS
from small_sweep import TPE, SmallSweep, World, distinct, one_per_site
from small_training import continued, trained
from test_sweep_crashes import grid_crashes, tpe_crashes
from verdicts import Verdict, verdict

from llmemf.errors import InputError
from sweeps.core.run import run_sweep

APPENDED, IN_PLACE = ("journal.jsonl",), (".lock", "ray.log", "mlruns/sweeps/s")


def evidence_of_a_sweep(root: Path, kind: str) -> Iterator[str]:
    """What is wrong with a sweep: its order of events, its results, and what it comes to after crashes."""
    subject = SmallSweep(root, GRID_OPTIONS if kind == GRID else TPE)
    expected, _ = grid_crashes() if kind == GRID else tpe_crashes()
    facts, moments = subject.moments(World())
    given, why = verdict(expected, facts)
    if given is not Verdict.PASS:
        yield f"undisturbed: {given.name}: {why}"
    events = [moment.event for moment in moments if moment.event]
    yield from broken_order(events, appended=APPENDED, in_place=IN_PLACE)
    for crash in one_per_site(distinct(moments)):
        given, why = verdict(expected, subject.resume(crash.world))
        if given is not Verdict.PASS:
            yield f"{given.name}: {crash}: {why}"


def evidence_of_training(root: Path, kind: str) -> Iterator[str]:
    """What is wrong with a checkpoint that is written again and again."""
    small_training.KNOWN.clear()
    folder = root / "run"
    trained()[0].save(folder)
    written = crashed_disks(root, lambda: trained()[1].save(folder))
    yield from broken_order(written.events)
    for where, disk in written.disks:
        write_tree(root, disk)
        try:
            if continued(folder)[1] != after_three_epochs():
                yield f"{where}: other numbers"
        except InputError as error:
            yield f"{where}: {error}"
    small_training.KNOWN.clear()


def after_three_epochs() -> dict[str, float]:
    trainer = small_training.new_trainer(3)
    *_, last = trainer.epochs()
    return {name: value for name, value in last.items() if "/" in name}


def evidence_of_two_drivers(root: Path, kind: str) -> Iterator[str]:
    """What is wrong where a second driver of the same sweep starts in the middle of the first."""
    subject, world = SmallSweep(root), World()
    refused: list[str] = []

    def before(event: Event) -> None:
        if event.number == 60:
            try:
                run_sweep(subject.plan(), Console(file=io.StringIO()), backend=subject.backend(world))
            except InputError as error:
                refused.append(str(error))

    facts, _ = subject.drive(world, before=before)
    if not refused:
        yield "a second driver was not refused"
    given, why = verdict(grid_crashes()[0], facts)
    if given is not Verdict.PASS:
        yield f"{given.name}: {why}"


EVIDENCE = {
    GRID: evidence_of_a_sweep,
    SEARCH: evidence_of_a_sweep,
    TRAIN: evidence_of_training,
    DRIVERS: evidence_of_two_drivers,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVIDENCE)
def test_without_a_planted_bug_the_net_catches_nothing(quick_folder, kind):
    quick_folder.mkdir(exist_ok=True)
    assert list(EVIDENCE[kind](quick_folder, kind)) == []


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_caught(quick_folder, monkeypatch, plant):
    quick_folder.mkdir(exist_ok=True)
    for known in (grid_crashes, tpe_crashes, trained, after_three_epochs):  # as they are without the bug
        if (PLANTED[plant] in (GRID, DRIVERS) and known is tpe_crashes) or (
            PLANTED[plant] == SEARCH and known is grid_crashes
        ):
            continue
        known()
    plant(monkeypatch)
    found = next(EVIDENCE[PLANTED[plant]](quick_folder, PLANTED[plant]), None)
    assert found, f"{plant.__name__} was not caught"
