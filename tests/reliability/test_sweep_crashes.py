"""A sweep dies at every durable event, in every way that a disk may lose what was not flushed, and is continued.

The worlds that a crash can leave are collected in one run: before each event, the disk as it is (a killed process), and as it
would be after a power failure. For each line of the product and each kind of loss the first, a middle and the last of them is
continued with `--continue`, as a scheduler would do it; the default tests take the first.
"""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest
from durable_events import KINDS, Event, memory_folder, read_tree
from small_sweep import CONFIRMED, GRID, STALE, TPE, Crash, SmallSweep, World, distinct, of_each_site, one_per_site
from verdicts import Facts, Verdict, verdict

PARTS = 4


@functools.cache
def grid_crashes() -> tuple[Facts, list[Crash]]:
    return crashes_of(GRID)


@functools.cache
def tpe_crashes() -> tuple[Facts, list[Crash]]:
    return crashes_of(TPE)


@functools.cache
def confirmed_crashes() -> tuple[Facts, list[Crash]]:
    return crashes_of(CONFIRMED)


def crashes_of(options: dict) -> tuple[Facts, list[Crash]]:
    return SmallSweep(memory_folder(), options).crashes()


def broken(subject: SmallSweep, expected: Facts, crashes: list[Crash]) -> list[str]:
    """Crashes after which the sweep does not come to what it should, each in a line."""
    found = []
    for crash in crashes:
        given, why = verdict(expected, subject.resume(crash.world))
        if given is not Verdict.PASS:
            found.append(f"{given.name}: {crash}: {why}")
    return found


@pytest.mark.parametrize("part", range(2))
def test_a_grid_that_dies_at_any_place_of_the_code_comes_to_the_same(quick_folder, part):
    """One crash per line of the product and kind of loss."""
    expected, crashes = grid_crashes()
    chosen = one_per_site(crashes)
    assert {crash.kind for crash in chosen} == set(KINDS) and len(chosen) > 40
    assert broken(SmallSweep(quick_folder), expected, chosen[part::2]) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_grid_that_dies_anywhere_comes_to_the_same(quick_folder, part):
    """Also in the middle and at the last of the places that are alike; the first ones are those of the test above."""
    expected, crashes = grid_crashes()
    first = {id(crash) for crash in one_per_site(crashes)}
    chosen = [crash for crash in of_each_site(crashes) if id(crash) not in first]
    assert len(first) + len(chosen) > 150
    assert broken(SmallSweep(quick_folder), expected, chosen[part::PARTS]) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_confirmation_that_dies_anywhere_comes_to_the_same(quick_folder, part):
    """Crashes from the last epoch of the search on: rounds, winner, test and results are made anew from the event log."""
    expected, crashes = confirmed_crashes()
    assert expected.results["number of trials"] == 4
    late = of_each_site(crashes[len(crashes) // 3 :])
    assert broken(SmallSweep(quick_folder, CONFIRMED), expected, late[part::PARTS]) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_search_that_dies_anywhere_comes_to_the_same(quick_folder, part):
    """Optuna and successive halving."""
    expected, crashes = tpe_crashes()
    assert broken(SmallSweep(quick_folder, TPE), expected, of_each_site(crashes)[part::PARTS]) == []


def interrupted(subject: SmallSweep, expected: Facts, numbers: set[int]) -> list[str]:
    """SIGTERM arrives at each of these events: the sweep saves and ends, and is continued."""
    found = []
    for number in sorted(numbers):

        def before(event: Event, number: int = number) -> None:
            # Before the sweep listens, the signal ends the process as any other crash does.
            if event.number == number and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                signal.raise_signal(signal.SIGTERM)

        world = World()
        first, _ = subject.drive(world, before=before)
        runs = [run["tags"]["trial"] for run in world.server.runs.values() if run["status"] == "RUNNING"]
        if first.error or runs or first.exit_code not in (0, 130):
            found.append(
                f"SIGTERM at event {number}: exit code {first.exit_code}, {first.error}, still running: {runs}"
            )
        given, why = verdict(expected, subject.resume(world))
        if given is not Verdict.PASS:
            found.append(f"{given.name}: SIGTERM at event {number}: {why}")
    return found


@pytest.mark.parametrize("part", range(2))
def test_a_grid_that_is_asked_to_stop_anywhere_saves_and_continues(quick_folder, part):
    expected, crashes = grid_crashes()
    numbers = {crash.event.number for crash in one_per_site(crashes) if crash.event}
    assert interrupted(SmallSweep(quick_folder), expected, set(sorted(numbers)[part::2])) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_a_confirmation_that_is_asked_to_stop_anywhere_saves_and_continues(quick_folder, part):
    expected, crashes = confirmed_crashes()
    numbers = {crash.event.number for crash in one_per_site(crashes[len(crashes) // 3 :]) if crash.event}
    assert interrupted(SmallSweep(quick_folder, CONFIRMED), expected, set(sorted(numbers)[part::2])) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_search_that_is_asked_to_stop_anywhere_saves_and_continues(quick_folder, part):
    expected, crashes = tpe_crashes()
    numbers = {crash.event.number for crash in of_each_site(crashes) if crash.event}
    assert interrupted(SmallSweep(quick_folder, TPE), expected, set(sorted(numbers)[part::PARTS])) == []


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_crash_of_the_continued_sweep_changes_nothing(quick_folder, place):
    """The driver dies, and so does the one that continues, at events that are spread over all that it does."""
    subject = SmallSweep(quick_folder)
    expected, crashes = grid_crashes()
    crash = crashes[int(place * len(crashes))]
    _, moments = subject.moments(crash.world)
    chosen = moments[:: max(1, len(moments) // 8)]
    second = [Crash(moment.event, kind, world) for moment in chosen for kind, world in list(moment.worlds.items())[-1:]]
    assert broken(subject, expected, second) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_second_crash_at_any_place_of_the_code_changes_nothing(quick_folder, part):
    """Crashes that are spread over the sweep; after each, a part of the places where the continued sweep can die."""
    subject = SmallSweep(quick_folder)
    expected, crashes = grid_crashes()
    for crash in crashes[len(crashes) // 8 * (part + 1) :: len(crashes) // 2]:
        _, moments = subject.moments(crash.world)
        assert broken(subject, expected, one_per_site(distinct(moments))[part % 2 :: 2]) == [], str(crash)


@pytest.mark.parametrize("options", [GRID, CONFIRMED], ids=["grid", "confirmed"])
def test_to_continue_twice_is_to_continue_once(quick_folder, options):
    """A finished sweep that is continued stays byte for byte, apart from its log, which says that it was opened."""
    subject, world = SmallSweep(quick_folder, options), World()
    expected, _ = subject.drive(world)
    before = dict(world.disk)
    again, _ = subject.drive(world)
    assert verdict(expected, again) == (Verdict.PASS, "")
    changed = {name for name in before.keys() | world.disk.keys() if before.get(name) != world.disk.get(name)}
    assert {Path(name).name for name in changed} <= {"journal.jsonl"}


@pytest.mark.slow
def test_a_process_that_really_dies_leaves_the_disk_that_was_recorded(quick_folder):
    """A forked driver ends at once at an event; its disk is that of the recorded moment."""
    subject = SmallSweep(quick_folder)
    _, moments = subject.moments(World())
    for moment in moments[5:-1:23]:
        number = moment.event.number
        child = os.fork()
        if child == 0:
            subject.drive(World(), before=lambda event, number=number: os._exit(77) if event.number == number else None)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
        assert shape(read_tree(quick_folder)) == shape(moment.worlds["kept"].disk), moment.event


def shape(tree: dict) -> dict:
    """A tree without names and contents that hold times or numbers of processes."""
    sizes = {STALE.sub(".tmp", name): None if content is None else len(content) for name, content in tree.items()}
    return {
        name: size
        if not any(part in name for part in ("journal", "report", "leaderboard", ".lock"))
        else size is not None
        for name, size in sizes.items()
        if "write-test" not in name
    }
