"""Fixtures that several test files share; `tiny.py` of this folder is importable."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def tiny_scenario():
    """Function that writes the scenario `tiny` below a data root and loads it."""
    return write_tiny


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Function that writes the scenario `shop` with given titles; the environment knows the fake endpoint's key."""
    from fake_openai import KEY
    from llm_shop import write_shop

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLMEMF_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return lambda titles, **options: write_shop(tmp_path / "data", titles, **options)


def write_tiny(root):
    """Three items of X, four of Y, one user."""
    items = pd.DataFrame(
        {
            "external_id": [f"i{number}" for number in range(7)],
            "title": ["red fox", "red fish", "", "blue fox", "blue fish", "green fox", "   "],
            "description": "",
            "image": "",
        }
    )
    split = Sequences.from_rows([0], [[0, 3, 1]])
    scenario = Scenario(
        name="tiny",
        domains=("film", "book"),
        num_x=3,
        items=items,
        user_ids=np.array(["u"]),
        train=split,
        valid=split,
        test=split,
        candidates={name: np.array([[0, 2]], np.int32) for name in ("valid", "test")},
    )
    return Scenario.load(scenario.save(root))
