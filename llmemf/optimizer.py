"""The optimiser of a trial, and the learning rate of its steps."""

from __future__ import annotations

import math

import torch

from llmemf.config import TrialConfig
from llmemf.models.recommender import Recommender


def make_optimizer(model: Recommender, config: TrialConfig) -> torch.optim.Optimizer:
    """Adam or Adagrad; L2 leaves vectors (norms, biases, scales, mixture weights) alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # A model in closed form has nothing to train; torch refuses an optimiser without parameters.
    trained = trained or [torch.nn.Parameter(torch.zeros(()))]
    l2 = config.l2 if config.l2_mode in ("adam", "adamw") else 0.0
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": l2, "lr": config.lr},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0, "lr": config.lr},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adagrad":
        return torch.optim.Adagrad(groups)
    kind = torch.optim.AdamW if config.l2_mode == "adamw" else torch.optim.Adam
    return kind(groups, fused=True)


def learning_rate(config: TrialConfig, passed: float, plateaus: int) -> float:
    """The rate of a step that ends after `passed` epochs of training, in which the rate was lowered `plateaus` times."""
    factor = 1.0
    if config.lr_schedule == "plateau":
        factor = config.plateau_factor**plateaus
    elif config.lr_schedule == "cosine" and passed > config.warmup_epochs:
        share = (passed - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
        factor = config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * share)) / 2
    if passed < config.warmup_epochs:
        factor *= passed / config.warmup_epochs
    return config.lr * factor
