"""The mixture of cosine softmaxes over items (eqs. 3, 5-8): log-probabilities for the loss and for ranking.

Shapes: B batch, R rows, N items, n items of a range, D width, M modalities.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmemf.models.item_table import FrozenTable, IdTable, StepRows
from llmemf.models.llm_emf_config import LLMEMFConfig
from llmemf.objective import mixture_nll, sampled_columns
from llmemf.objective_half import HalfPass

FP32_SCALE = 35.0
"""Largest scale whose smallest probability, exp(-2 scale) over the number of items, is a normal number of fp32. Above it the
products stay in fp32; what follows them is fp64."""

DOT_SCALE = 4 / 3
"""What inner products are multiplied by: ABXI's temperature of 0.75."""

SCORE_ELEMENTS = 2**24
"""Exponentials held at once in scoring (64 MiB in fp32), as long as they are of `SCORE_ROWS` cases: products of hundreds of rows
run several times faster on a CPU than those of few."""
GPU_SCORE_ELEMENTS = 2**27
"""The same on a GPU."""
SCORE_ROWS = 32
"""Cases scored at once at least: fewer read the tables so often that reading decides."""
BLOCK = 4096
"""Items scored at once: what they give fits the cache of a processor."""
GPU_BLOCK = 16384
"""The same on a GPU, where only the copies of half-precision tables in single precision count."""


class Term(NamedTuple):
    """One weighted mixture P of a score.

    Attributes:
        queries: per modality (B, D_m), any length of vector.
        normaliser: range of the items over which the softmaxes run.
        factor: (B,) weight of the term.
    """

    queries: Sequence[Tensor]
    normaliser: slice
    factor: Tensor


class MixtureHead(nn.Module):
    """P(i | h_1 .. h_M) = sum_m w_m(i) softmax_i(s_m cos(h_m, E_m[i])), or s_m h_m . E_m[i] where the table is not `unit`.

    An item that lacks a modality stands outside that modality's softmax, and the weights of the others are renormalised for
    it; then the mixture is no longer exactly a distribution over items (its sum may exceed 1).

    Args:
        tables: item vectors per modality.
        weights: mixture weight per modality, positive unless learned.
        config: how they are mixed.
    """

    tables: Mapping[str, IdTable | FrozenTable]

    def __init__(
        self, tables: Mapping[str, IdTable | FrozenTable], weights: Mapping[str, float], config: LLMEMFConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.tables = nn.ModuleDict(tables)  # type: ignore[assignment]  # a ModuleDict is a mapping to its modules
        self.num_items = next(iter(tables.values())).num_items
        log_weights = torch.tensor([math.log(max(weights[m], 1e-6)) for m in tables])
        log_scale = torch.full((1 if config.scale == "shared" else len(tables),), math.log(config.scale_init))
        self.log_weights = nn.Parameter(log_weights, requires_grad=config.learn_weights)
        self.unit = [table.unit for table in tables.values()]
        self.log_scale = nn.Parameter(log_scale, requires_grad=config.scale != "fixed" and any(self.unit))
        self._cache: tuple[list[Tensor], Tensor, list[Tensor | None], Tensor] | None = None

    def train(self, mode: bool = True) -> MixtureHead:
        self._cache = None
        return super().train(mode)

    def scales(self) -> Tensor:
        """(M,) inverse temperatures; a learned one is put back to its bound, so that it keeps a gradient there."""
        if self.config.scale != "fixed":
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(self.config.scale_max))
        scales = self.log_scale.exp().expand(len(self.tables))
        if all(self.unit):
            return scales
        return torch.stack([s if unit else torch.full_like(s, DOT_SCALE) for s, unit in zip(scales, self.unit)])

    def _directions(self, queries: Sequence[Tensor]) -> list[Tensor]:
        return [F.normalize(query, dim=1) if unit else query for query, unit in zip(queries, self.unit)]

    def item_log_weights(self) -> Tensor:
        """(N, M) log mixture weights per item, -inf where it lacks the modality, renormalised over the others."""
        weights = self.log_weights.log_softmax(0)[None, :].expand(self.num_items, -1)
        masks = [table.has for table in self.tables.values()]
        if all(mask is None for mask in masks):
            return weights
        every = torch.ones_like(weights[:, 0], dtype=torch.bool)
        has = torch.stack([every if mask is None else mask for mask in masks], 1)
        weights = torch.where(has, weights, -torch.inf)
        total = torch.where(has.any(1, keepdim=True), weights.logsumexp(1, keepdim=True), 0)
        return weights - total

    def step_rows(self, read: Tensor, ranges: Collection[tuple[int, int]]) -> StepRows:
        """Item vectors for one training step.

        Args:
            read: item ids of the step's inputs and targets, in any order and number; padding is ignored.
            ranges: (low, high) of every softmax that a sampled objective estimates.
        """
        place, ids, draws = None, None, {}
        if self.config.objective == "sampled":
            count = (self.config.sampled_negatives,)
            draws = {span: torch.randint(*span, count, device=read.device) for span in sorted(ranges)}
            ids = torch.cat([read[read < self.num_items], *draws.values()]).unique()
            place = ids.new_zeros(self.num_items + 1)
            place[ids] = torch.arange(len(ids), device=ids.device)
        pairs = [table.step_rows(ids) for table in self.tables.values()]
        outputs, halves = [rows for _, rows in pairs], None
        if self.config.objective_precision == "fp16":
            halves = [table.half_rows(rows) for table, rows in zip(self.tables.values(), outputs)]
        return StepRows([inputs for inputs, _ in pairs], outputs, place, draws, halves)

    def nll(
        self,
        queries: Sequence[Tensor],
        targets: Tensor,
        low: int,
        high: int,
        step: StepRows,
        exact: Tensor,
        row_weights: Tensor | None = None,
    ) -> Tensor:
        """Sum over rows of -log P(target), the softmax running over the items `low .. high - 1`.

        Args:
            queries: per modality (R, D_m), any length of vector.
            targets: (R,) item ids within the range. A target without any modality counts nothing.
            step: what `step_rows` gave in this step.
            exact: item ids that a sampled normaliser counts exactly, whatever is drawn: the inputs of the batch. Cosines
                are largest near a row's own inputs; left to chance, no model would learn to rank them down.
            row_weights: (R,) weight of every row, 1 by default.
        """
        if not len(targets):
            return torch.stack([q.sum() for q in queries]).sum() * 0
        log_weights, scales = self.item_log_weights(), self.scales()
        queries = self._directions(queries)
        if step.place is not None:
            sampled = sampled_columns(low, high, step.draws[low, high], exact)
            part: Tensor | slice = sampled.ids
            rows = [F.embedding(step.place[sampled.ids], table) for table in step.outputs]
            target_rows = [F.embedding(step.place[targets], table) for table in step.outputs]
        else:
            sampled, target_rows, part = None, None, slice(low, high)
            rows = [table[part] for table in step.outputs]
        present = [table.has if table.has is None else table.has[part] for table in self.tables.values()]
        target_weights, elements = log_weights[targets], self.config.chunk_elements
        halves = None if step.halves is None else [half.part(low, high) for half in step.halves]
        if self.config.mixture == "logit":
            queries = [_concatenate_queries(queries, scales)]
            rows_weights = log_weights[part]
            rows, present = [_concatenate_rows(rows, rows_weights.exp())], [rows_weights.amax(1) > -torch.inf]
            target_rows = None if target_rows is None else [_concatenate_rows(target_rows, target_weights.exp())]
            target_weights = torch.where(target_weights.amax(1, keepdim=True) > -torch.inf, 0.0, -torch.inf)
            scales = scales.new_ones(1)
        return mixture_nll(
            queries,
            rows,
            targets if sampled else targets - low,
            target_weights,
            scales,
            scales.new_ones(len(targets)) if row_weights is None else row_weights.to(scales.dtype),
            present=present,
            target_rows=target_rows,
            sampled=sampled,
            chunk_elements=elements,
            table_pass=None if halves is None else HalfPass(halves, scales, present=present, chunk_elements=elements),
        )

    @torch.no_grad()
    def add_probabilities(self, total: Tensor, terms: Sequence[Term], wanted: slice) -> None:
        """Add to `total` the sum over terms of factor * P, for the items `wanted`.

        In evaluation mode the item vectors are kept between calls until the mode changes. An item without any modality gets
        nothing. Terms read the item vectors together: one product per modality for all of them.

        Args:
            total: (B, n), of the type of `scoring_type()`.
            wanted: a range of item ids, inside the range of every term.
        """
        on_cpu, columns = total.device.type == "cpu", total.shape[1] * len(terms)
        step = max(SCORE_ROWS, (SCORE_ELEMENTS if on_cpu else GPU_SCORE_ELEMENTS) // columns)
        # One room for all of it: the system takes longer to give new memory than the processor to fill it.
        room = total.new_empty(0 if self.config.mixture == "logit" else min(step, len(total)) * columns)
        for start in range(0, len(total), step):
            part = slice(start, start + step)
            own = [Term([query[part] for query in term.queries], term.normaliser, term.factor[part]) for term in terms]
            if self.config.mixture == "logit":
                for term in own:
                    self._add_logit_mixture(total[part], term, wanted)
            else:
                self._add_mixture(total[part], own, wanted, room, BLOCK if on_cpu else GPU_BLOCK)

    def _add_mixture(self, total: Tensor, terms: Sequence[Term], wanted: slice, room: Tensor, block: int) -> None:
        """`add_probabilities` of a few cases, a block of items at a time, so that each stays in the processor's cache."""
        rows, weights, present, scales = self._scoring_tables()
        cases, count = len(total), wanted.stop - wanted.start
        # Items stand in the rows: a table times few columns runs twice as fast on a CPU as few rows times its transpose.
        kept = room[: count * cases * len(terms)].view(count, -1)
        factors = torch.cat([term.factor for term in terms])
        pointing = [self._directions(term.queries) for term in terms]
        for m, table in enumerate(rows):
            queries = [directions[m].float() * scales[m].float() for directions in pointing]
            together, masses = torch.cat(queries), torch.zeros_like(factors)
            # |cos| <= 1: the scale itself bounds the logits, no maximum is needed. Lengths bound inner products.
            shift = None if self.unit[m] else together.norm(dim=1) * table.norm(dim=1).amax()
            for items in _blocks(wanted.start, wanted.stop, block):
                found = kept[items.start - wanted.start : items.stop - wanted.start]
                masses += _mass(_exponentials(table[items], together, found, shift), present[m], items)
            shifts = [None] * len(terms) if shift is None else shift.split(cases)
            for term, query, own_shift, mass in zip(terms, queries, shifts, masses.split(cases)):
                for low, high in ((term.normaliser.start, wanted.start), (wanted.stop, term.normaliser.stop)):
                    for others in _blocks(low, high, block):
                        found = total.new_empty(others.stop - others.start, cases)
                        mass += _mass(_exponentials(table[others], query, found, own_shift), present[m], others)
            shares = torch.where(masses > 0, factors / masses, 0)
            for items in _blocks(wanted.start, wanted.stop, block):
                place = slice(items.start - wanted.start, items.stop - wanted.start)
                mixed = kept[place].mul_(shares).view(-1, len(terms), cases).sum(1)
                total[:, place] += mixed.mul_(weights[items, m : m + 1]).T

    def _add_logit_mixture(self, total: Tensor, term: Term, wanted: slice) -> None:
        rows, weights, _, scales = self._scoring_tables()
        joined = _concatenate_rows([table[term.normaliser].to(total.dtype) for table in rows], weights[term.normaliser])
        queries = [q.to(total.dtype) for q in self._directions(term.queries)]
        logits = _concatenate_queries(queries, scales) @ joined.T
        logits.masked_fill_(weights[term.normaliser].amax(1) == 0, -torch.inf)
        inner = slice(wanted.start - term.normaliser.start, wanted.stop - term.normaliser.start)
        total.addcmul_(logits.softmax(1)[:, inner], term.factor[:, None])

    def scoring_type(self) -> torch.dtype:
        """fp32, or fp64 where logits are so large, or not bounded, that probabilities would leave the range of fp32."""
        return self._scoring_tables()[3].dtype

    def scoring_rows(self) -> list[Tensor]:
        """Per modality (N, D_m) unit vectors of all items, half-precision tables as they are; kept in evaluation mode."""
        return self._scoring_tables()[0]

    def _scoring_tables(self) -> tuple[list[Tensor], Tensor, list[Tensor | None], Tensor]:
        """Item vectors, (N, M) weights, presence as numbers, scales; in evaluation mode kept until the mode changes."""
        if self._cache is not None:
            return self._cache
        scales = self.scales()
        wide = not all(self.unit) or float(scales.detach().max()) > FP32_SCALE
        kind = torch.float64 if wide else torch.float32
        present = [None if table.has is None else table.has.to(kind) for table in self.tables.values()]
        held = [table.held_rows() for table in self.tables.values()]
        rows = [table if table.dtype == torch.float16 else table.float() for table in held]
        tables = rows, self.item_log_weights().exp().to(kind), present, scales.to(kind)
        if not self.training:
            self._cache = tables
        return tables


def _blocks(low: int, high: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, high)) for start in range(low, high, size)]


def _exponentials(rows: Tensor, query: Tensor, found: Tensor, shift: Tensor | None) -> Tensor:
    """(n, B) exp(rows query^T - shift), written to `found`; the products are in fp32, the rest in the type of `found`."""
    rows = rows.to(query.dtype)
    if found.dtype == query.dtype:
        return torch.mm(rows, query.T, out=found).exp_()
    found.copy_(rows @ query.T)
    return (found if shift is None else found.sub_(shift)).exp_()


def _mass(exponentials: Tensor, present: Tensor | None, items: slice) -> Tensor:
    """(B,) sum of (n, B) exponentials over those of the items that have the modality."""
    return exponentials.sum(0) if present is None else present[items] @ exponentials


def _concatenate_queries(queries: Sequence[Tensor], scales: Tensor) -> Tensor:
    """One query whose inner product with `_concatenate_rows` is sum_m w_m s_m cos_m (the logit mixture)."""
    return torch.cat([q * scale for q, scale in zip(queries, scales)], 1)


def _concatenate_rows(rows: Sequence[Tensor], weights: Tensor) -> Tensor:
    return torch.cat([row * weights[:, m : m + 1] for m, row in enumerate(rows)], 1)
