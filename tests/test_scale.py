"""docs/scale.md: what the model carries on stands there as it comes out, and the benchmark's parts run."""

import re
from pathlib import Path

import pytest

from benchmarks import scale
from sweeps.costs import scaling

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scale.md").read_text()
ITEMS = (1e4, 1e5, 1e6, 1e7)


@pytest.fixture(scope="module")
def sizes():
    return scale.movie_book()


def row(beginning):
    """The cells of a table's row as lists of the numbers in each."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {beginning}"))
    return [[float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)] for cell in line.split("|")[2:-1]]


def by_items(size, figure):
    return [figure(size.grown(items / size.num_items, "items")) for items in ITEMS]


@pytest.mark.parametrize("objective", ["exact", "sampled"])
def test_roofs_of_gpus(sizes, objective):
    for place, device in enumerate((scaling.H200, scaling.RTX4090)):
        seconds = by_items(sizes[objective], lambda size, device=device: scaling.train_seconds(size, device))
        printed = [cell[place] for cell in row(f"{objective}: roof of")]
        assert printed == pytest.approx(seconds, rel=0.06)


def test_bytes_by_items(sizes):
    copied = [1e-9 * value for value in by_items(sizes["exact"], scaling.frozen_bytes)]
    printed = row("frozen tables: copied")
    assert [cell[0] for cell in printed][1:] == pytest.approx(copied[1:], rel=0.05)
    assert [cell[1] for cell in printed][1:] == pytest.approx([value / 2 for value in copied[1:]], rel=0.05)
    for place, objective in enumerate(("exact", "sampled")):
        held = [1e-9 * value for value in by_items(sizes[objective], scaling.trial_bytes)]
        assert [cell[place] for cell in row("what grows in a trial")] == pytest.approx(held, rel=0.05)


def test_a_part_of_each_kind_runs():
    found = scale.items_part(300, "sampled", 4, 1)
    assert found["step"] > 0 and found["train share"] > 0
    assert scale.features_part(200, "fp16")["sent"] < 1000 < scale.features_part(200, "copied")["sent"]
    users = scale.users_part(50)
    assert users["device bytes"] > 0 and users["interactions"] > 9 * 50
