"""The settings behind docs/results.md: every row builds, and the rows are the systems that the data can carry."""

from __future__ import annotations

import accuracy
import pytest

from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError
from llmemf.models import MODELS, model_class

ROWS = {data: sorted(set(rows) - {"every"}) for data, rows in read_yaml(accuracy.SETTINGS)["rows"].items()}


@pytest.mark.parametrize("data", ROWS)
def test_every_row_is_a_valid_configuration(data):
    for model in ROWS[data]:
        values = accuracy.settings_of(data, model)
        assert build_config(model_class(model).config_class, values).model == model


def test_every_system_has_a_row_wherever_its_features_exist():
    without_texts = set(MODELS) - {"lecdsr"}
    assert {data: set(rows) for data, rows in ROWS.items()} == {
        "beauty_electronics": without_texts,
        "toy_game": without_texts,
        "movie_book_windows": set(MODELS),
    }


def test_an_unknown_row_is_named():
    with pytest.raises(InputError, match=r"lecdsr.*toy_game"):
        accuracy.settings_of("toy_game", "lecdsr")
