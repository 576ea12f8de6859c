"""The folder of an exported model: written from a checkpoint, loaded without the scenario.

    README.md          model card
    model.json         system, scenario, domains, counts, fingerprints, notes, where it came from, one hash per file
    config.yaml        configuration, data fingerprint, feature hashes: the checkpoint's own
    best.safetensors   weights of the best epoch(s): the checkpoint's own, bit for bit
    data.safetensors   what the system is built on beside its weights: frozen feature rows, and the training sequences
                       where its state follows from them (item graphs, neighbours, known users); how often each
                       item occurs in training, for people of whom nothing is known
    items.parquet      external_id, title: one row per item in global order
    metrics.json       the numbers that were logged in training (`valid`) and by the evaluation on the test split (`test`)

Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import Tensor

from llmemf.batches import TrialData
from llmemf.checkpoint import BEST, CONFIG, check_data, read_best, read_checkpoint, stored_config, weights_of
from llmemf.command_line import command_line
from llmemf.config import TrialConfig
from llmemf.errors import InputError
from llmemf.export.card import model_card
from llmemf.features.matrix import FeatureMatrix
from llmemf.io import atomic_folder, file_hash, read_json_model
from llmemf.models import model_class
from llmemf.models.recommender import Recommender, pick_device
from llmemf.models.unseen_items import UnseenItems
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

FORMAT = 1
REMEDY = "export the model again"
MANIFEST, DATA, ITEMS, METRICS, CARD = "model.json", "data.safetensors", "items.parquet", "metrics.json", "README.md"
HASHED = (CONFIG, BEST, DATA, ITEMS, METRICS)
SEQUENCE_PARTS = ("users", "offsets", "items", "times")
COUNTS = "train.counts"


class _Manifest(BaseModel):
    """What `model.json` says; a later version may say more."""

    model_config = ConfigDict(extra="allow")

    system: str
    status: str
    facts: dict[str, Any]
    scenario: str
    fingerprint: str
    domains: tuple[str, str]
    num_x: int
    num_items: int
    num_users: int
    sequences: dict[str, int]
    features: dict[str, dict[Literal["encoder", "hash"], str]]
    training_sequences: bool
    source: dict[str, Any]
    notes: list[str]
    files: dict[str, str]


@dataclass(frozen=True)
class ExportedModel:
    """The content of a folder, its model ready to score.

    Attributes:
        manifest: the content of `model.json`.
        items: `external_id` and `title` in global order.
        metrics: logged numbers by split.
        models: the model of domain X and that of domain Y; one and the same unless `selection: per_domain`.
        counts: (num_items,) how often each item occurs in training; None in a folder of an earlier version that lacks it.
    """

    folder: Path
    manifest: dict[str, Any]
    config: TrialConfig
    items: pd.DataFrame
    metrics: dict[str, dict[str, float]]
    models: tuple[Recommender, Recommender]
    device: torch.device
    counts: np.ndarray | None

    @property
    def domains(self) -> tuple[str, str]:
        return self.manifest["domains"]

    @property
    def num_x(self) -> int:
        return self.manifest["num_x"]

    @property
    def num_items(self) -> int:
        return len(self.items)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> ExportedModel:
        """Read a folder and build its model.

        Raises:
            InputError: there is no exported model, it has another format, or a file is missing, damaged or changed.
        """
        folder = Path(folder)
        try:
            manifest = read_json_model(folder / MANIFEST, _Manifest, REMEDY, version=FORMAT).model_dump()
        except FileNotFoundError:
            export = command_line("export", "NAME")
            raise InputError(
                f"{folder} holds no exported model ({MANIFEST} is missing): `{export}` makes one of a sweep's best trial"
            ) from None
        for name, expected in manifest["files"].items():
            if file_hash(folder / name) != expected:
                raise InputError(f"{folder / name} was changed after it was exported: {REMEDY}")
        stored = read_checkpoint(folder)
        config = stored_config(folder, stored, device=device)
        try:
            arrays = load_arrays(folder / DATA)
            data = _trial_data(manifest, arrays)
            tensors, items = load_file(folder / BEST), pd.read_parquet(folder / ITEMS)
            metrics = json.loads((folder / METRICS).read_text())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{folder} cannot be read ({error}): {REMEDY}") from None
        target = pick_device(config.device)
        models = build_models(config, data, stored["best"], tensors, target)
        counts = arrays.get(COUNTS)
        if counts is None and manifest["training_sequences"]:
            counts = np.bincount(data.train.items, minlength=data.num_items)
        return cls(folder, manifest, config, items, metrics, models, target, counts)


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds an exported model."""
    return (Path(folder) / MANIFEST).exists()


def export_checkpoint(
    checkpoint: str | Path,
    scenario: Scenario,
    features: Mapping[str, FeatureMatrix],
    target: str | Path,
    *,
    metrics: Mapping[str, Mapping[str, float]],
    source: Mapping[str, str],
    notes: list[str],
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint as a folder that needs nothing else; it appears whole or not at all.

    Args:
        checkpoint: a folder with `best.safetensors` and `config.yaml`.
        scenario: the scenario it was trained on; its fingerprint is compared.
        features: the matrices it was trained with, by kind; their hashes are compared.
        metrics: what was logged, by split ("valid", "test").
        source: plain facts about where the model comes from (sweep, trial, code), for the model card.
        notes: what a reader of its numbers must know.

    Raises:
        InputError: the checkpoint belongs to other data, cannot be read, or the folder exists or cannot be written.
    """
    checkpoint, target = Path(checkpoint), Path(target)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already: give --overwrite to replace it, or another folder with --out")
    if target.exists() and not is_exported(target):
        raise InputError(f"{target} exists and holds no exported model: it is not overwritten; give another folder")
    stored = read_checkpoint(checkpoint)
    config = stored_config(checkpoint, stored, device="cpu")
    data = TrialData.build(scenario, **features)
    check_data(checkpoint, stored, data, verb="export")
    tensors = read_best(checkpoint, stored)
    keeps_training = _state_follows_from_training(config, data)
    kept = data.train if keeps_training else Sequences.from_rows([], [])
    arrays = {f"train.{part}": getattr(kept, part) for part in SEQUENCE_PARTS}
    arrays[COUNTS] = np.bincount(data.train.items, minlength=data.num_items)
    for name in stored["features"]:
        matrix: FeatureMatrix = getattr(data, name)
        arrays |= {f"{name}.rows": matrix.rows, f"{name}.has": matrix.has}
    model = build_models(config, data, stored["best"], tensors, torch.device("cpu"))[0]
    counts = {name: getattr(scenario, name) for name in ("num_x", "num_items", "num_users")}
    manifest = {
        "format": FORMAT,
        "system": config.model,
        "status": model.status,
        "facts": model.facts(),
        "scenario": scenario.name,
        "fingerprint": scenario.fingerprint,
        "domains": list(scenario.domains),
        **counts,
        "sequences": {name: len(scenario.split(name)) for name in ("train", "valid", "test")},
        "features": {
            name: {"encoder": features[name].encoder, "hash": digest} for name, digest in stored["features"].items()
        },
        "best": stored["best"],
        "training_sequences": keeps_training,
        "source": dict(source),
        "notes": list(notes),
    }
    with atomic_folder(target) as temporary:
        for name in (CONFIG, BEST):
            shutil.copyfile(checkpoint / name, temporary / name)
        save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary / DATA)
        scenario.items[["external_id", "title"]].to_parquet(temporary / ITEMS, index=False)
        # safetensors writes for the owner alone, whatever the umask says.
        (temporary / DATA).chmod((temporary / ITEMS).stat().st_mode)
        (temporary / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
        manifest["files"] = {name: file_hash(temporary / name) for name in HASHED}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        examples = scenario.items.external_id[[*range(2), scenario.num_x]].tolist()
        card = model_card(manifest, config, metrics, source_of_system=model.source, examples=examples, name=target.name)
        (temporary / CARD).write_text(card)
    return target


def build_models(
    config: TrialConfig,
    data: TrialData,
    best: Collection[str],
    tensors: Mapping[str, Tensor],
    device: torch.device,
) -> tuple[Recommender, Recommender]:
    """The models of X and of Y with their weights, in evaluation mode, for one more user: the last one, who has no history.

    Args:
        data: what they are built on.
        best: sets of weights: `joint`, or `x` and `y`.
        tensors: weights as in a checkpoint, by set; a system in closed form has none. Tables with one row per user get a row
            of zeros for the one who was added.

    Raises:
        InputError: the weights do not fit the configuration.
    """
    profile = data.profile
    if profile is not None:
        rows = np.concatenate([profile.rows, np.zeros_like(profile.rows[:1])])
        profile = replace(profile, rows=rows, has=np.append(profile.has, False))
    data, found = replace(data, num_users=data.num_users + 1, profile=profile), {}
    for name in best:
        own = weights_of(tensors, name)
        model = model_class(config.model)(config, data)
        for key, expected in model.state_dict().items():
            tensor = own.get(key, expected)
            if tensor.shape != expected.shape == (data.num_users, *tensor.shape[1:]):
                own[key] = torch.cat([tensor, tensor.new_zeros(1, *tensor.shape[1:])])
        try:
            model.load_state_dict(own)
        except RuntimeError as error:
            raise InputError(f"the weights do not fit the configuration: {' '.join(str(error).split())}") from None
        found[name] = model.to(device).eval()
    return (found["joint"], found["joint"]) if "joint" in found else (found["x"], found["y"])


def _state_follows_from_training(config: TrialConfig, data: TrialData) -> bool:
    """Whether a system cannot be built without the training sequences, or has other buffers without them."""
    empty = replace(data, train=Sequences.from_rows([], []))
    kind = model_class(config.model)
    whole = kind(config, data)
    try:
        bare = kind(config, empty)
    except Exception:  # noqa: BLE001  a system that fails without data needs the data, whatever it raises
        return True
    # Tables that only draw negatives are of no use after training.
    drawing = tuple(f"{name}." for name, module in whole.named_modules() if isinstance(module, UnseenItems))
    others = dict(bare.named_buffers())
    return any(
        name not in others or not torch.equal(buffer, others[name])
        for name, buffer in whole.named_buffers()
        if not name.startswith(drawing)
    )


def _trial_data(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> TrialData:
    """The data that the system was built on; sequences are empty where its state does not follow from them."""
    given: dict[str, Any] = {
        name: manifest[name] for name in ("domains", "num_x", "num_items", "num_users", "fingerprint")
    }
    given |= dict.fromkeys(("text", "image", "profile"))
    given |= {
        kind: FeatureMatrix(kind, fact["encoder"], arrays[f"{kind}.rows"], arrays[f"{kind}.has"], "")
        for kind, fact in manifest["features"].items()
    }
    return TrialData(
        train=Sequences(*(arrays[f"train.{part}"] for part in SEQUENCE_PARTS)),
        valid=Sequences.from_rows([], []),
        valid_candidates=np.zeros((0, 1), np.int32),
        **given,
    )
