"""The trainer of one trial: epochs, early stopping, checkpoints from which a run continues bit for bit.

It knows nothing of sweeps. The state of every random choice is a function of (seed, epoch), so a run that is resumed at
an epoch's end draws what the uninterrupted run draws.

On a GPU training has fp32 with TF32 products (`training_precision`); `precision` and `objective_precision` are options.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmemf.batches import TrialData, device_sequences
from llmemf.checkpoint import (
    RESUME_IGNORED_KEYS,
    STATE,
    check_data,
    check_file,
    first_line,
    read_checkpoint,
    save_checkpoint,
)
from llmemf.config import TrialConfig
from llmemf.errors import InputError
from llmemf.io import make_folder
from llmemf.memory import memory_gb
from llmemf.models import model_class
from llmemf.models.recommender import Recommender, pick_device
from llmemf.optimizer import learning_rate, make_optimizer
from llmemf.ranking import rank_cases, summarise


class NonFiniteLoss(ArithmeticError):
    """The loss or a score is NaN or infinite; the message names epoch, step and settings."""


class Trainer:
    """Train one model on one scenario and keep the weights of its best epoch.

    Args:
        config: settings of the trial.
        data: training and validation data; the test split is not in it.

    Raises:
        InputError: the configuration does not fit the data or this machine.
    """

    def __init__(self, config: TrialConfig, data: TrialData) -> None:
        self.config, self.data = config, data
        self.device = pick_device(config.device)
        with _random_scope(config.seed, 0, self.device):
            self.model: Recommender = model_class(config.model)(config, data).to(self.device)
        self.train_sequences = device_sequences(config, data, "train", self.device)
        self.valid_sequences = device_sequences(config, data, "valid", self.device)
        self.valid_cases = chosen_cases(config, data)
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self._half and config.precision == "fp16")
        self.epoch = 0
        self.best: dict[str, dict[str, Any]] = {}
        self.stopped = False
        self.plateaus: list[int] = []
        """Epochs after which the `plateau` schedule lowered the learning rate."""

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train epoch by epoch and yield the metrics of each.

        Yields:
            `epoch` (absolute, from 1), `objective` (best so far of what is monitored; higher is better), `best_epoch`,
            `stopped_early`, `train/loss`, the validation metrics of `ranking.summarise`, `seconds_train`, `seconds_valid`,
            `sequences_per_second`, `cpu_percent` (100 is one core), and the numbers of `memory_gb`.

        Raises:
            NonFiniteLoss: the loss of a step was NaN or infinite.
        """
        while self.epoch < self.config.epochs and not self.stopped:
            started, cpu = time.perf_counter(), time.process_time()
            loss = 0.0 if self.model.closed_form else self._train_epoch(self.epoch + 1)
            trained = time.perf_counter()
            metrics = self._validate()
            self.epoch += 1
            self._remember(metrics)
            if self.epoch - max([self._best_epoch(), *self.plateaus]) >= self.config.plateau_epochs:
                self.plateaus.append(self.epoch)
            self.stopped = self.model.closed_form or self._out_of_patience()
            validated = time.perf_counter()
            yield {
                "epoch": self.epoch,
                "objective": float(np.mean([kept["value"] for kept in self.best.values()])),
                "best_epoch": self._best_epoch(),
                "stopped_early": self.stopped and self.epoch < self.config.epochs,
                "train/loss": loss,
                **metrics,
                "seconds_train": trained - started,
                "seconds_valid": validated - trained,
                "sequences_per_second": len(self.train_sequences) / (trained - started),
                **memory_gb(self.device),
                "cpu_percent": 100 * (time.process_time() - cpu) / (validated - started),
            }

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint: all that `load` needs, and the weights of the best epoch.

        Raises:
            InputError: it cannot be written.
        """
        folder = Path(folder)
        make_folder(folder)
        state = {
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "plateaus": self.plateaus,
        }
        save_checkpoint(folder, state, self.config, self.data, self.best, self.model.facts())

    def load(self, folder: str | Path) -> None:
        """Continue where `save` left off; epochs, patience and device may be others than before.

        Raises:
            InputError: the checkpoint is of another configuration or of other data, is damaged, or cannot be read.
        """
        folder = Path(folder)
        stored = read_checkpoint(folder)
        check_data(folder, stored, self.data)
        wanted, defaults = self.config.to_dict(), type(self.config)().to_dict()
        # A setting that is younger than the checkpoint had its default then.
        differing = sorted(key for key, value in wanted.items() if stored["config"].get(key, defaults[key]) != value)
        # A cosine falls towards the last epoch: with another number of epochs all of them are different.
        ignored = RESUME_IGNORED_KEYS - ({"epochs"} if self.config.lr_schedule == "cosine" else set())
        if set(differing) - ignored:
            raise InputError(
                f"checkpoint {folder} was trained with another configuration ({', '.join(differing)} differ)"
            )
        check_file(folder, STATE, stored)
        try:
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.epoch, self.best, self.plateaus = state["epoch"], state["best"], state.get("plateaus", [])
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise InputError(f"{folder / STATE} cannot be read ({first_line(error)}): start anew") from None
        self.stopped = self.model.closed_form or self._out_of_patience()

    def _best_epoch(self) -> int:
        return max(kept["epoch"] for kept in self.best.values())

    def _out_of_patience(self) -> bool:
        return bool(self.config.patience) and self.epoch - self._best_epoch() >= self.config.patience

    @property
    def _half(self) -> bool:
        return self.device.type == "cuda" and self.config.precision != "fp32"

    def _train_epoch(self, epoch: int) -> float:
        config = self.config
        self.model.train()
        with _random_scope(config.seed, epoch, self.device), training_precision(self.device):
            order = torch.randperm(len(self.train_sequences), device=self.device)
            self.model.plan_epoch(self.train_sequences, order)
            losses = []
            steps = order.split(config.batch_size)
            for number, index in enumerate(steps):
                rate = learning_rate(config, epoch - 1 + (number + 1) / len(steps), len(self.plateaus))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                losses.append(self.step(index))
        return self._mean_loss(torch.stack(losses), epoch)

    def step(self, index: Tensor) -> Tensor:
        """One step on the sequences at `index` (B,).

        Returns:
            the loss, a scalar on the device.
        """
        config, batch = self.config, self.train_sequences.batch(index)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, _DTYPES[config.precision], enabled=self._half):
            loss = self.model.training_loss(batch)
        if config.l2_mode == "embedding_rows" and (rows := self.model.batch_rows(batch)) is not None:
            loss = loss + config.l2 * rows.square().sum() / len(batch)
        self.scaler.scale(loss).backward()
        if config.clip_norm or config.clip_value:
            self.scaler.unscale_(self.optimizer)
        if config.clip_value:
            torch.nn.utils.clip_grad_value_(self.model.parameters(), config.clip_value)
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _mean_loss(self, losses: Tensor, epoch: int) -> float:
        """Mean of the losses of an epoch's steps; raises NonFiniteLoss where one of them is NaN or infinite."""
        steps = losses.double().cpu()
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
def training_precision(device: torch.device) -> Iterator[None]:
    """On a GPU TF32 products of fp32 matrices inside: 10 bits of mantissa, several times the speed. Ranking stays outside."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _random_scope(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Torch's random state as a function of (seed, epoch) inside, epoch 0 being the initialisation; the caller's comes back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def chosen_cases(config: TrialConfig, data: TrialData) -> np.ndarray | None:
    """Indices of a sample of validation cases, the same in every trial of a sweep; None for all of them."""
    if not config.valid_cases or config.valid_cases >= len(data.valid):
        return None
    return np.sort(np.random.default_rng(0).choice(len(data.valid), config.valid_cases, replace=False))
