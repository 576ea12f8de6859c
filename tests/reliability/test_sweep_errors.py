"""The disk or the server fails a sweep at every operation, once or for ever: it says so, and continues to the same results.

As SQLite tests itself: the first operation fails, then the second, and so on, and all of it twice: once alone, and once with
all that follow.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from durable_events import ERRORS, Event, fails_at
from small_sweep import GRID, TPE, Crash, SmallSweep, World, of_each_site, one_per_site
from test_sweep_crashes import grid_crashes, tpe_crashes
from verdicts import Verdict, verdict

from llmemf.errors import InputError

SUBJECTS = {"grid": (GRID, grid_crashes), "search": (TPE, tpe_crashes)}


def numbers_of(subject: str, choose: Callable[[list[Crash]], list[Crash]] = one_per_site) -> list[int]:
    """Events of the disk, chosen by the line of the product."""
    _, crashes = SUBJECTS[subject][1]()
    return sorted(
        {crash.event.number for crash in choose(crashes) if crash.event and not crash.event.kind.startswith("mlflow")}
    )


def after_errors(root, subject: str, numbers: list[int], code: int, for_ever: bool) -> list[str]:
    """What is wrong with sweeps of which these operations fail: how they end, and what they come to afterwards."""
    options, crashes = SUBJECTS[subject]
    expected, _ = crashes()
    found = []
    for number in numbers:
        small, world = SmallSweep(root, options), World()
        fails = (lambda n, number=number: n >= number) if for_ever else (lambda n, number=number: n == number)
        first, _ = small.drive(world, before=fails_at(fails, code))
        where = f"event {number}"
        if first.stuck or (first.error and not isinstance(small.raised, InputError)):
            found.append(f"{where}: {first.error}")
        if first.error and str(root) not in first.error:
            found.append(f"{where}: no path in {first.error}")
        if for_ever and first.exit_code == 0:
            found.append(f"{where}: exit code 0, and nothing could be written")
        given, why = verdict(expected, small.resume(world))
        if given is not Verdict.PASS:
            found.append(f"{where}: afterwards {given.name}: {why}")
    return found


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
def test_a_grid_whose_disk_is_full_at_any_place_of_the_code(quick_folder, for_ever):
    assert after_errors(quick_folder, "grid", numbers_of("grid"), ERRORS["ENOSPC"], for_ever) == []


@pytest.mark.slow
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_sweep_whose_disk_fails_anywhere(quick_folder, subject, code, for_ever):
    """Codes are alike to the driver: each takes its part of the events."""
    numbers = numbers_of(subject, of_each_site)[list(ERRORS).index(code) :: len(ERRORS)]
    assert after_errors(quick_folder, subject, numbers, ERRORS[code], for_ever) == []


# The server.

FAULTS = {
    "HTTP 500": ConnectionError("API request failed with error code 500"),
    "timeout": TimeoutError("read timed out"),
    "database is locked": RuntimeError("(sqlite3.OperationalError) database is locked"),
}


def calls_of_the_server(root) -> int:
    world, count = World(), []
    SmallSweep(root).drive(world, client=count.append)
    return len(count)


def failing_server(numbers, fault: Exception):
    """A `client` that lets calls with these numbers fail."""
    count = [0]

    def client(name: str) -> None:
        count[0] += 1
        if numbers(count[0]):
            raise fault

    return client


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first_way", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "for ever"])
def test_a_server_that_fails_at_any_call_loses_nothing(quick_folder, first_way, fault):
    """Once and for ever in turn: what the default tests have once, the slow ones have for ever."""
    expected, _ = grid_crashes()
    subject, count, found = SmallSweep(quick_folder), calls_of_the_server(quick_folder), []
    # Kinds of faults are alike to the writer: each takes its part of the calls.
    for turn, number in enumerate(range(1 + list(FAULTS).index(fault), count + 1, len(FAULTS))):
        for_ever = first_way ^ bool(turn % 2)
        world = World()
        fails = (lambda n, number=number: n >= number) if for_ever else (lambda n, number=number: n == number)
        first, _ = subject.drive(world, client=failing_server(fails, FAULTS[fault]))
        if first.stuck or (first.error and not isinstance(subject.raised, InputError)):
            found.append(f"call {number}: {first.error}")
        if not first.error and first.results["values"] != expected.results["values"]:
            found.append(f"call {number}: trials have other values")
        given, why = verdict(expected, subject.resume(world))
        if given is not Verdict.PASS:
            found.append(f"call {number}: afterwards {given.name}: {why}")
    assert found == []


def test_a_call_that_was_carried_out_before_its_answer_was_lost_is_not_carried_out_twice(quick_folder):
    expected, _ = grid_crashes()
    found = []
    for number in range(1, calls_of_the_server(quick_folder) + 1):
        subject, world = SmallSweep(quick_folder), World()
        count = [0]

        def answer_lost(name: str, number: int = number, count: list[int] = count) -> None:
            count[0] += 1
            if count[0] == number:
                raise TimeoutError(f"no answer to {name}")

        facts, _ = subject.drive(world, answered=answer_lost)
        facts = facts if not facts.error else subject.resume(world)
        given, why = verdict(expected, facts)
        if given is not Verdict.PASS:
            found.append(f"call {number}: {given.name}: {why}")
    assert found == []


def test_a_fault_below_a_trial_is_told_with_its_path(quick_folder):
    """A checkpoint that cannot be written: the sweep ends in order, and the trial is not one that failed by itself."""
    world, subject = World(), SmallSweep(quick_folder)
    written: list[Event] = []

    def before(event: Event) -> None:
        if event.kind == "rename" and "epoch-0002" in event.target:
            written.append(event)
            raise OSError(ERRORS["ENOSPC"], "No space left on device", event.path)

    first, _ = subject.drive(world, before=before)
    assert written and first.exit_code != 0
    assert subject.resume(world).results["outcomes"] == grid_crashes()[0].results["outcomes"]
