"""A shop whose items have pictures."""

import dataclasses

import pandas as pd
import pytest

from llmemf.scenarios.scenario import find_scenario


@pytest.fixture
def photo_shop(tmp_path, monkeypatch, tiny_scenario):
    """Function from image cells to a scenario of seven items (or as many as there are cells)."""
    monkeypatch.setenv("LLMEMF_DATA_ROOT", str(tmp_path / "data"))
    base = tiny_scenario(tmp_path / "data")

    def make(cells):
        count = max(len(cells), base.num_items)
        cells = [*cells, *[""] * (count - len(cells))]
        items = pd.DataFrame(
            {"external_id": [f"i{number}" for number in range(count)], "title": "t", "description": ""}
        )
        scenario = dataclasses.replace(base, items=items.assign(image=cells))
        scenario.save(tmp_path / "data", overwrite=True)
        return find_scenario("tiny", tmp_path / "data")

    return make
