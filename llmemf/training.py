"""The trainer of one trial: epochs, early stopping, checkpoints that resume bit for bit.

It knows nothing of sweeps. The state of every random choice is a function of (seed, epoch), so a run that is resumed at
an epoch's end draws what the uninterrupted run draws.

A checkpoint folder holds `state.pt` (plain tensors and numbers: resume), `best.safetensors` (weights of the best epoch)
and `config.yaml` (the trial's configuration and the fingerprint of its data).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmemf.batches import DeviceSequences, TrialData
from llmemf.config import TrialConfig, build_config, read_yaml
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.models import model_class
from llmemf.models.recommender import Recommender, pick_device
from llmemf.ranking import rank_cases, summarise
from llmemf.scenarios.scenario import Scenario

STATE, BEST, CONFIG = "state.pt", "best.safetensors", "config.yaml"


class NonFiniteLoss(ArithmeticError):
    """The loss left the numbers; the message says in which epoch and step, and under which settings."""


class Trainer:
    """Train one model on one scenario and keep the weights of its best epoch.

    Args:
        config: settings of the trial.
        data: training and validation data; the test split is not in it.

    Raises:
        InputError: the configuration does not fit the data.
    """

    def __init__(self, config: TrialConfig, data: TrialData) -> None:
        self.config, self.data = config, data
        self.device = pick_device(config.device)
        with _random_scope(config.seed, 0, self.device):
            self.model: Recommender = model_class(config.model)(config, data).to(self.device)
        self.train_sequences = device_sequences(config, data, "train", self.device)
        self.valid_sequences = device_sequences(config, data, "valid", self.device)
        self.valid_cases = _valid_cases(config, data)
        self.optimizer = _optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self._half and config.precision == "fp16")
        self.epoch = 0
        self.best: dict[str, dict[str, Any]] = {}
        self.stopped = False

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train epoch by epoch and yield the metrics of each.

        Yields:
            `epoch` (absolute, from 1), `objective` (best so far of what is monitored; higher is better), `best_epoch`,
            `stopped_early`, `train/loss`, the validation metrics of `ranking.summarise`, `seconds_train`, `seconds_valid`,
            `sequences_per_second`, and on a GPU `gpu_mem_gb`.

        Raises:
            NonFiniteLoss: the loss of a step was NaN or infinite.
        """
        while self.epoch < self.config.epochs and not self.stopped:
            started = time.perf_counter()
            loss = self._train_epoch(self.epoch + 1)
            trained = time.perf_counter()
            metrics = self._validate()
            self.epoch += 1
            self._remember(metrics)
            best_epoch = max(kept["epoch"] for kept in self.best.values())
            patience = self.config.patience
            self.stopped = bool(patience) and self.epoch - best_epoch >= patience and self.epoch < self.config.epochs
            metrics = {
                "epoch": self.epoch,
                "objective": float(np.mean([kept["value"] for kept in self.best.values()])),
                "best_epoch": best_epoch,
                "stopped_early": self.stopped,
                "train/loss": loss,
                **metrics,
                "seconds_train": trained - started,
                "seconds_valid": time.perf_counter() - trained,
                "sequences_per_second": len(self.train_sequences) / (trained - started),
            }
            if self.device.type == "cuda":
                metrics["gpu_mem_gb"] = torch.cuda.max_memory_allocated(self.device) / 2**30
            yield metrics

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint: all that `load` needs, and the weights of the best epoch."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "stopped": self.stopped,
            "best": self.best,
        }
        torch.save(state, folder / STATE)
        save_best(folder, self.config, self.data.fingerprint, self.best)

    def load(self, folder: str | Path) -> None:
        """Continue where `save` left off.

        Raises:
            InputError: the checkpoint is of another configuration or of other data, or cannot be read.
        """
        stored = read_yaml(Path(folder) / CONFIG)
        if stored["fingerprint"] != self.data.fingerprint:
            raise InputError(
                f"checkpoint {folder} was trained on other data ({stored['fingerprint'][:12]}): start anew"
            )
        differing = sorted(key for key, value in self.config.to_dict().items() if stored["config"].get(key) != value)
        if set(differing) - {"epochs", "device", "patience"}:
            raise InputError(
                f"checkpoint {folder} was trained with another configuration ({', '.join(differing)} differ)"
            )
        state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.stopped, self.best = state["epoch"], state["stopped"], state["best"]

    @property
    def _half(self) -> bool:
        return self.device.type == "cuda" and self.config.precision != "fp32"

    def _train_epoch(self, epoch: int) -> float:
        config = self.config
        self.model.train()
        with _random_scope(config.seed, epoch, self.device):
            order = torch.randperm(len(self.train_sequences), device=self.device)
            losses = []
            for index in order.split(config.batch_size):
                batch = self.train_sequences.batch(index)
                self.optimizer.zero_grad(set_to_none=True)
                with torch.autocast(self.device.type, _DTYPES[config.precision], enabled=self._half):
                    loss = self.model.training_loss(batch)
                if config.l2_mode == "embedding_rows" and (rows := self.model.batch_rows(batch)) is not None:
                    loss = loss + config.l2 * rows.square().sum() / len(batch)
                self.scaler.scale(loss).backward()
                if config.clip_norm:
                    self.scaler.unscale_(self.optimizer)
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                losses.append(loss.detach())
        steps = torch.stack(losses).double().cpu()
        if not bool(steps.isfinite().all()):
            step = int((~steps.isfinite()).int().argmax())
            raise NonFiniteLoss(
                f"loss is {steps[step].item()} in epoch {epoch}, step {step + 1} with {self._settings()}"
            )
        return float(steps.mean())

    def _validate(self) -> dict[str, float]:
        try:
            ranks = rank_cases(
                self.model,
                self.valid_sequences,
                self.data.valid_candidates,
                batch_size=self.config.eval_batch_size,
                ties=self.config.ties,
                cases=self.valid_cases,
            )
        except FloatingPointError as error:
            raise NonFiniteLoss(f"{error}, after epoch {self.epoch + 1} with {self._settings()}") from None
        return summarise(ranks, self.data.domains, "val")

    def _settings(self) -> str:
        defaults = type(self.config)().to_dict()
        changed = {key: value for key, value in self.config.to_dict().items() if value != defaults[key]}
        return ", ".join(
            f"{key} = {value}" for key, value in {"lr": self.config.lr, "l2": self.config.l2, **changed}.items()
        )

    def _remember(self, metrics: Mapping[str, float]) -> None:
        """Keep the weights where the monitored value is better than before: one set, or one per domain."""
        if self.config.monitor == "val_loss":
            values = {"joint": -metrics["val/loss"]}
        elif self.config.selection == "per_domain":
            names = {code: f"val/{domain}/mrr" for code, domain in zip("xy", self.data.domains)}
            values = {code: metrics[name] for code, name in names.items() if name in metrics}
        else:
            values = {"joint": metrics["val/mrr"]}
        for name, value in values.items():
            if name not in self.best or value > self.best[name]["value"]:
                self.best[name] = {"value": value, "epoch": self.epoch, "weights": self.model.trainable_state()}


_DTYPES = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def _random_scope(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Torch's random state as a function of (seed, epoch) inside; the caller's state comes back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def device_sequences(
    config: TrialConfig, data: TrialData | Scenario, split: str, device: torch.device
) -> DeviceSequences:
    """A split on the device, cut to the model's length and layout."""
    return DeviceSequences(
        getattr(data, split),
        num_x=data.num_x,
        num_items=data.num_items,
        max_length=config.max_length,
        held_out=split != "train",
        layout=getattr(config, "layout", "compact"),
        device=device,
    )


def _valid_cases(config: TrialConfig, data: TrialData) -> np.ndarray | None:
    """A sample of validation cases that every trial of a sweep shares, or None for all."""
    if not config.valid_cases or config.valid_cases >= len(data.valid):
        return None
    return np.sort(np.random.default_rng(0).choice(len(data.valid), config.valid_cases, replace=False))


def _optimizer(model: Recommender, config: TrialConfig) -> torch.optim.Optimizer:
    """Adam; L2 leaves vectors (norms, biases, scales, mixture weights) alone."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    other = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    l2 = config.l2 if config.l2_mode in ("adam", "adamw") else 0.0
    groups = [{"params": decayed, "weight_decay": l2}, {"params": other, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if config.l2_mode == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=config.lr, fused=True)


def save_best(folder: Path, config: TrialConfig, fingerprint: str, best: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the weights of the best epoch(s) and the configuration they belong to."""
    tensors: dict[str, Tensor] = {
        f"{name}/{key}": tensor.contiguous() for name, kept in best.items() for key, tensor in kept["weights"].items()
    }
    chosen = {name: {"value": kept["value"], "epoch": kept["epoch"]} for name, kept in best.items()}
    save_file(tensors, folder / BEST, metadata={"best": json.dumps(chosen)})
    content = {"fingerprint": fingerprint, "best": chosen, "config": config.to_dict()}
    (folder / CONFIG).write_text(yaml.safe_dump(content, sort_keys=False))


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
        features: the matrices it was trained with, by kind.
        split: "test" or "valid".

    Returns:
        `{split}/{domain}/{metric}` on stored candidates, `{split}_full/...` on the full catalogue, and their means; with
        `selection: per_domain` every domain is scored by its own weights.

    Raises:
        InputError: the checkpoint belongs to other data, or cannot be read.
    """
    folder = Path(folder)
    stored = read_yaml(folder / CONFIG)
    if stored["fingerprint"] != scenario.fingerprint:
        raise InputError(
            f"checkpoint {folder} was trained on data {stored['fingerprint'][:12]}, scenario {scenario.name!r} "
            f"is {scenario.fingerprint[:12]}: evaluate it on the data it was trained on"
        )
    model_type = model_class(stored["config"]["model"])
    config = build_config(model_type.config_class, {**stored["config"], "device": device}, where=str(folder / CONFIG))
    data = TrialData.build(scenario, **features)
    target = pick_device(config.device)
    sequences = device_sequences(config, scenario, split, target)
    model = model_type(config, data).to(target)
    tensors = load_file(folder / BEST)
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
    ranks = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
    return summarise(ranks, scenario.domains, split)
