import io

import pytest
from four_trials import DOMAINS, RECORDS, record
from rich.console import Console
from sweep_fakes import grow, propose

from sweeps.core import result_tables
from sweeps.state.sweep_state import SweepState


def printed(table, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_and_is_ordered(width):
    text = printed(result_tables.table(RECORDS, DOMAINS, width), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[2:6]] == ["t02", "t01", "t03", "t04"]
    assert all(name in text for name in ("7/8", "0.3000", "pruned", "failed", "3.54e-3", "0.443"))
    assert ("movie N@10" in text) == (width >= 120)
    assert len(lines) == 6, "one line per trial"


def test_only_the_best_ten_are_shown():
    text = printed(result_tables.table([record(i, "completed", i / 100) for i in range(1, 15)], DOMAINS, 120), 120)
    assert len(text.splitlines()) == 12 and "t14" in text and "t04" not in text


def test_rankings_that_say_the_same_share_a_row():
    test = {f"test{ending}/{domain}/mrr": 0.25 for ending in ("", "_full") for domain in DOMAINS}
    test |= {f"test_unseen/{domain}/mrr": 0.5 for domain in DOMAINS}
    lines = printed(result_tables.test_table(test, DOMAINS), 80).splitlines()[2:]
    assert [line.count("0.2500") for line in lines if "0." in line] == [1, 0] * 2
    assert (
        max(map(len, lines)) <= 80
        and sum("stored candidates = all items" in " ".join(line.split()) for line in lines) == 2
    )
    different = test | {f"test_full/{DOMAINS[0]}/mrr": 0.125}
    assert printed(result_tables.test_table(different, DOMAINS), 80).count("0.2500") == 2


@pytest.mark.parametrize("width", [80, 120, 200])
def test_repeats_are_a_mean_in_the_row_of_their_trial(width, tmp_path):
    state = SweepState(tmp_path)
    for value in (0.5, 0.4, 0.3):
        grow(state, propose(state), 4, value=value)
    for number, value in ((1, 0.2), (2, 0.46)):
        grow(state, state.repeat(state.records[number], 1001), 4, value=value)
    lines = printed(result_tables.table(list(state.records.values()), DOMAINS, width), width).splitlines()
    assert [line.split()[:5] for line in lines[2:4]] == [
        ["t02", "4/4", "0.4000", "0.4300", "(2)"],
        ["t01", "4/4", "0.5000", "0.3500", "(2)"],
    ]
    assert len(lines) == 5 and max(map(len, lines)) <= width
