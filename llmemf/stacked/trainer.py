"""K trials of one shape in lockstep: each has its own batches, draws, hyperparameters and early stopping.

The members are ordinary `Trainer`s. While they are stacked their parameters lie side by side and every training step is
one pass over all of them; between epochs each validates, stops, saves and leaves on its own, and its checkpoint is that of a
`Trainer`. What a member draws is what it would draw alone, so that it learns the same up to rounding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llmemf.config import TrialConfig
from llmemf.errors import InputError
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.stacked.parameters import StackedParameters
from llmemf.stacked.tower import StackedTower, module_groups, unreached_modules
from llmemf.training import NonFiniteLoss, Trainer, epoch_seed

OWN = (
    "seed", "epochs", "patience", "monitor", "selection", "eval_batch_size", "valid_cases", "ties", "lr", "l2", "dropout",
    "clip_norm", "clip_value", "preset", "alpha", "beta", "lambda1", "lambda2", "eval_lambda1", "eval_lambda2", "score_roles",
    "cross_softmax", "scale_init", "chunk_elements",
)  # fmt: skip
"""Settings that may differ between the members of a stack."""


def stack_problem(config: TrialConfig) -> str:
    """Why a trial cannot be stacked, in words; empty where it can."""
    if not isinstance(config, LLMEMFConfig):
        return f"model = {config.model} has no stacked form; llm_emf has one"
    needed = {
        "loss_roles": ("literal", "symmetric"),
        "mixture": ("prob",),
        "share_encoders": ("none",),
        "empty_sequence": ("drop",),
        "text_content": ("real",),
        "image_content": ("real",),
        "objective_precision": ("auto", "fp32"),
        "group_encoders": ("auto", "no"),
    }
    for name, values in needed.items():
        if getattr(config, name) not in values:
            return f"{name} = {getattr(config, name)} has no stacked form: it must be {' or '.join(values)}"
    if config.l2_mode == "embedding_rows":
        return "l2_mode = embedding_rows has no stacked form: it must be adam, adamw or none"
    return ""


def stack_key(config: LLMEMFConfig) -> str:
    """The shape of a trial: those that have it in common can be stacked."""
    shape: Mapping[str, Any] = {key: value for key, value in config.to_dict().items() if key not in OWN}
    weights = config.weights()
    modalities = [name for name in config.modalities if weights[name] > 0 or config.learn_weights]
    return json.dumps([shape, sorted(modalities), sorted(config.loss_weights("x"))], sort_keys=True)


class StackedTrainer:
    """Trains its members epoch by epoch; members come and go between epochs.

    Args:
        members: the first ones.

    Raises:
        InputError: a trial has no stacked form, or another shape or other data than the rest.
    """

    def __init__(self, members: Sequence[Trainer] = ()) -> None:
        self.members: list[Trainer] = []
        self._parameters: StackedParameters | None = None
        for trainer in members:
            self.add(trainer)

    def add(self, trainer: Trainer) -> None:
        """Take a trial in, fresh or loaded from a checkpoint; it goes on at its own epoch.

        Raises:
            InputError: it has no stacked form, or another shape or other data than the members.
        """
        if problem := stack_problem(trainer.config):
            raise InputError(f"trials cannot be stacked: {problem}")
        if trainer.device.type != "cpu":
            raise InputError(
                f"trials are stacked on a CPU alone, and this one is on {trainer.device}: set device = cpu"
            )
        if self.members:
            first = self.members[0]
            if stack_key(trainer.config) != stack_key(first.config):
                raise InputError("trials of different shapes cannot be stacked: " + _difference(first, trainer))
            if trainer.data.fingerprint != first.data.fingerprint or (
                trainer.data.feature_hashes != first.data.feature_hashes
            ):
                raise InputError("trials on different data cannot be stacked")
        self._release()
        self.members.append(trainer)

    def remove(self, trainer: Trainer) -> None:
        """Let a member go, with its parameters and its optimiser's state; it can be trained on by itself."""
        self._release()
        self.members = [member for member in self.members if member is not trainer]

    def save(self, trainer: Trainer, folder: str | Path) -> None:
        """Write the checkpoint of one member, as its `Trainer.save` does."""
        if self._parameters is not None:
            self._parameters.give_state(self.members.index(trainer))
        trainer.save(folder)

    def run_epoch(self) -> list[dict[str, Any] | NonFiniteLoss]:
        """Train every member for one epoch and validate it.

        Returns:
            per member what `Trainer.epochs` would yield, or why it has failed; it should then be removed.
            `seconds_train` is the member's share of the time of all, and `sequences_per_second` follows from it.
        """
        began = time.perf_counter()
        losses = self.train_epoch()
        share = (time.perf_counter() - began) / len(self.members)
        found: list[dict[str, Any] | NonFiniteLoss] = []
        for trainer, own in zip(self.members, losses.unbind(1)):
            try:
                found.append(trainer.complete_epoch(trainer.mean_loss(own, trainer.epoch + 1), share))
            except NonFiniteLoss as error:
                found.append(error)
        return found

    def train_epoch(self) -> torch.Tensor:
        """Train every member for one epoch and leave its epoch's number as it is; (steps, K) losses."""
        first = self.members[0]
        if self._parameters is None:
            tower = first.model.towers[0]
            self._parameters = StackedParameters(self.members, module_groups(tower), unreached_modules(tower))
        for trainer in self.members:
            trainer.model.train()
        tower = StackedTower(self.members, self._parameters)
        generators = [
            torch.Generator().manual_seed(epoch_seed(trainer.config.seed, trainer.epoch + 1))
            for trainer in self.members
        ]
        sequences = first.train_sequences
        orders = torch.stack([torch.randperm(len(sequences), generator=generator) for generator in generators])
        losses = []
        for index in orders.split(first.config.batch_size, 1):
            loss = tower.losses(sequences, index, generators)
            self._parameters.backward(loss.sum())
            self._parameters.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def _release(self) -> None:
        if self._parameters is not None:
            self._parameters.release()
            self._parameters = None


def _difference(one: Trainer, other: Trainer) -> str:
    """The settings in which two shapes differ, in words."""
    pairs = one.config.to_dict(), other.config.to_dict()
    differing = [key for key in pairs[0] if key not in OWN and pairs[0][key] != pairs[1].get(key)]
    if differing:
        return ", ".join(f"{key} = {pairs[0][key]} and {pairs[1].get(key)}" for key in differing)
    return "weights of 0 leave out modalities or sequences in one and not in the other"
