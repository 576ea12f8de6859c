"""NCF-MLP: a network on [user; item] in the place of the inner product (He et al., WWW 2017), with a network per domain.

    h_1 = relu(W_1 [p_u; q_i] + c_1),  h_k = relu(W_k h_{k-1} + c_k),  x_ui = w . h_last + c
    loss = BCE_X + BCE_Y, each the mean over the domain's positives (label 1) and negatives (label 0) of BCE(sigmoid(x_ui))

The form with two networks is that of pi-Net's authors ("MLP++"): both share the users' table, items and networks are per
domain. Their faults are left out: here every interaction is a positive in every epoch, and the user of a Y pair is the user
of that pair. Since W_1 [p; q] = W_1u p + W_1i q, all items of a domain pass the first layer once for all users. Users without
training sequences are folded in (`user_item_pairs`) from an item table that serves this purpose alone.

Shapes: B batch, R pairs, C negatives per pair or candidates, D width, H width of the first layer, N items, n items of one domain.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.models.attention import dropout
from llmemf.models.next_item import domain_items
from llmemf.models.recommender import SHORT_BUDGET, Recommender
from llmemf.models.unseen_items import UnseenItems
from llmemf.models.user_item_pairs import PairConfig, UserVectors, user_item_pairs

SCORE_ELEMENTS = 2**21
"""Elements of the first layer that are held at once in scoring."""


class NCFMLPConfig(PairConfig):
    """Settings of NCF-MLP.

    Source values: Adam at 1e-3, batches of 256 pairs, 10 epochs, 4 negatives, no dropout and no L2; RecBole has width 64, hidden
    layers of 128 and 64, and dropout 0.1.
    """

    dim: int = Field(32, ge=1)
    """Width of user and item vectors, and of the first hidden layer (source 32)."""
    layers: int = Field(3, ge=1, le=6)
    """Hidden layers, each half as wide as the one before (source 3: 32, 16, 8)."""
    negatives: int = Field(4, ge=1)
    """Negatives per positive, of its domain (source 4)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of vectors and hidden layers in training (source 0)."""

    @model_validator(mode="after")
    def _check_layers(self) -> NCFMLPConfig:
        if self.dim < 2 ** (self.layers - 1):
            raise ValueError(
                f"layers = {self.layers} halves dim = {self.dim} to nothing: at least {2 ** (self.layers - 1)}"
            )
        return self


class NCFMLP(Recommender):
    """A table of users, a table of items, one network per domain."""

    config_class = NCFMLPConfig
    config: NCFMLPConfig
    search_space: ClassVar = {"lr": SHORT_BUDGET["lr"], "layers": [1, 2, 3], "user_mode": ["auto", "fold_in"]}
    source = "He et al.: Neural collaborative filtering, WWW 2017, in the two-domain form of pi-Net's authors (MLP++)"

    def __init__(self, config: NCFMLPConfig, data: TrialData) -> None:
        super().__init__(config, data)
        self.users = UserVectors(config, data, config.dim)
        self.items = nn.Parameter(torch.empty(self.num_items, config.dim))
        self.folding = None if config.user_mode == "id" else nn.Parameter(torch.empty(self.num_items, config.dim))
        for table in (self.users.rows, self.items, self.folding):
            if table is not None:
                nn.init.normal_(table, 0, 0.01)
        self.towers = nn.ModuleList([PairNetwork(config) for _ in range(2)])
        self.unseen = UnseenItems(data)

    def training_loss(self, batch: Batch) -> Tensor:
        """BCE_X + BCE_Y; a domain without a pair counts nothing."""
        pairs = user_item_pairs(batch, self.num_items)
        positives = pairs.items
        negatives_RC = self.unseen.draw(batch.users[pairs.rows], positives, self.config.negatives)
        user_RD = self.users.of_pairs(batch.users, pairs, self.folding)
        ids_RC = torch.cat([positives[:, None], negatives_RC], 1)
        labels_RC = torch.zeros_like(ids_RC, dtype=torch.float32)
        labels_RC[:, 0] = 1
        items_RCD = F.embedding(ids_RC, self.items)
        in_y = positives >= self.num_x
        loss = user_RD.new_zeros(())
        for network, rows in zip(self.towers, (~in_y, in_y)):
            logits_RC = network(user_RD[rows][:, None], items_RCD[rows]).float()
            total = F.binary_cross_entropy_with_logits(logits_RC, labels_RC[rows], reduction="sum")
            loss = loss + total / max(1, logits_RC.numel())
        return loss

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) logits of the domain's network."""
        network = self.towers[domain]
        user_BD = self.users.of_histories(batch, self.folding)
        items_nD = self.items[domain_items(domain, self.num_x, self.num_items)]
        step = max(1, SCORE_ELEMENTS // (len(batch) * self.config.dim))
        return torch.cat([network(user_BD[:, None], part[None]) for part in items_nD.split(step)], 1)

    def batch_rows(self, batch: Batch) -> Tensor:
        ids = self.batch_items(batch)
        tables = [F.embedding(ids, table) for table in (self.items, self.folding) if table is not None]
        return torch.cat([*tables, *self.users.touched(batch)])


class PairNetwork(nn.Module):
    """The network of one domain: 2 D -> D -> D / 2 -> ... -> 1."""

    def __init__(self, config: NCFMLPConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        widths = [config.dim // 2**depth for depth in range(config.layers)]
        self.of_user = nn.Linear(config.dim, widths[0], bias=False)
        self.of_item = nn.Linear(config.dim, widths[0])
        self.hidden = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])
        self.out = nn.Linear(widths[-1], 1)
        nn.init.uniform_(self.out.weight, -math.sqrt(3 / widths[-1]), math.sqrt(3 / widths[-1]))
        for layer in (self.of_user, self.of_item, *self.hidden):
            # He uniform: with the source's N(0, 0.01) the signal vanishes. The two parts of the first layer are one matrix.
            inputs = layer.in_features * (1 if layer in self.hidden else 2)
            nn.init.uniform_(layer.weight, -math.sqrt(6 / inputs), math.sqrt(6 / inputs))
        for layer in (self.of_item, *self.hidden, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """(...) logits of pairs (..., D) that broadcast against each other."""
        h = F.relu(self.of_user(self._drop(user)) + self.of_item(self._drop(item)))
        for layer in self.hidden:
            h = F.relu(layer(self._drop(h)))
        return self.out(self._drop(h)).squeeze(-1)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)
