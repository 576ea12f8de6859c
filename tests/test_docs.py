"""The example of docs/adding_a_model.md works: it is registered, trained and swept."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from llmemf import models
from llmemf.config import build_config
from llmemf.models.overview import settings
from llmemf.training import Trainer

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "adding_a_model.md").read_text()
sys.path.append(str(ROOT / "tests" / "llmemf"))
NAME = "fading_mean"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The page's file as a module under the name it gives, and the page's line in `MODELS`."""
    source, line = blocks("python")
    module = "llmemf.models.fading_mean"
    path = tmp_path / "fading_mean.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(module, path)
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, loaded)
    spec.loader.exec_module(loaded)
    (entry,) = eval("{" + line + "}").items()
    monkeypatch.setitem(models.MODELS, *entry)
    return loaded


def configuration(**values):
    kind = models.model_class(NAME).config_class
    given = {"model": NAME, "dim": 8, "epochs": 4, "batch_size": 16, "lr": 0.03, "dropout": 0.0, "device": "cpu"}
    return build_config(kind, {**given, **values})


@pytest.mark.slow
def test_the_example_is_trained_and_scored(registered):
    from tiny import NUM_ITEMS, NUM_X, make_data

    trainer = Trainer(configuration(), make_data())
    assert isinstance(trainer.model, registered.FadingMean)
    epochs = list(trainer.epochs())
    assert epochs[-1]["train/loss"] < epochs[0]["train/loss"] - 0.1
    batch = trainer.valid_sequences.batch(torch.arange(5))
    assert [trainer.model.score_all(batch, d).shape[1] for d in (0, 1)] == [NUM_X, NUM_ITEMS - NUM_X]


def test_the_example_computes_its_equation(registered):
    from tiny import NUM_ITEMS, make_data

    model = Trainer(configuration(gamma=0.5), make_data()).model
    items = torch.tensor([[NUM_ITEMS, 4, 35, 7]])
    a, b, c = (model.items[item] for item in (4, 35, 7))
    expected = [torch.zeros(8), a, (0.5 * a + b) / 1.5, (0.25 * a + 0.5 * b + c) / 1.75]
    torch.testing.assert_close(model.states(items)[0], torch.stack(expected))


def test_the_example_can_be_listed_and_swept(registered):
    from sweeps.search.space_entries import build_space

    assert all(row.text for row in settings(registered.FadingMeanConfig, NAME))
    space = build_space(registered.FadingMean.search_space)
    assert {key for block in space.blocks for key in block.keys} == {"lr", "l2", "gamma"}
