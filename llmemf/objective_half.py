"""The objective with half-precision operands: products of 16-bit numbers, summed in fp32, with plain torch operations.

Normalised vectors lose little in fp16. Their inner products leave the matrix units in fp32, are exponentiated there and go
into the second product, sum_i P(i) E[i], in bf16, which has the range that fp16 lacks: at a scale of 100 exponentials span
87 orders of magnitude. Normaliser, target logit, responsibilities and all gradients are fp32.

The gradient of a row whose target is already certain never falls below about 2^-9 of the initial one: the rounding of bf16.

No pass searches a row's maximum: what is subtracted from the logits is the part of the scale above `UNSHIFTED_SCALE`. Chunks
are blocks of rows and columns whose logits stay in the GPU's L2 cache.

Shapes: R rows, N items, D width, c rows of a chunk, n columns of a block.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmemf.objective import UNSHIFTED_SCALE, SoftmaxStats

HALF_SCALE = 100.0
"""Largest scale for these passes: beyond it a row far from all items would have a normaliser of zero."""

CHUNK_ROWS = 1024
"""Rows of a chunk: each reads every table once, so more of them read less; fewer keep more columns in the cache."""

BYTES_PER_LOGIT = 6
"""An fp32 logit and its bf16 exponential."""

ALIGNMENT = 64
"""Columns of a block and rows in memory are multiples of this: matrix units read nothing unaligned at their full rate."""

CPU_CACHE, CPU_FREE = 2**25, 2**30
"""Bytes of cache and of free memory that are assumed without a GPU."""


class HalfTable(NamedTuple):
    """16-bit copies of (N, D) item vectors: fp16 for the logits, bf16 for the expectations; zero where an item lacks the modality."""

    logits: Tensor
    values: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> HalfTable:
        """Copies of (N, D) unit vectors in fp32."""
        logits = rows.detach().half()
        return cls(logits, logits.bfloat16())

    def part(self, low: int, high: int) -> HalfTable:
        """The items `low .. high - 1`, without a copy."""
        return HalfTable(self.logits[low:high], self.values[low:high])


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of 16-bit numbers, summed and returned in fp32."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


@functools.lru_cache
def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes of L2 cache, and bytes that were free when this process first asked."""
    if device.type != "cuda":
        return CPU_CACHE, CPU_FREE
    return torch.cuda.get_device_properties(device).L2_cache_size, torch.cuda.mem_get_info(device)[0]


def chunk_shape(rows: int, columns: int, device: torch.device, chunk_elements: int = 0) -> tuple[int, int]:
    """Rows of a chunk and columns of a block.

    Args:
        chunk_elements: exponentials held at once, or 0: at most an eighth of the free memory, in blocks that fit the cache.
    """
    if chunk_elements:
        return max(1, min(rows, chunk_elements // max(columns, 1))), max(1, columns)
    cache, free = _memory(device)
    height = max(1, min(rows, CHUNK_ROWS, free // 8 // (2 * max(columns, 1))))
    width = cache // (BYTES_PER_LOGIT * height) // 256 * 256
    return height, max(1, min(columns, max(256, width)))


class HalfPass:
    """Plain products of half-precision operands (see the module)."""

    def __init__(
        self,
        halves: Sequence[HalfTable],
        scales: Tensor,
        *,
        present: Sequence[Tensor | None] | None = None,
        chunk: tuple[int, int] | None = None,
        chunk_elements: int = 0,
    ) -> None:
        """Args:
        halves: per modality the items of this call.
        scales: (M,) in fp32, each at most `HALF_SCALE`.
        present: per modality an (N,) bool mask of items that stand in its softmax, or None for all.
        chunk: rows and columns, where `chunk_shape` is not to choose them.
        """
        self.halves, self.scales = halves, scales.detach()
        self.present = present or [None] * len(halves)
        self.chunk, self.chunk_elements = chunk, chunk_elements
        self.shifts = (self.scales - UNSHIFTED_SCALE).clamp(min=0)

    def _shape(self, rows: int) -> tuple[int, int]:
        table = self.halves[0].logits
        return self.chunk or chunk_shape(rows, len(table), table.device, self.chunk_elements)

    def rows_at_once(self, rows: int) -> int:
        return self._shape(rows)[0]

    def _blocks(self, rows: int) -> list[slice]:
        """Equal blocks of aligned width, and one block of the remaining items."""
        items, width = len(self.halves[0].logits), self._shape(rows)[1]
        aligned = items // ALIGNMENT * ALIGNMENT
        count = max(1, -(-aligned // width))
        each = max(1, -(-aligned // count // ALIGNMENT)) * ALIGNMENT
        found = [slice(low, min(low + each, aligned)) for low in range(0, aligned, each)]
        return [*found, slice(aligned, items)] if aligned < items else found

    def softmax_stats(self, m: int, part: slice, query: Tensor, y: Tensor, keep: bool) -> SoftmaxStats:
        table, values = self.halves[m].logits, self.halves[m].values
        operand = (query * self.scales[m]).to(table.dtype)
        vector = table[y].float()
        own_logit = (operand.float() * vector).sum(1)
        total, expected = torch.zeros_like(own_logit), torch.zeros_like(query)
        kept = None
        if keep:
            padded = -(-len(table) // ALIGNMENT) * ALIGNMENT
            kept = query.new_empty(len(y), padded, dtype=torch.bfloat16)[:, : len(table)]
        for block in self._blocks(len(y)):
            logits = product(operand, table[block].T).sub_(self.shifts[m])
            exponentials = torch.empty_like(logits, dtype=torch.bfloat16) if kept is None else kept[:, block]
            torch.exp(logits, out=exponentials)
            if (present := self.present[m]) is not None:
                exponentials.mul_(present[block])
            total += exponentials.sum(1, dtype=torch.float32)
            expected += product(exponentials, values[block])
        total = total.clamp(min=torch.finfo(total.dtype).tiny)
        expected.div_(total[:, None])
        own_share = torch.exp(own_logit - self.shifts[m]) / total
        return SoftmaxStats(own_logit, self.shifts[m], total, expected, vector, own_share, kept)

    def add_table_gradient(
        self, m: int, d_table: Tensor, stats: SoftmaxStats, query: Tensor, y: Tensor, factor: Tensor
    ) -> None:
        # The target's column counts apart, in fp32: as a difference of rounded products little would be left of P(y) - 1 where
        # P(y) is nearly 1.
        assert stats.kept is not None
        own = stats.kept.gather(1, y[:, None]).squeeze(1).float()
        stats.kept.scatter_(1, y[:, None], 0)
        d_table.index_add_(0, y, query * (factor * (own - stats.total) / stats.total)[:, None])
        weighted = (query * (factor / stats.total)[:, None]).bfloat16()
        for block in self._blocks(len(query)):
            d_table[block] += product(stats.kept[:, block].T, weighted)

    def finish_table_gradient(self, m: int, d_table: Tensor) -> None:
        if (present := self.present[m]) is not None:
            d_table.mul_(present[:, None])
