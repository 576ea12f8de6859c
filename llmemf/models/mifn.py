"""MIFN: mixed information flow network for cross-domain sequential recommendation, on a substitute for its knowledge graph.

Behaviour flows as in pi-Net, without members; knowledge flows through a small relational graph network over the sub-graph
around the session; a switch mixes the softmax of the sequence with a pointer into the sub-graph. The authors' graph is not
public: `item_graph` says what stands in for it, and `facts` which one a model was built on. Results are not comparable
with the paper's.

Shapes: B batch, L length, D width, n nodes of a sub-graph, N items, R relations or (in the loss) rows with a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from llmemf.batches import Batch, TrialData
from llmemf.errors import InputError
from llmemf.io import bytes_hash
from llmemf.models.dual_gru import DualGRU, DualGRUConfig, has_target
from llmemf.models.item_graph import RELATIONS, build_item_graph
from llmemf.models.next_item import domain_items
from llmemf.models.pi_net import FilteredTransfer
from llmemf.models.recommender import SHORT_BUDGET
from llmemf.models.sub_graph import sub_graph
from llmemf.models.time_lines import TimeLines, after, gather_columns, whole_history
from llmemf.objective import sampled_columns

FLOOR = 1e-12
"""Added to a probability before its logarithm."""
MISSED_FLOOR = 1e-4
"""The same in the term for targets outside the sub-graph, as in the source."""


class MIFNConfig(DualGRUConfig):
    """Settings of MIFN. The released code has width 256, batch 32, dropout 0.2, Adam at 1e-3, gradients cut at +-5."""

    prefixes: Literal["random", "whole"] = "random"
    """Two targets per sequence, since each needs a sub-graph of its own: the last ones of a prefix that is drawn anew in
    every epoch, or of the whole sequence, as in the source."""
    nodes: int = Field(64, ge=4)
    """Nodes of a sub-graph; the released code has 200."""
    hops: Literal[1, 2] = 2
    """How far from the session a sub-graph may reach; the source has 2."""
    kg: Literal["cooc", "cooc_text"] = "cooc"
    """Relations from training sequences alone, or with `also_view` from text features as well."""
    kg_neighbours: int = Field(10, ge=1)
    """Neighbours of an item in each relation."""
    kg_min_count: int = Field(2, ge=1)
    """How often a pair of items must occur to be related."""
    text_encoder: str = "auto"
    """Which text features `kg: cooc_text` reads: the encoder's name, or `auto` where there is only one."""


class MIFN(DualGRU):
    """MIFN under the common interface; one model for both domains, one entity table for sequences and graph."""

    config_class = MIFNConfig
    config: MIFNConfig
    status = "substitute graph"
    source = "Mixed information flow for cross-domain sequential recommendations (TKDD 2022)"
    search_space: ClassVar = {**SHORT_BUDGET, "nodes": [32, 64], "kg_neighbours": [5, 10]}

    neighbours: Tensor

    def __init__(self, config: MIFNConfig, data: TrialData) -> None:
        super().__init__(config, data)
        if config.kg == "cooc_text" and data.text is None:
            raise InputError("kg = cooc_text needs text features, which were not given: add them, or set kg = cooc")
        text = data.text if config.kg == "cooc_text" else None
        limits = {"top": config.kg_neighbours, "min_count": config.kg_min_count}
        graph = build_item_graph(data.train, num_x=self.num_x, num_items=self.num_items, text=text, **limits)
        kind = "cooc" if text is None else f"cooc_text ({text.encoder}, {text.hash()[:12]})"
        recipe = f"{kind}, top {config.kg_neighbours}, min count {config.kg_min_count}"
        digest = bytes_hash(repr(graph.shape).encode(), graph.astype("<i4").tobytes())
        self._facts = {"kg": recipe, "kg_hash": digest}
        self.register_buffer("neighbours", torch.from_numpy(graph).long(), persistent=False)
        self.transfer = FilteredTransfer(config.dim, 0, config.dropout)
        self.knowledge = KnowledgeTransfer(config.dim, len(RELATIONS))
        self.pointers = nn.ModuleList([AdditiveAttention(config.dim) for _ in range(2)])
        self.switches = nn.ModuleList([nn.Linear(3 * config.dim, 1) for _ in range(2)])
        # Checkpoints of earlier versions hold the facts as bytes.
        self.register_load_state_dict_pre_hook(
            lambda model, state, prefix, *_: state.pop(f"{prefix}_extra_state", None)
        )

    @classmethod
    def needs(cls, config: MIFNConfig) -> frozenset[str]:
        return frozenset({"text"} if config.kg == "cooc_text" else ())

    def facts(self) -> dict[str, str]:
        return dict(self._facts)

    def encode(self, lines: TimeLines) -> tuple[Tensor, ...]:
        """States of both GRUs, then of both transfer GRUs, each (B, Lx, D) or (B, Ly, D)."""
        states = super().encode(lines)
        return (*states, *(self.transfer(lines, states, line) for line in (0, 1)))

    def transfers(self, lines: TimeLines, states: tuple[Tensor, ...], domains: Sequence[int]) -> list[Tensor]:
        return [gather_columns(after(states[3 - domain]), lines.seen[domain][1 - domain]) for domain in domains]

    def training_loss(self, batch: Batch) -> Tensor:
        """-log P_X - log P_Y, and -log(P_S + 1e-4) where the target is not in the sub-graph; means over targets."""
        lines = self.read(batch)
        states = self.encode(lines)
        inputs = self.decoder_inputs(lines, states, (0, 1))
        exact = torch.cat([items.flatten() for items in lines.items])
        loss = self.output.new_zeros(())
        for domain in (0, 1):
            rows = has_target(lines, domain).nonzero()[:, 0]
            targets = lines.target(domain)[rows]
            if not len(rows):
                continue
            pointer, switch, nodes = self.point(lines, states, inputs[domain], domain, rows)
            with torch.autocast(targets.device.type, enabled=False):
                log_sequence = self._log_sequence(inputs[domain][rows].to(self.output.dtype), targets, domain, exact)
                found = (pointer * (nodes == targets[:, None])).sum(1)
                mixed = torch.logaddexp(
                    F.logsigmoid(-switch) + log_sequence, F.logsigmoid(switch) + (found + FLOOR).log()
                )
                missed = ~(nodes == targets[:, None]).any(1)
                beside = (torch.sigmoid(-switch) + MISSED_FLOOR).log() * missed
                loss = loss - (mixed + beside).mean()
        return loss

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) log P of the target domain's items."""
        lines = whole_history(batch, num_x=self.num_x, pad=self.num_items)
        states = self.encode(lines)
        (inputs,) = self.decoder_inputs(lines, states, (domain,))
        pointer, switch, nodes = self.point(
            lines, states, inputs, domain, torch.arange(len(batch), device=inputs.device)
        )
        items = domain_items(domain, self.num_x, self.num_items)
        from_graph = torch.sigmoid(switch)[:, None]
        probability = (inputs @ self.output[items].T).softmax(1) * (1 - from_graph)
        # Nodes of the other domain and padding have no weight in the pointer; they may add their 0 anywhere.
        column = (nodes - items.start).clamp(0, probability.shape[1] - 1)
        return (probability.scatter_add(1, column, pointer * from_graph) + FLOOR).log()

    def point(
        self, lines: TimeLines, states: tuple[Tensor, ...], inputs: Tensor, domain: int, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The graph decoder: weights (R, n) over nodes that are items of the domain, the switch's logit (R,), nodes (R, n).

        The logit of P_G is lowest where the sub-graph has no item of the domain: there is nothing to point at.

        Args:
            inputs: [z; h; 1] of the sequence decoder.
            rows: of the batch.
        """
        seen = lines.merged_seen[domain][rows]
        session = lines.merged[rows]
        nodes, adjacency = sub_graph(
            session, seen, self.neighbours, size=self.config.nodes, hops=self.config.hops, num_x=self.num_x
        )
        members = (nodes < self.num_x, (nodes >= self.num_x) & (nodes < self.num_items))
        last_is_y = (session.gather(1, (seen - 1).clamp(min=0)[:, None]) >= self.num_x) & (seen > 0)[:, None]
        own, carried = (
            torch.where(
                last_is_y,
                *(gather_columns(after(states[kind + line]), lines.seen[domain][line])[rows] for line in (1, 0)),
            )
            for kind in (0, 2)
        )
        is_in = torch.where(last_is_y, members[1], members[0])
        is_cross = torch.where(last_is_y, members[0], members[1])
        entities = self.knowledge(self.embed(nodes), adjacency, is_in, is_cross, own, carried)
        z, h = inputs[rows, : self.config.dim], inputs[rows, self.config.dim : 2 * self.config.dim]
        member = members[domain]
        pointer = self.pointers[domain](h, entities, member)
        summed = (entities * member.unsqueeze(2)).sum(1)
        switch = self.switches[domain](torch.cat([h, z, summed], 1))[:, 0].to(self.output.dtype)
        return pointer, switch.masked_fill(~member.any(1), -1e4), nodes

    def _log_sequence(self, inputs: Tensor, targets: Tensor, domain: int, exact: Tensor) -> Tensor:
        """(R,) log-probability of the targets under the sequence decoder, exact or with an estimated normaliser."""
        own = (inputs * F.embedding(targets, self.output)).sum(1)
        items = domain_items(domain, self.num_x, self.num_items)
        if self.config.objective == "full":
            return own - (inputs @ self.output[items].T).logsumexp(1)
        columns = sampled_columns(items.start, items.stop, self.config.sampled_negatives, exact)
        logits = inputs @ F.embedding(columns.ids, self.output).T + columns.log_expansion
        logits = logits.masked_fill(columns.ids == targets[:, None], -torch.inf)
        return own - torch.cat([logits, own[:, None]], 1).logsumexp(1)


class AdditiveAttention(nn.Module):
    """Weights softmax_n(v^T tanh(W q + W' e_n)) over the nodes of a mask; all zero where the mask is empty."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.vector = nn.Linear(width, 1, bias=False)

    def forward(self, query_BD: Tensor, keys_BnD: Tensor, mask_Bn: Tensor) -> Tensor:
        scores = self.vector(torch.tanh(self.query(query_BD).unsqueeze(1) + self.key(keys_BnD)))[..., 0]
        return scores.to(self.vector.weight.dtype).masked_fill(~mask_Bn, -1e9).softmax(1) * mask_Bn


class KnowledgeTransfer(nn.Module):
    """One round of messages. "in" are the nodes of the last item's domain, "cross" those of the other.

    With h* the encoder's and t* the transfer GRU's state at the last merged item, and e_n the node states:

        a_in = softmax_in(v_1^T tanh(W_1 h* + W_2 e_n)),   a_cr likewise over cross with t*
        g_n = sigmoid(W_c [h*; t*; e_n] + b)
        y_in = affine(g * a_in e),   y_cr = affine'((1 - g) * a_cr e)
        y_cr,n += sum_m (w^T (y_cr,n * y_in,m)) y_in,m                      (mutual attention, no softmax)
        e'_n = GRU(relu([A_r (y_in W_r + b_r); A_r (y_cr W'_r + b'_r)] over r), e_n)

    Padding is masked wherever a bias could fill it.
    """

    def __init__(self, width: int, relations: int) -> None:
        super().__init__()
        self.attend_in, self.attend_cross = AdditiveAttention(width), AdditiveAttention(width)
        self.gate = nn.Linear(3 * width, width)
        self.map_in, self.map_cross = nn.Linear(width, width), nn.Linear(width, width)
        self.mutual = nn.Parameter(torch.empty(width).normal_(0, 0.1))
        self.message_in = nn.Linear(width, relations * width)
        self.message_cross = nn.Linear(width, relations * width)
        self.update = nn.GRUCell(2 * relations * width, width)

    def forward(
        self, entities: Tensor, adjacency: Tensor, is_in: Tensor, is_cross: Tensor, own: Tensor, carried: Tensor
    ) -> Tensor:
        """(B, n, D) node states after the round; zero at padding.

        Args:
            entities: (B, n, D) before it.
            is_in, is_cross: (B, n) bool.
            own, carried: h* and t*, (B, D).
        """
        size = entities.shape[1]
        context = torch.cat([own, carried], 1).unsqueeze(1).expand(-1, size, -1)
        gate = torch.sigmoid(self.gate(torch.cat([context, entities], 2)))
        y_in = gate * self.attend_in(own, entities, is_in).unsqueeze(2) * entities
        y_cross = (1 - gate) * self.attend_cross(carried, entities, is_cross).unsqueeze(2) * entities
        y_in = self.map_in(y_in) * is_in.unsqueeze(2)
        y_cross = self.map_cross(y_cross) * is_cross.unsqueeze(2)
        y_cross = y_cross + self.mutual_attention(y_cross, y_in)
        real = (is_in | is_cross).unsqueeze(2)
        heard = [
            self._pass(self.message_in(y_in), adjacency, real),
            self._pass(self.message_cross(y_cross), adjacency, real),
        ]
        message = F.relu(torch.cat(heard, 2)).flatten(0, 1)
        return self.update(message, entities.flatten(0, 1)).view_as(entities) * real

    def mutual_attention(self, y_cross: Tensor, y_in: Tensor) -> Tensor:
        """(B, n, D) sum_m (w^T (y_cr,n * y_in,m)) y_in,m as two matrix products, without the (n, n, D) table."""
        return (y_cross * self.mutual) @ y_in.transpose(1, 2) @ y_in

    def _pass(self, messages: Tensor, adjacency: Tensor, real: Tensor) -> Tensor:
        """(B, n, R D) what every node hears, relation by relation."""
        batch, size, width = messages.shape
        relations = adjacency.shape[1]
        by_relation = (messages * real).view(batch, size, relations, width // relations).transpose(1, 2)
        return (adjacency.to(messages.dtype) @ by_relation).transpose(1, 2).reshape(batch, size, width)
