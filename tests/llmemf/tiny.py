"""A scenario small enough to train on in a moment; every size in it is different, so that a swapped axis fails."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from llmemf.batches import DeviceSequences, TrialData, device_sequences
from llmemf.config import build_config
from llmemf.features.matrix import FeatureMatrix
from llmemf.models import model_class
from llmemf.models.llm_emf import LLMEMF, LLMEMFConfig
from llmemf.models.recommender import Recommender
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

NUM_X, NUM_Y, NUM_USERS = 30, 41, 40
NUM_ITEMS = NUM_X + NUM_Y
SIZES = {"train": 45, "valid": 23, "test": 19}
WIDTHS = {"image": 4, "text": 8}
SMALL = {
    "id_dim": 6,
    "max_length": 12,
    "batch_size": 16,
    "eval_batch_size": 7,
    "epochs": 2,
    "dropout": 0.0,
    "device": "cpu",
    "l2": 0.0,
    "lr": 0.01,
}


def random_rows(rng: np.random.Generator, count: int, longest: int) -> list[list[int]]:
    """Sequences of 2 to `longest` items without repeats; every fifth lies in one domain alone."""
    rows = []
    for number in range(count):
        length = int(rng.integers(2, longest + 1))
        pool = (np.arange(NUM_ITEMS), np.arange(NUM_X), np.arange(NUM_X, NUM_ITEMS))[
            {0: 1, 1: 2}.get(number % 10, 0) if number % 5 < 2 else 0
        ]
        rows.append(rng.choice(pool, length, replace=False).tolist())
    return rows


def make_candidates(rng: np.random.Generator, targets: np.ndarray, count: int = 9) -> np.ndarray:
    """`count` items of the target's domain per case, the target excluded; the first row has one fewer."""
    table = np.full((len(targets), count), -1, dtype=np.int32)
    for case, target in enumerate(targets):
        pool = np.arange(NUM_X) if target < NUM_X else np.arange(NUM_X, NUM_ITEMS)
        table[case] = rng.choice(pool[pool != target], count, replace=False)
    table[0, -1] = -1
    return table


def make_scenario(
    seed: int = 0, *, longest: int = 9, rows: dict[str, list[list[int]]] | None = None, name: str = "tiny"
) -> Scenario:
    """A scenario in memory; `rows` replaces the sequences of the splits it names."""
    rng = np.random.default_rng(seed)
    rows = {name: random_rows(rng, count, longest) for name, count in SIZES.items()} | (rows or {})
    splits = {
        split: Sequences.from_rows(np.arange(len(content)) % NUM_USERS, content) for split, content in rows.items()
    }
    scenario = Scenario(
        name=name,
        domains=("film", "book"),
        num_x=NUM_X,
        items=pd.DataFrame(
            {
                "external_id": [f"i{number}" for number in range(NUM_ITEMS)],
                "title": [f"title {number}" for number in range(NUM_ITEMS)],
                "description": "",
                "image": "",
            }
        ),
        user_ids=np.array([f"u{number}" for number in range(NUM_USERS)]),
        candidates={split: make_candidates(rng, splits[split].targets) for split in ("valid", "test")},
        **splits,
    )
    scenario.validate()
    return scenario


def make_features(scenario: Scenario, kind: str, *, missing: tuple[int, ...] = (), seed: int = 1) -> FeatureMatrix:
    """Random rows of any length; those of `missing` are zero and marked so."""
    rng = np.random.default_rng([seed, len(kind)])
    rows = rng.normal(size=(scenario.num_items, WIDTHS[kind])).astype(np.float32) * 3
    has = np.ones(scenario.num_items, dtype=bool)
    has[list(missing)] = False
    rows[~has] = 0
    return FeatureMatrix(kind, "random", rows, has, scenario.items_hash())


NO_IMAGE, NO_TEXT = (0, 3, 17, NUM_X, NUM_X + 5), (3, 4, NUM_X + 5, NUM_X + 6)
"""Items without an image, or without text; items 3 and NUM_X + 5 have neither."""


def make_features_of_both_kinds(scenario: Scenario, *, missing: bool = True) -> dict[str, FeatureMatrix]:
    return {
        "image": make_features(scenario, "image", missing=NO_IMAGE if missing else ()),
        "text": make_features(scenario, "text", missing=NO_TEXT if missing else ()),
    }


def make_data(scenario: Scenario | None = None, *, missing: bool = True) -> TrialData:
    scenario = scenario or make_scenario()
    return TrialData.build(scenario, **make_features_of_both_kinds(scenario, missing=missing))


def make_config(**values) -> LLMEMFConfig:
    return build_config(LLMEMFConfig, {**SMALL, **values})


def make_model(data: TrialData, *, seed: int = 0, **values) -> LLMEMF:
    """A model whose parameters are all far from their initial values (norms and biases too), in evaluation mode."""
    torch.manual_seed(seed)
    model = LLMEMF(make_config(**values), data)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.endswith("log_scale"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def make_sequences(data: TrialData | Scenario, split: str, *, config: LLMEMFConfig | None = None, **changes):
    """A split on the CPU with the settings of a configuration."""
    config = config or make_config()
    settings = {"max_length": config.max_length, "layout": getattr(config, "layout", "compact"), **changes}
    return DeviceSequences(
        getattr(data, split), num_x=data.num_x, num_items=data.num_items, held_out=split != "train", **settings
    )


def whole(sequences: DeviceSequences):
    """One batch of all sequences."""
    return sequences.batch(torch.arange(len(sequences)))


def batch_of(data: TrialData, model: Recommender, split: str):
    """One batch of a whole split, as the model reads it."""
    return whole(device_sequences(model.config, data, split, torch.device("cpu")))


def random_model(data: TrialData, settings: dict, spread: float, *, around_start: bool = False, double: bool = True):
    """A model in evaluation mode whose parameters are all random.

    Args:
        settings: of its configuration.
        spread: standard deviation of a parameter, around 0, or around its initial value where `around_start` is set.
        double: in double precision.
    """
    torch.manual_seed(0)
    model_type = model_class(settings["model"])
    model = model_type(build_config(model_type.config_class, settings), data)
    model = model.double() if double else model
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn_like(parameter) * spread
            parameter.add_(drawn) if around_start else parameter.copy_(drawn)
    return model.eval()
