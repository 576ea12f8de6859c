"""`compile: true`: the losses of eager training, or one line where there is no compiler."""

import shutil

import pytest
import torch
from tiny import SMALL, make_data

from llmemf.compilation import check_compiler
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.training import Trainer

SETTINGS = {
    "sasrec": {"dim": 8, "encoder_layers": 1},
    "llm_emf": {"modalities": ["id", "text"], "sequences": ["x", "xy"], "encoder_layers": 1},
}


def losses(name, **values):
    kind = model_class(name).config_class
    given = {**SMALL, "model": name, "dropout": 0.3, **SETTINGS[name], **values}
    settings = {key: value for key, value in given.items() if key in kind.model_fields}
    return [metrics["train/loss"] for metrics in Trainer(build_config(kind, settings), make_data()).epochs()]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_compiled_training_has_the_losses_of_eager_training(name):
    assert losses(name, compile=True) == pytest.approx(losses(name), rel=1e-5)


def test_a_machine_without_a_compiler_is_named_before_anything_runs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"compile = true.*g\+\+"):
        losses("sasrec", compile=True)
    monkeypatch.setenv("CC", "special-cc")
    with pytest.raises(InputError, match="special-cc"):
        check_compiler(torch.device("cuda"))
    losses("sasrec", epochs=1)


def test_a_compiler_that_the_environment_names_is_enough(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "my-c++" else None)
    monkeypatch.setenv("CXX", "my-c++")
    check_compiler(torch.device("cpu"))
