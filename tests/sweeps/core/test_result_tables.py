import io

import pytest
from four_trials import DOMAINS, RECORDS, record
from rich.console import Console

from sweeps.core import result_tables


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
