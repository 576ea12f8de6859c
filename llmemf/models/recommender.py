"""The interface that every system fulfils.

Shape legend used in this package: B batch, L length, D width, N items, n items of one domain, C candidates, M modalities,
R positions (rows) with a target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from llmemf.config import TrialConfig
from llmemf.errors import InputError
from llmemf.models.attention import dropout

if TYPE_CHECKING:
    from llmemf.batches import Batch, DeviceSequences, TrialData


SHORT_BUDGET: Mapping[str, Any] = MappingProxyType({"lr": [2e-3, 5e-3, 1e-2], "dropout": [0.1, 0.3]})
"""What comparison systems search beside settings of their own: values that are all sound within 3 to 10 epochs, so that a
search of a few trials is no lottery. The paper's grid is 1e-4 to 1e-2 and L2 (`BaselineConfig.l2` says why not that)."""


class Recommender(nn.Module, ABC):
    """One system: a loss over a training batch and scores for the items of a domain.

    Subclasses set `config_class` and implement `training_loss` and `score_all`. Scores are comparable within one
    row only; higher is better; `log_softmax` of a row must be a sensible log-probability, since the validation
    loss is computed from it.
    """

    config_class: type[TrialConfig] = TrialConfig
    closed_form: bool = False
    """Whether the model is complete once it is built: the trainer then takes no step and runs one epoch."""
    status: str = "faithful"
    """How the system relates to its source; shown beside every number: `faithful`, `reconstructed`, ..."""
    source: str = ""
    """The paper or page that it was written from."""
    search_space: ClassVar[Mapping[str, Any]] = {
        "lr": [1e-4, 5e-4, 1e-3, 5e-3, 1e-2],
        "l2": [1e-5, 5e-5, 1e-4, 5e-4, 1e-3],
    }
    """Search space used where a scenario's YAML names none: key -> list of values, or {low, high, log}."""

    def __init__(self, config: TrialConfig, data: TrialData) -> None:
        super().__init__()
        self.config = config
        self.num_x, self.num_items = data.num_x, data.num_items

    @classmethod
    def needs(cls, config: Any) -> frozenset[str]:
        """Inputs beyond the sequences: a subset of {"text", "image"}."""
        return frozenset()

    @abstractmethod
    def training_loss(self, batch: Batch) -> Tensor:
        """Scalar loss of a training batch."""

    @abstractmethod
    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) scores of all items of a domain (0 is X, 1 is Y) as the next item of every history."""

    def plan_epoch(self, sequences: DeviceSequences, order: Tensor) -> None:
        """Prepare for the batches of an epoch, once, before its first step; most models have nothing to prepare.

        Args:
            order: (S,) order in which the sequences will come.
        """
        return

    def batch_rows(self, batch: Batch) -> Tensor | None:
        """Embedding rows that a training batch reads, for `l2_mode: embedding_rows`; None where there are none.

        Here those of the table `items`, where the system has one.
        """
        table = getattr(self, "items", None)
        return None if table is None else table[self.batch_items(batch)]

    def drop(self, values: Tensor) -> Tensor:
        """Dropout at the rate of the settings, in training alone."""
        return dropout(values, self.config.dropout, self.training)

    def batch_items(self, batch: Batch) -> Tensor:
        """(n,) the different items that a training batch reads."""
        ids = batch.views["xy"].items.unique()
        return ids[ids < self.num_items]

    def facts(self) -> dict[str, str]:
        """What the model was built on beside its configuration and features, in words and hashes."""
        return {}

    def trainable_state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: parameters and persistent buffers, never the frozen feature matrices."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.state_dict().items()}


def num_parameters(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def pick_device(name: str) -> torch.device:
    """`auto` takes the GPU where there is one.

    Raises:
        InputError: there is no such device here.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    valid = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if name not in valid:
        raise InputError(f"device = {name!r} is not here: one of auto, {', '.join(valid)}")
    return torch.device(name)
