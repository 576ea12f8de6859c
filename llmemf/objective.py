"""Log-probability under a mixture of cosine softmaxes (eqs. 3, 5-9), exact and in bounded memory.

For a row r with target y the loss is

    nll_r = -logsumexp_m( log w_rm + s_m cos(h_rm, E_m[y]) - logsumexp_i s_m cos(h_rm, E_m[i]) )

with M modalities, weights w (eq. 8) and scales s. Its gradient is that of M ordinary cross entropies, each weighted by
the responsibility p_rm = w_rm P_m(y) / sum_k w_rk P_k(y). Since the loss is a sum over rows with known weights, the gradients
are made in the forward pass, chunk by chunk: no (rows x items) matrix outlives its chunk, and the chunk's size in
elements does not depend on the number of items.

A `TablePass` computes the softmax statistics of a chunk: `ExactPass` here in the type of its inputs, `llmemf.objective_half`
with half-precision operands and sums in fp32.

Shapes: R rows, N items (columns), K sampled columns, D width, M modalities, c rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**23
"""Logits held at once for one modality (32 MiB in fp32)."""

UNSHIFTED_SCALE = 60.0
"""Logits up to this size have exponentials and sums that are normal numbers of fp32, so that no row needs its maximum."""


@dataclass(frozen=True)
class SampledColumns:
    """Columns that represent a whole catalogue.

    Attributes:
        ids: (K,) item ids of the columns, in the numbering of the targets.
        log_expansion: (K,) log of the number of items that a column represents: n over K for a draw out of n items (the
            log-Q correction of a uniform proposal, which makes the estimated normaliser unbiased), 0 for an item that is
            counted exactly, -inf for a draw that must not count.
    """

    ids: Tensor
    log_expansion: Tensor


def sampled_columns(low: int, high: int, draws: int | Tensor, exact: Tensor) -> SampledColumns:
    """Uniform draws out of the items `low .. high - 1`, and beside them exact items, which the draws then leave out.

    Args:
        draws: their number, with replacement, or (K,) item ids that were drawn before.
        exact: item ids that are counted exactly, whatever is drawn; those outside the range are ignored.
    """
    if isinstance(draws, int):
        draws = torch.randint(low, high, (draws,), device=exact.device)
    exact = exact[(exact >= low) & (exact < high)].unique()
    expansion = torch.full(draws.shape, math.log((high - low) / len(draws)), device=draws.device)
    expansion.masked_fill_(torch.isin(draws, exact), -torch.inf)
    return SampledColumns(torch.cat([draws, exact]), torch.cat([expansion, expansion.new_zeros(len(exact))]))


@dataclass(frozen=True)
class SoftmaxStats:
    """Softmax of a chunk's rows over the table of one modality.

    Attributes:
        own_logit: (c,) logit of the row's target.
        top: (c,) or a number on the device: what was subtracted from the logits before their exponentials were taken.
        total: (c,) sum of the exponentials.
        expected: (c, D) mean of the item vectors under the softmax.
        vector: (c, D) vector of the target.
        own_share: (c,) probability of the target.
        kept: (c, N) exponentials, from which the table's gradient is computed; None where it needs no gradient.
    """

    own_logit: Tensor
    top: Tensor
    total: Tensor
    expected: Tensor
    vector: Tensor
    own_share: Tensor
    kept: Tensor | None


class TablePass(Protocol):
    """One way to compute with the tables of one call of `mixture_nll`."""

    def rows_at_once(self, rows: int) -> int:
        """Rows of a chunk, at least 1."""

    def softmax_stats(self, m: int, part: slice, query: Tensor, y: Tensor, keep: bool) -> SoftmaxStats:
        """Softmax of the rows `part` over the table of modality m.

        Args:
            query: (c, D) queries of these rows.
            y: (c,) their targets.
            keep: whether `add_table_gradient` will follow.
        """

    def add_table_gradient(
        self, m: int, d_table: Tensor, stats: SoftmaxStats, query: Tensor, y: Tensor, factor: Tensor
    ) -> None:
        """Add sum_r factor_r (P_r(i) - [i = y_r]) query_r to the (N, D) gradient; factor (c,).

        With sampled columns the target is none of them, and the sum has P_r(i) alone.
        """

    def finish_table_gradient(self, m: int, d_table: Tensor) -> None:
        """Complete the (N, D) gradient once all chunks have been added."""


def mixture_nll(
    queries: Sequence[Tensor],
    tables: Sequence[Tensor],
    targets: Tensor,
    log_weights: Tensor,
    scales: Tensor,
    row_weights: Tensor,
    *,
    present: Sequence[Tensor | None] | None = None,
    target_rows: Sequence[Tensor] | None = None,
    sampled: SampledColumns | None = None,
    chunk_elements: int = 0,
    table_pass: TablePass | None = None,
) -> Tensor:
    """Weighted sum of the negative log-probabilities of the targets, a scalar.

    Args:
        queries: per modality (R, D_m) vectors h, normalised to unit length for eq. 3.
        tables: per modality (N, D_m) item vectors, unit length (zero where the item lacks the modality).
        targets: (R,) row of the target in the tables; with `sampled`, its item id.
        log_weights: (R, M) log of the mixture weight of each modality for the row's target; -inf leaves it out. A row
            that is -inf throughout has no probability and counts nothing.
        scales: (M,) inverse temperatures.
        row_weights: (R,) weight of every row in the sum; not differentiated.
        present: per modality an (N,) bool mask of items that stand in its softmax, or None for all.
        target_rows: with `sampled`: per modality (R, D_m) the targets' vectors.
        sampled: estimate the normaliser from these columns, whose vectors are `tables` (K, D_m).
        chunk_elements: logits held at once per modality; 0 for `CHUNK_ELEMENTS`.
        table_pass: another one than `ExactPass`, over the same tables; not with `sampled`.

    Source: eqs. 5-9; the modality-missing rule is ours (method.md section 2).
    """
    masks: Sequence[Tensor | None] = [None] * len(queries) if present is None else present
    own_rows: Sequence[Tensor | None] = [None] * len(queries) if target_rows is None else target_rows
    if table_pass is None:
        table_pass = ExactPass(tables, own_rows, scales, masks, sampled, chunk_elements or CHUNK_ELEMENTS)
    return _MixtureNLL.apply(targets, row_weights, table_pass, log_weights, scales, *queries, *tables, *own_rows)


class ExactPass:
    """Plain products in the type of the inputs, fp32 or fp64, over whole tables or sampled columns."""

    @torch.no_grad()
    def __init__(
        self,
        tables: Sequence[Tensor],
        target_rows: Sequence[Tensor | None],
        scales: Tensor,
        present: Sequence[Tensor | None],
        sampled: SampledColumns | None,
        chunk_elements: int,
    ) -> None:
        self.tables, self.target_rows, self.scales = tables, target_rows, scales
        self.sampled, self.chunk_elements = sampled, chunk_elements
        self.counts = [_column_counts(mask, sampled, tables[0]) for mask in present]
        self.counted = [e if count is None else e * count[:, None] for e, count in zip(tables, self.counts)]
        self.longest = None
        if scales.device.type == "cpu":
            self.longest = [table.norm(dim=1).amax() if len(table) else 0.0 for table in tables]

    def rows_at_once(self, rows: int) -> int:
        return max(1, min(rows, self.chunk_elements // max(len(self.tables[0]), 1)))

    def _may_overflow(self, m: int, query: Tensor, own_logit: Tensor) -> bool:
        """Whether exponentials of logits could leave the range of fp32; lengths bound them.

        A host that reads lengths from a GPU would wait for it in every call: there the answer is always yes.
        """
        if self.longest is None:
            return True
        bound = query.norm(dim=1).amax() * self.longest[m] * self.scales[m]
        return float(torch.maximum(bound, own_logit.abs().amax())) > UNSHIFTED_SCALE

    def softmax_stats(self, m: int, part: slice, query: Tensor, y: Tensor, keep: bool) -> SoftmaxStats:
        table, scale, count = self.tables[m], self.scales[m], self.counts[m]
        hits = None if self.sampled is None else self.sampled.ids[None, :] == y[:, None]
        own_rows = self.target_rows[m]
        vector = table[y] if self.sampled is None or own_rows is None else own_rows[part]
        own_logit = (query * vector).sum(1) * scale
        exponentials = torch.mm(query * scale, table.T)
        top = torch.zeros_like(own_logit)
        if self._may_overflow(m, query, own_logit):
            if count is not None:
                exponentials.masked_fill_(count == 0, -torch.inf)
            if hits is not None:
                exponentials.masked_fill_(hits, -torch.inf)
            # The target also bounds the maximum where all is masked.
            top = torch.maximum(exponentials.amax(1), own_logit)
            exponentials.sub_(top[:, None])
        exponentials.exp_()
        if hits is not None:  # the target is a column of its own
            exponentials.masked_fill_(hits, 0)
        own = torch.exp(own_logit - top)
        total = exponentials.sum(1) if count is None else torch.mv(exponentials, count)
        expected = torch.mm(exponentials, self.counted[m])
        if hits is not None:
            total = total + own
            expected.addcmul_(own[:, None], vector)
        # Nothing but 0 where no column has the modality; no target there has a weight either.
        total = total.clamp(min=torch.finfo(total.dtype).tiny)
        expected.div_(total[:, None])
        return SoftmaxStats(own_logit, top, total, expected, vector, own / total, exponentials if keep else None)

    def add_table_gradient(
        self, m: int, d_table: Tensor, stats: SoftmaxStats, query: Tensor, y: Tensor, factor: Tensor
    ) -> None:
        assert stats.kept is not None
        d_table.addmm_(stats.kept.T, query * (factor / stats.total)[:, None])
        if self.sampled is None:
            d_table.index_add_(0, y, query * -factor[:, None])

    def finish_table_gradient(self, m: int, d_table: Tensor) -> None:
        if (count := self.counts[m]) is not None:
            d_table.mul_(count[:, None])


def _column_counts(present: Tensor | None, sampled: SampledColumns | None, like: Tensor) -> Tensor | None:
    """(N,) how often each column counts in the normaliser; None where each counts once.

    A draw that stands for many items and an item that lacks the modality are thus factors of a column, and no pass over the
    (rows x columns) matrix.
    """
    if sampled is None:
        return None if present is None else present.to(like.dtype)
    counts = sampled.log_expansion.to(like.dtype).exp()
    return counts if present is None else counts * present


class _MixtureNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        targets: Tensor,
        row_weights: Tensor,
        table_pass: TablePass,
        log_weights: Tensor,
        scales: Tensor,
        *tensors: Tensor | None,
    ) -> Tensor:
        modalities = len(tensors) // 3
        queries = cast(tuple[Tensor, ...], tensors[:modalities])
        tables = cast(tuple[Tensor, ...], tensors[modalities : 2 * modalities])
        target_rows = tensors[2 * modalities :]
        wants_table = ctx.needs_input_grad[5 + modalities : 5 + 2 * modalities]
        d_queries = [torch.empty_like(q) for q in queries]
        d_tables = [torch.zeros_like(e) if wanted else None for e, wanted in zip(tables, wants_table)]
        d_targets = [torch.empty_like(y) if y is not None else None for y in target_rows]
        d_weights, d_scales = torch.empty_like(log_weights), torch.zeros_like(scales)
        loss = scales.new_zeros(())
        # The exponentials for a table's gradient are held until all tables were read, so these come last.
        order = sorted(range(modalities), key=wants_table.__getitem__)
        step = table_pass.rows_at_once(len(targets))
        for start in range(0, len(targets), step):
            part = slice(start, start + step)
            y = targets[part]
            found = {m: table_pass.softmax_stats(m, part, queries[m][part], y, wants_table[m]) for m in order}
            per_modality = [found[m] for m in range(modalities)]
            own_log_shares = [stats.own_logit - stats.top - stats.total.log() for stats in per_modality]
            joint = log_weights[part] + torch.stack(own_log_shares, 1)
            mixed = joint.logsumexp(1)
            has_probability = mixed != -torch.inf  # true of NaN, which must reach the loss
            weight = torch.where(has_probability, row_weights[part], 0)
            responsibility = torch.where(has_probability[:, None], torch.exp(joint - mixed[:, None]), 0)
            loss -= torch.where(has_probability, mixed, 0) @ weight
            share = responsibility * weight[:, None]
            d_weights[part] = -share
            for m, stats in enumerate(per_modality):
                query, g = queries[m][part], share[:, m]
                pull = stats.expected - stats.vector
                d_scales[m] += g @ (query * pull).sum(1)
                scaled = scales[m] * g
                d_queries[m][part] = scaled[:, None] * pull
                if (d_table := d_tables[m]) is not None:
                    table_pass.add_table_gradient(m, d_table, stats, query, y, scaled)
                if (d_target := d_targets[m]) is not None:
                    d_target[part] = query * (scaled * (stats.own_share - 1))[:, None]
        for m, d_table in enumerate(d_tables):
            if d_table is not None:
                table_pass.finish_table_gradient(m, d_table)
        ctx.gradients = (d_weights, d_scales, *d_queries, *d_tables, *d_targets)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if g is None else g * upstream for g in ctx.gradients)
        return (None, None, None, *gradients)
