"""Fixtures that several test files share; `tiny.py` of this folder is importable."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmemf.scenarios.scenario import Scenario, Sequences

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def tiny_scenario():
    """Function that writes the scenario `tiny` below a data root and loads it."""
    return write_tiny


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
