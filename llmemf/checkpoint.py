"""A checkpoint folder: written whole, read with checks, and ranked by its best weights.

It holds `state.pt` (plain tensors and numbers: resume), `best.safetensors` (weights of the best epoch) and `config.yaml`
(the trial's configuration, the fingerprint of its data, the hashes of its features and the model's own `facts`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmemf.batches import TrialData, device_sequences
from llmemf.config import TrialConfig, build_config, read_yaml
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.io import write_with
from llmemf.models import model_class
from llmemf.models.recommender import Recommender, pick_device
from llmemf.ranking import rank_cases, summarise
from llmemf.scenarios.scenario import Scenario

STATE, BEST, CONFIG = "state.pt", "best.safetensors", "config.yaml"
RESUME_IGNORED_KEYS = {"epochs", "device", "patience", "chunk_elements"}
"""Settings in which a run may differ from the checkpoint that it resumes: they change no result beyond its rounding."""


def save_best(
    folder: Path,
    config: TrialConfig,
    data: TrialData,
    best: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, str],
) -> None:
    """Write the weights of the best epoch(s), the configuration they belong to and what the model says of itself."""
    tensors: dict[str, Tensor] = {
        f"{name}/{key}": tensor.contiguous() for name, kept in best.items() for key, tensor in kept["weights"].items()
    }
    chosen = {name: {"value": kept["value"], "epoch": kept["epoch"]} for name, kept in best.items()}
    write_whole(folder / BEST, lambda path: save_file(tensors, path, metadata={"best": json.dumps(chosen)}))
    content = {
        "fingerprint": data.fingerprint,
        "features": _feature_hashes(config, data),
        "best": chosen,
        **({"facts": dict(facts)} if facts else {}),
        "config": config.to_dict(),
    }
    write_whole(folder / CONFIG, lambda path: path.write_text(yaml.safe_dump(content, sort_keys=False)))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file of a checkpoint that appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_with(path, write)
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _feature_hashes(config: TrialConfig, data: TrialData) -> dict[str, str]:
    """Hash of each feature matrix that the model reads."""
    return {kind: data.feature_hashes[kind] for kind in sorted(model_class(config.model).needs(config))}


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        InputError: there is no checkpoint, or something else.
    """
    stored = read_yaml(folder / CONFIG)
    if missing := sorted({"fingerprint", "features", "best", "config"} - set(stored)):
        raise InputError(f"{folder / CONFIG} is not of a checkpoint: it lacks {', '.join(missing)}")
    return stored


def check_data(folder: str | Path, stored: Mapping[str, Any], data: TrialData, *, verb: str = "use") -> None:
    """Raise InputError unless a checkpoint was trained on this scenario and these features.

    Args:
        folder: the checkpoint.
        stored: what its `config.yaml` says.
        data: what is at hand.
        verb: what the user should do with the checkpoint and its own data.
    """
    if stored["fingerprint"] != data.fingerprint:
        raise InputError(
            f"checkpoint {folder} was trained on data {stored['fingerprint'][:12]}, this is {data.fingerprint[:12]}: "
            f"{verb} it with the data it was trained on"
        )
    for kind, expected in stored["features"].items():
        if data.feature_hashes.get(kind) != expected:
            raise InputError(
                f"checkpoint {folder} was trained with other {kind} features: {verb} it with those it was trained with"
            )


def evaluate_checkpoint(
    folder: str | Path,
    scenario: Scenario,
    features: Mapping[str, FeatureMatrix],
    split: str = "test",
    *,
    device: str = "auto",
) -> dict[str, float]:
    """Score a chosen checkpoint on a held-out split.

    Args:
        folder: a checkpoint folder (`best.safetensors`, `config.yaml`).
        scenario: the scenario it was trained on; its fingerprint is compared.
        features: the matrices it was trained with, by kind; their hashes are compared.
        split: "test" or "valid".

    Returns:
        `{split}/{domain}/{metric}` on stored candidates, `{split}_full/...` on the full catalogue, and their means; with
        `selection: per_domain` every domain is scored by its own weights.

    Raises:
        InputError: the checkpoint belongs to other data, or cannot be read.
        FloatingPointError: a score is NaN.
    """
    _, ranks = rank_checkpoint(folder, scenario, TrialData.build(scenario, **features), split, device=device)
    return summarise(ranks, scenario.domains, split)


def rank_checkpoint(
    folder: str | Path, scenario: Scenario, data: TrialData, split: str = "test", *, device: str = "auto"
) -> tuple[Recommender, dict[str, np.ndarray]]:
    """Rank every case of a held-out split by the weights of a chosen checkpoint.

    Args:
        folder: a checkpoint folder (`best.safetensors`, `config.yaml`).
        scenario: the scenario it was trained on.
        data: what it was trained on; fingerprint and hashes of features are compared.
        split: "test" or "valid".

    Returns:
        the model, and the arrays that `ranking.rank_cases` gives; with `selection: per_domain` every domain is ranked by
        its own weights, and the model holds those of the last.

    Raises:
        InputError: the checkpoint belongs to other data, or cannot be read.
        FloatingPointError: a score is NaN.
    """
    folder = Path(folder)
    stored = read_checkpoint(folder)
    model_type = model_class(stored["config"]["model"])
    config = build_config(model_type.config_class, {**stored["config"], "device": device}, where=str(folder / CONFIG))
    check_data(folder, stored, data)
    target = pick_device(config.device)
    sequences = device_sequences(config, scenario, split, target)
    model = model_type(config, data).to(target)
    try:
        tensors = load_file(folder / BEST)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / BEST} cannot be read ({first_line(error)}): train again") from None
    targets = scenario.split(split).targets
    found = []
    for name in stored["best"]:
        model.load_state_dict(
            {key.removeprefix(f"{name}/"): t for key, t in tensors.items() if key.startswith(f"{name}/")}
        )
        cases = None if name == "joint" else np.flatnonzero((targets >= scenario.num_x) == (name == "y"))
        found.append(
            rank_cases(
                model,
                sequences,
                scenario.candidates[split],
                batch_size=config.eval_batch_size,
                ties=config.ties,
                cases=cases,
            )
        )
    return model, {key: np.concatenate([part[key] for part in found]) for key in found[0]}
