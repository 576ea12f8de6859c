"""A checkpoint folder: written whole, read with checks, and ranked by its best weights.

It holds `state.pt` (plain tensors and numbers: resume), `best.safetensors` (weights of the best epoch) and `config.yaml`
(the trial's configuration, the fingerprint of its data, the hashes of its features and of both files, the model's own `facts`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmemf.batches import DeviceSequences, TrialData, device_sequences
from llmemf.config import TrialConfig, build_config, read_yaml
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.io import atomic_file, file_hash, storage_errors, write_text
from llmemf.models import model_class
from llmemf.models.recommender import Recommender, pick_device
from llmemf.ranking import rank_cases, side_metrics, summarise
from llmemf.removed import without_removed
from llmemf.scenarios.scenario import Scenario

STATE, BEST, CONFIG = "state.pt", "best.safetensors", "config.yaml"
RESUME_IGNORED_KEYS = {"epochs", "device", "patience", "chunk_elements"}
"""Settings in which a run may differ from the checkpoint that it resumes: they change no result beyond its rounding."""


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Any],
    config: TrialConfig,
    data: TrialData,
    best: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, str],
) -> None:
    """Write a checkpoint; when a save fails or is killed, the folder holds the one before, or none where this is the first.

    Args:
        state: plain tensors and numbers for `state.pt`.
        best: by set of weights ("joint", or "x" and "y"): `value`, `epoch`, and `weights` by name.
        facts: what the model was built on beside configuration and features.

    Raises:
        StorageError: a file cannot be written.
    """
    tensors: dict[str, Tensor] = {
        f"{name}/{key}": tensor.contiguous() for name, kept in best.items() for key, tensor in kept["weights"].items()
    }
    chosen = {name: {"value": kept["value"], "epoch": kept["epoch"]} for name, kept in best.items()}
    is_first = not is_checkpoint(folder)
    if is_first:
        # One of a save that was killed names other files.
        (folder / CONFIG).unlink(missing_ok=True)
    with atomic_file(folder / STATE) as state_file, atomic_file(folder / BEST) as best_file:
        with storage_errors(folder / BEST, (SafetensorError,)):
            save_file(tensors, best_file, metadata={"best": json.dumps(chosen)})
        # To a file of Python's: torch's own writer does not say why it failed.
        with storage_errors(folder / STATE, (RuntimeError,)), state_file.open("wb") as file:
            torch.save(dict(state), file)
        content = {
            "fingerprint": data.fingerprint,
            "features": {kind: data.feature_hashes[kind] for kind in sorted(model_class(config.model).needs(config))},
            "best": chosen,
            **({"facts": dict(facts)} if facts else {}),
            "sha256": _valid_hashes(folder, {STATE: file_hash(state_file), BEST: file_hash(best_file)}),
            "config": config.to_dict(),
        }
        text = yaml.safe_dump(content, sort_keys=False)
        if not is_first:
            # Before the other two: it has the hashes of the files that they replace as well.
            write_text(folder / CONFIG, text)
    if is_first:
        # After the other two: without it there is no checkpoint.
        write_text(folder / CONFIG, text)


def is_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint was written there; a kill in the middle of the first save leaves none."""
    return (folder / CONFIG).exists() and any((folder / name).exists() for name in (STATE, BEST))


def _valid_hashes(folder: Path, written: Mapping[str, str]) -> dict[str, list[str]]:
    """By file the hash of this save and of the two before: a kill may leave a file of an earlier save beside this one's."""
    before = read_yaml(folder / CONFIG).get("sha256", {}) if (folder / CONFIG).exists() else {}
    return {name: [digest, *before.get(name, [])[:2]] for name, digest in written.items()}


def check_file(folder: Path, name: str, stored: Mapping[str, Any]) -> None:
    """Raise InputError where a file is not as it was written; checkpoints of earlier versions hold no hashes and pass."""
    valid = stored.get("sha256", {}).get(name)
    if valid and file_hash(folder / name) not in valid:
        raise InputError(f"{folder / name} is damaged (its SHA-256 is not in {CONFIG}): restore it, or train anew")


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's `config.yaml`, its configuration without settings that no longer exist.

    Raises:
        InputError: there is no checkpoint, or something else.
    """
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder} holds no trained model ({CONFIG} is missing): name the --output of a training")
    stored = read_yaml(folder / CONFIG)
    if missing := sorted({"fingerprint", "features", "best", "config"} - set(stored)):
        raise InputError(f"{folder / CONFIG} is not of a checkpoint: it lacks {', '.join(missing)}")
    return {**stored, "config": without_removed(stored["config"], where=str(folder / CONFIG))}


def stored_config(folder: Path, stored: Mapping[str, Any], **changes: Any) -> TrialConfig:
    """The configuration of a checkpoint that was read, with changes.

    Raises:
        InputError: this version does not take it.
    """
    kind = model_class(stored["config"]["model"]).config_class
    return build_config(kind, {**stored["config"], **changes}, where=str(folder / CONFIG))


def weights_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of one set out of what `read_best` gave, by their names in the model."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def read_best(folder: Path, stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the best epoch(s), by set and name: `joint/...`, or `x/...` and `y/...`.

    Raises:
        InputError: the file is damaged or cannot be read.
    """
    check_file(folder, BEST, stored)
    try:
        return load_file(folder / BEST)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / BEST} cannot be read ({first_line(error)}): train again") from None


def check_data(folder: str | Path, stored: Mapping[str, Any], data: TrialData, *, verb: str = "use") -> None:
    """Raise InputError unless a checkpoint was trained on this scenario and these features; `verb` is what the user wants."""
    if stored["fingerprint"] != data.fingerprint:
        raise InputError(
            f"checkpoint {folder} was trained on data {stored['fingerprint'][:12]}, this is {data.fingerprint[:12]}: "
            f"{verb} it with the data it was trained on"
        )
    for kind, expected in stored["features"].items():
        if data.feature_hashes.get(kind) != expected:
            raise InputError(
                f"checkpoint {folder} was trained with other {kind} features than there are now: {verb} it with those it "
                "was trained with, or train again"
            )


def evaluate_checkpoint(
    folder: str | Path,
    scenario: Scenario,
    features: Mapping[str, FeatureMatrix],
    split: str = "test",
    *,
    device: str = "auto",
) -> dict[str, float]:
    """Score a chosen checkpoint on a held-out split; features by kind, arguments and errors else as of `rank_checkpoint`.

    Returns:
        `{split}/{domain}/{metric}` on stored candidates, `{split}_full/...` on the full catalogue, and their means.
    """
    _, ranks = rank_checkpoint(folder, scenario, TrialData.build(scenario, **features), split, device=device)
    return all_metrics(ranks, scenario, split)


def all_metrics(ranks: dict[str, np.ndarray], scenario: Scenario, split: str) -> dict[str, float]:
    """The metrics of a split, on test with those beside accuracy, of what `rank_checkpoint` gave."""
    found = summarise(ranks, scenario.domains, split)
    if "top" in ranks:
        found |= side_metrics(ranks, scenario.domains, (scenario.num_x, scenario.num_y), split)
    return found


def rank_checkpoint(
    folder: str | Path, scenario: Scenario, data: TrialData, split: str = "test", *, device: str = "auto"
) -> tuple[Recommender, dict[str, np.ndarray]]:
    """Rank every case of a held-out split by the weights of a chosen checkpoint.

    Args:
        data: of the scenario and features it was trained on; fingerprint and hashes are compared.
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
    config = stored_config(folder, stored, device=device)
    check_data(folder, stored, data)
    target = pick_device(config.device)
    sequences = device_sequences(config, scenario, split, target)
    model = model_class(config.model)(config, data).to(target)
    tensors = read_best(folder, stored)
    targets = scenario.split(split).targets

    def parts() -> Iterator[tuple[Recommender, np.ndarray | None]]:
        for name in stored["best"]:
            model.load_state_dict(weights_of(tensors, name))
            yield model, None if name == "joint" else np.flatnonzero((targets >= scenario.num_x) == (name == "y"))

    return model, rank_split(parts(), config, sequences, scenario, split)


def rank_split(
    parts: Iterable[tuple[Recommender, np.ndarray | None]],
    config: TrialConfig,
    sequences: DeviceSequences,
    scenario: Scenario,
    split: str,
) -> dict[str, np.ndarray]:
    """The arrays of `ranking.rank_cases` for models and the cases that each of them ranks (None for all), end to end."""
    settings: dict[str, Any] = {"batch_size": config.eval_batch_size, "ties": config.ties, "lists": split == "test"}
    candidates = scenario.candidates[split]
    found = [rank_cases(model, sequences, candidates, cases=cases, **settings) for model, cases in parts]
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}
