"""The trainer of one trial: epochs, early stopping, checkpoints that resume bit for bit.

It knows nothing of sweeps. The state of every random choice is a function of (seed, epoch), so a run that is resumed at
an epoch's end draws what the uninterrupted run draws.

A checkpoint folder holds `state.pt` (plain tensors and numbers: resume), `best.safetensors` (weights of the best epoch)
and `config.yaml` (the trial's configuration, the fingerprint of its data, the hashes of its features and the model's own
`facts`).
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmemf.batches import DeviceSequences, TrialData
from llmemf.config import TrialConfig, build_config, read_yaml
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.graphs import GraphedSteps
from llmemf.models import model_class
from llmemf.models.recommender import Recommender, pick_device
from llmemf.ranking import rank_cases, summarise
from llmemf.scenarios.scenario import Scenario

STATE, BEST, CONFIG = "state.pt", "best.safetensors", "config.yaml"
HARMLESS = {"epochs", "device", "patience", "cuda_graphs", "chunk_elements", "group_encoders", "objective_kernel"}
"""Settings in which a run may differ from the checkpoint that it resumes: they change no result beyond its rounding."""


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
        self._graphed = self._graphed_steps()
        self.epoch = 0
        self.best: dict[str, dict[str, Any]] = {}
        self.stopped = False

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train epoch by epoch and yield the metrics of each.

        Yields:
            `epoch` (absolute, from 1), `objective` (best so far of what is monitored; higher is better), `best_epoch`,
            `stopped_early`, `train/loss`, the validation metrics of `ranking.summarise`, `seconds_train`, `seconds_valid`,
            `sequences_per_second`, and what `memory_gb` says.

        Raises:
            NonFiniteLoss: the loss of a step was NaN or infinite.
        """
        while self.epoch < self.config.epochs and not self.stopped:
            started = time.perf_counter()
            loss = 0.0 if self.model.closed_form else self._train_epoch(self.epoch + 1)
            yield self.complete_epoch(loss, time.perf_counter() - started)

    def complete_epoch(self, loss: float, seconds: float) -> dict[str, Any]:
        """Validate what an epoch of training has made of the model, and keep it where it is the best.

        Args:
            loss: mean over the epoch's steps.
            seconds: that the training took.

        Returns:
            what `epochs` yields.
        """
        trained = time.perf_counter()
        metrics = self._validate()
        self.epoch += 1
        self._remember(metrics)
        self.stopped = self.model.closed_form or self._out_of_patience()
        return {
            "epoch": self.epoch,
            "objective": float(np.mean([kept["value"] for kept in self.best.values()])),
            "best_epoch": self._best_epoch(),
            "stopped_early": self.stopped and self.epoch < self.config.epochs,
            "train/loss": loss,
            **metrics,
            "seconds_train": seconds,
            "seconds_valid": time.perf_counter() - trained,
            "sequences_per_second": len(self.train_sequences) / seconds,
            **memory_gb(self.device),
        }

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint: all that `load` needs, and the weights of the best epoch."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
        }
        _save_best(folder, self.config, self.data, self.best, self.model.facts())
        _replace(folder / STATE, lambda path: torch.save(state, path))

    def load(self, folder: str | Path) -> None:
        """Continue where `save` left off; epochs, patience and device may be others than before.

        Raises:
            InputError: the checkpoint is of another configuration or of other data, or cannot be read.
        """
        stored = _read_config(Path(folder))
        check_data(folder, stored, self.data)
        wanted, defaults = self.config.to_dict(), type(self.config)().to_dict()
        # A setting that is younger than the checkpoint had its default then.
        differing = sorted(key for key, value in wanted.items() if stored["config"].get(key, defaults[key]) != value)
        if set(differing) - HARMLESS:
            raise InputError(
                f"checkpoint {folder} was trained with another configuration ({', '.join(differing)} differ)"
            )
        try:
            state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:  # it may have been recorded where the checkpoint comes from
                group.update(capturable=False) if "capturable" in group else None
            self.scaler.load_state_dict(state["scaler"])
            self.epoch, self.best = state["epoch"], state["best"]
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise InputError(f"{Path(folder) / STATE} cannot be read ({_first_line(error)}): start anew") from None
        self.stopped = self.model.closed_form or self._out_of_patience()
        self._graphed = self._graphed_steps()

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
        with _random_scope(config.seed, epoch, self.device):
            order = torch.randperm(len(self.train_sequences), device=self.device)
            self.model.plan_epoch(self.train_sequences, order)
            take = self._graphed or self.step
            losses = [take(index) for index in order.split(config.batch_size)]
        return self.mean_loss(torch.stack(losses), epoch)

    def step(self, index: Tensor) -> Tensor:
        """One step on the sequences at `index` (B,); the loss."""
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

    def _graphed_steps(self) -> GraphedSteps | None:
        """Steps that are recorded and replayed, where the configuration asks for them on a GPU."""
        if not self.config.cuda_graphs or self.device.type != "cuda":
            return None

        def state() -> list[Tensor]:
            moments = [t for held in self.optimizer.state.values() for t in held.values() if isinstance(t, Tensor)]
            return [*(p for p in self.model.parameters() if p.requires_grad), *self.model.buffers(), *moments]

        def prepare() -> None:
            for group in self.optimizer.param_groups:
                group.update(capturable=True) if "capturable" in group else None
            self.optimizer.zero_grad(set_to_none=True)

        return GraphedSteps(
            self.step, state=state, signature=self.model.step_signature, prepare=prepare, device=self.device
        )

    def mean_loss(self, losses: Tensor, epoch: int) -> float:
        """Mean of the losses of an epoch's steps.

        Raises:
            NonFiniteLoss: one of them is NaN or infinite.
        """
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


_has_older_peak = False
"""Whether the peak of this process is that of an earlier trial."""


def memory_gb(device: torch.device | str = "cpu") -> dict[str, float]:
    """Memory that this process has held at most so far, or since `reset_memory_peak`, in GiB.

    Returns:
        `memory_gb`, the peak of the resident set: libraries and touched pages of shared data are in it, so several trials
        on one node together hold less than their sum; left out where the system could not reset it after an earlier
        trial. On a GPU also `gpu_mem_gb`, the peak of what torch reserved there, without the driver's own part.
    """
    found = {} if _has_older_peak else {"memory_gb": _peak_resident() / 2**30}
    if torch.device(device).type == "cuda":
        found["gpu_mem_gb"] = torch.cuda.max_memory_reserved(device) / 2**30
    return found


def reset_memory_peak() -> None:
    """Let the peak of the resident set begin anew, for a further trial in this process; only Linux can."""
    global _has_older_peak
    before = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        _has_older_peak = True
    else:
        # Some systems take the request and do nothing.
        _has_older_peak = before is None or _resident("VmHWM") > 1.1 * before


def _peak_resident() -> int:
    """Bytes; on Linux of this program alone, where `getrusage` would count what its parent held before it."""
    found = _resident("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident(name: str) -> int | None:
    """`VmRSS`, the resident set in bytes, or `VmHWM`, its peak; None where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else None


_DTYPES = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def _random_scope(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Torch's random state as a function of (seed, epoch) inside; the caller's state comes back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(epoch_seed(seed, epoch))
        yield


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of all that is drawn in an epoch of a trial; epoch 0 is its initialisation."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


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
    """Adam or Adagrad; L2 leaves vectors (norms, biases, scales, mixture weights) alone."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    other = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = parameter_groups(decayed, other, config)
    if not any(group["params"] for group in groups):
        # A model in closed form has nothing to train; torch refuses an optimiser without parameters.
        groups[1]["params"] = [torch.nn.Parameter(torch.zeros(()))]
    return optimizer_of([group for group in groups if group["params"]], config)


def parameter_groups(decayed: list[Tensor], other: list[Tensor], config: TrialConfig) -> list[dict[str, Any]]:
    """The two groups of a trial's parameters: those that L2 acts on, and the rest."""
    l2 = config.l2 if config.l2_mode in ("adam", "adamw") else 0.0
    return [
        {"params": decayed, "weight_decay": l2, "lr": config.lr},
        {"params": other, "weight_decay": 0.0, "lr": config.lr},
    ]


def optimizer_of(groups: list[dict[str, Any]], config: TrialConfig) -> torch.optim.Optimizer:
    """The optimiser that a configuration names, over groups that have their own learning rates and L2."""
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(groups)
    kind = torch.optim.AdamW if config.l2_mode == "adamw" else torch.optim.Adam
    return kind(groups, fused=True)


def _save_best(
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
    _replace(folder / BEST, lambda path: save_file(tensors, path, metadata={"best": json.dumps(chosen)}))
    content = {
        "fingerprint": data.fingerprint,
        "features": _feature_hashes(config, data),
        "best": chosen,
        **({"facts": dict(facts)} if facts else {}),
        "config": config.to_dict(),
    }
    _replace(folder / CONFIG, lambda path: path.write_text(yaml.safe_dump(content, sort_keys=False)))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {_first_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _feature_hashes(config: TrialConfig, data: TrialData) -> dict[str, str]:
    """Hash of each feature matrix that the model reads."""
    return {kind: data.feature_hashes[kind] for kind in sorted(model_class(config.model).needs(config))}


def _read_config(folder: Path) -> dict[str, Any]:
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
    stored = _read_config(folder)
    model_type = model_class(stored["config"]["model"])
    config = build_config(model_type.config_class, {**stored["config"], "device": device}, where=str(folder / CONFIG))
    check_data(folder, stored, data)
    target = pick_device(config.device)
    sequences = device_sequences(config, scenario, split, target)
    model = model_type(config, data).to(target)
    try:
        tensors = load_file(folder / BEST)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / BEST} cannot be read ({_first_line(error)}): train again") from None
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
