"""LLM-EMF: LLM-enhanced multimodal fusion for cross-domain sequential recommendation (arXiv text, sections 3.1-3.5).

Three modalities m in {id, image, text} and three sequences s in {X, Y, X+Y} give nine representations h_m^s. Every sequence
has a mixture of cosine softmaxes over items (eqs. 3, 5-8); the loss adds them (eqs. 9, 10), the score adds them again for a
target domain (eqs. 11, 12). Where the paper is silent a field of `LLMEMFConfig` says what was chosen and what else is
possible; `preset: literal` is the closest reading of its letter.

Shapes: B batch, L length, D width, N items, n items of one domain, M modalities, R rows with a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from llmemf.batches import Batch, DeviceSequences, TrialData
from llmemf.models.item_table import IdTable
from llmemf.models.llm_emf_config import LLMEMFConfig
from llmemf.models.llm_emf_encoders import LLMEMFEncoders
from llmemf.models.recommender import Recommender


class LLMEMF(Recommender):
    """LLM-EMF under the common interface: one set of encoders, or one per target domain (`loss_roles: per_target`)."""

    config_class = LLMEMFConfig
    config: LLMEMFConfig
    source = "LLM-EMF: LLM-enhanced multimodal fusion for cross-domain sequential recommendation"
    search_space: ClassVar = {
        **Recommender.search_space,
        "alpha, beta": {"simplex": 0.1},
        "lambda1": [0.0, 0.1, 0.3, 0.5, 0.7, 1.0],
        "lambda2": [0.0, 0.1, 0.3, 0.5, 0.7, 1.0],
    }

    towers: Sequence[LLMEMFEncoders]

    def __init__(self, config: LLMEMFConfig, data: TrialData) -> None:
        super().__init__(config, data)
        # The name is part of the keys in stored checkpoints.
        self.towers = nn.ModuleList([LLMEMFEncoders(config, data, first) for first in config.first_domains()])  # type: ignore[assignment]  # a ModuleList is a sequence of its modules

    @classmethod
    def needs(cls, config: LLMEMFConfig) -> frozenset[str]:
        return frozenset({*config.modalities, *(["text"] if config.text_weight else [])} - {"id"})

    def training_loss(self, batch: Batch) -> Tensor:
        """L = L^X + lambda1 L^Y + lambda2 L^{X+Y} (eq. 10), summed over positions, averaged over sequences."""
        return torch.stack([encoders.training_loss(batch) for encoders in self.towers]).sum()

    def plan_epoch(self, sequences: DeviceSequences, order: Tensor) -> None:
        # A CPU computes the rows with a target alone, and has nothing to wait for.
        if order.device.type != "cpu":
            for encoders in self.towers:
                encoders.count_rows(sequences, order, self.config.batch_size)

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) log P(i | S) of eq. 11 for every item of the domain."""
        return self.towers[domain if len(self.towers) == 2 else 0].score_all(batch, domain)

    def facts(self) -> dict[str, str]:
        half = self.config.objective_precision == "fp16"
        return {"objective_precision": "fp16 operands, sums in fp32"} if half else {}

    def batch_rows(self, batch: Batch) -> Tensor | None:
        ids = self.batch_items(batch)
        tables = [encoders.tables.get("id") for encoders in self.towers]
        rows = [table.input[ids] for table in tables if isinstance(table, IdTable)]
        return torch.cat(rows) if rows else None
