"""The loss of `llmemf.objective` for K trials at once: the same equations with a leading dimension.

Chunks are chosen so that the logits of all trials together stay in a core's cache: stacking is for small sizes, where the
calls and not the products take the time.

Shapes: K trials, R rows, N items (columns), D width, M modalities, c rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmemf.objective import UNSHIFTED_SCALE

CACHED_ELEMENTS = 2**20
"""Logits of all trials together that are held at once (4 MiB in fp32)."""


def stacked_mixture_nll(
    queries: Sequence[Tensor],
    tables: Sequence[Tensor],
    target_rows: Sequence[Tensor],
    log_weights: Tensor,
    scales: Tensor,
    row_weights: Tensor,
    *,
    counts: Sequence[Tensor | None],
    target_is_column: bool = True,
    hits: Tensor | None = None,
    chunk_elements: int = CACHED_ELEMENTS,
) -> Tensor:
    """(K,) weighted sums of the negative log-probabilities of the targets.

    Args:
        queries: per modality (K, R, D_m) unit vectors.
        tables: per modality (K, N, D_m) unit vectors, or (N, D_m) where all trials share them.
        target_rows: per modality (K, R, D_m) the targets' vectors.
        log_weights: (K, R, M) log of the mixture weight of each modality for the row's target.
        scales: (K, M) inverse temperatures.
        row_weights: (K, R) weight of every row in the sum, 0 for rows that only fill the table; not differentiated.
        counts: per modality (N,) or (K, N) how often a column counts in the normaliser, or None for once.
        target_is_column: whether the target is among the columns; else it is counted beside them.
        hits: (K, R, N) bool, columns that are a row's target though it is counted beside them: they do not count.
        chunk_elements: logits of one modality held at once.
    """
    return _StackedMixtureNLL.apply(
        row_weights,
        target_is_column,
        counts,
        hits,
        chunk_elements,
        log_weights,
        scales,
        *queries,
        *tables,
        *target_rows,
    )


def _product(rows: Tensor, table: Tensor) -> Tensor:
    """(K, c, n) of (K, c, D) rows and a (K, D, n) or shared (D, n) table."""
    return torch.bmm(rows, table) if table.dim() == 3 else torch.matmul(rows, table)


class _StackedMixtureNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, row_weights, target_is_column, counts, hits, chunk_elements, log_weights, scales, *tensors):
        modalities = len(tensors) // 3
        queries, tables, vectors = (tensors[i * modalities : (i + 1) * modalities] for i in range(3))
        wants_table = ctx.needs_input_grad[7 + modalities : 7 + 2 * modalities]
        wants_vector = ctx.needs_input_grad[7 + 2 * modalities :]
        d_queries = [torch.empty_like(q) for q in queries]
        d_tables = [torch.zeros_like(e) if wanted else None for e, wanted in zip(tables, wants_table)]
        d_vectors = [torch.empty_like(v) if wanted else None for v, wanted in zip(vectors, wants_vector)]
        d_weights, d_scales = torch.empty_like(log_weights), torch.zeros_like(scales)
        trials, rows = row_weights.shape
        loss = row_weights.new_zeros(trials)
        columns = tables[0].shape[-2]
        step = max(1, min(rows, chunk_elements // max(1, trials * columns)))
        counted = [e if count is None else e * count.unsqueeze(-1) for e, count in zip(tables, counts)]
        # One trial whose scale is no number must not decide for the others.
        shifted = bool((scales > UNSHIFTED_SCALE).any())
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            log_probability, kept = [], []
            for m in range(modalities):
                query, vector, scale = queries[m][:, part], vectors[m][:, part], scales[:, m, None]
                own_logit = (query * vector).sum(2) * scale
                exponentials = _product(query * scale[..., None], tables[m].mT)
                top = None
                if shifted:
                    if counts[m] is not None:
                        exponentials.masked_fill_((counts[m] == 0).unsqueeze(-2), -torch.inf)
                    if hits is not None:
                        exponentials.masked_fill_(hits[:, part], -torch.inf)
                    # The target also bounds the maximum where all is masked.
                    top = torch.maximum(exponentials.amax(2), own_logit)
                    exponentials.sub_(top[..., None])
                    own_logit = own_logit - top
                exponentials.exp_()
                if hits is not None:
                    exponentials.masked_fill_(hits[:, part], 0)
                own = own_logit.exp()
                if counts[m] is None:
                    total = exponentials.sum(2)
                else:
                    total = _product(exponentials, counts[m].unsqueeze(-1)).squeeze(2)
                expected = _product(exponentials, counted[m])
                if not target_is_column:
                    total = total + own
                    expected.addcmul_(own[..., None], vector)
                # Nothing but 0 where no column has the modality; no target there has a weight either.
                total = total.clamp(min=torch.finfo(total.dtype).tiny)
                expected.div_(total[..., None])
                log_probability.append(own_logit - total.log())
                kept.append((query, vector, expected, own / total, exponentials if wants_table[m] else None, total))
            joint = log_weights[:, part] + torch.stack(log_probability, 2)
            mixed = joint.logsumexp(2)
            has_probability = mixed != -torch.inf  # true of NaN, which must reach the loss
            # A row that only fills the table may be anything; it must not turn a sum into NaN.
            weight = torch.where(has_probability, row_weights[:, part], 0)
            responsibility = torch.where(has_probability[..., None], torch.exp(joint - mixed[..., None]), 0)
            loss -= (torch.where(has_probability, mixed, 0) * weight).sum(1)
            share = responsibility * weight[..., None]
            d_weights[:, part] = -share
            for m, (query, vector, expected, own, exponentials, total) in enumerate(kept):
                g = share[:, :, m]
                away = expected - vector
                d_scales[:, m] += (g * (query * away).sum(2)).sum(1)
                scaled = scales[:, m, None] * g
                d_queries[m][:, part] = away.mul_(scaled[..., None])
                if d_tables[m] is not None:
                    d_tables[m].baddbmm_(exponentials.mT, query * (scaled / total)[..., None])
                if d_vectors[m] is not None:
                    other = -1 if target_is_column else own - 1
                    d_vectors[m][:, part] = query * (scaled * other)[..., None]
        for d_table, count in zip(d_tables, counts):
            if d_table is not None and count is not None:
                d_table.mul_(count.unsqueeze(-1))
        ctx.gradients = (d_weights, d_scales, *d_queries, *d_tables, *d_vectors)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        gradients = (None if g is None else g * upstream.view(-1, *[1] * (g.dim() - 1)) for g in ctx.gradients)
        return (None, None, None, None, None, *gradients)
