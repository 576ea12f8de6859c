"""The exact objective as two fused Triton kernels, in the manner of flash attention with keys = values = item vectors.

`look_kernel` walks once over the table for a block of rows: it keeps the running maximum, the sum of exponentials and their
weighted sum of item vectors, so that neither logits nor probabilities ever leave the chip. `table_kernel` walks over the rows
for a block of items and gives the table's gradient. Operands are fp16, products are summed in fp32, the scale is applied in fp32
after the product. Widths are powers of two from 16 to 512.

Written without a GPU at hand: both kernels were run by Triton's interpreter (`TRITON_INTERPRET=1`) and compiled for an H200, so
that what they compute is tested and how fast they are is not. `kernel_wins` takes them only where a measurement in this
process says that they are faster than the plain pass and agree with it.

Shapes: R rows, N items, D width, S splits of the items.
"""

from __future__ import annotations

import functools
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmemf.objective import Look, MakePass, mixture_nll
from llmemf.objective_half import HalfPass, HalfTable

try:
    import triton
    import triton.language as tl
except ImportError:  # not on every system
    triton = None

log = logging.getLogger(__name__)

WIDTHS = (16, 32, 64, 128, 256, 512)
MEASURED_ROWS = 1024
"""Rows of the measurement that decides between the kernels and the plain pass."""
AGREEMENT = 5e-3
"""Largest relative difference of loss and gradients between the kernels and the plain pass."""


def interpreted() -> bool:
    """Whether Triton runs kernels by its interpreter, on any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: torch.device, widths: Sequence[int] = ()) -> str | None:
    """Why the kernels cannot run on a device with tables of these widths, or None."""
    if triton is None:
        return "the package triton is not installed"
    if device.type != "cuda" and not interpreted():
        return "the Triton kernel needs a GPU"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "the Triton kernel needs a GPU of compute capability 8.0 or more"
    if odd := sorted(set(widths) - set(WIDTHS)):
        return f"the Triton kernel knows no width of {odd[0]}, only {', '.join(map(str, WIDTHS))}"
    return None


if triton is not None:

    @triton.jit
    def look_kernel(
        queries, table, present, scale, maximum, total, expected,
        rows, items, items_per_split,
        WIDTH: tl.constexpr, ROWS: tl.constexpr, ITEMS: tl.constexpr, MASKED: tl.constexpr,
    ):  # fmt: skip
        """Rows of one block against the items of one split: their maximum, total and expected sum."""
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        split = tl.program_id(1)
        d = tl.arange(0, WIDTH)
        real_row = row < rows
        q = tl.load(queries + row[:, None] * WIDTH + d[None, :], mask=real_row[:, None], other=0.0)
        s = tl.load(scale)
        # Finite, so that no difference of infinities arises before the first item.
        top = tl.full((ROWS,), -1e30, tl.float32)
        mass = tl.zeros((ROWS,), tl.float32)
        summed = tl.zeros((ROWS, WIDTH), tl.float32)
        low = split * items_per_split
        high = tl.minimum(low + items_per_split, items)
        for start in range(low, high, ITEMS):
            item = start + tl.arange(0, ITEMS)
            counts = item < high
            e = tl.load(table + item[:, None] * WIDTH + d[None, :], mask=counts[:, None], other=0.0)
            if MASKED:
                counts = counts & (tl.load(present + item, mask=counts, other=0) != 0)
            logits = tl.dot(q, tl.trans(e)) * s
            logits = tl.where(counts[None, :], logits, -float("inf"))
            higher = tl.maximum(top, tl.max(logits, 1))
            p = tl.exp(logits - higher[:, None])
            kept = tl.exp(top - higher)
            mass = mass * kept + tl.sum(p, 1)
            # Of p <= 1 what fp16 loses below 6e-8 is lifted into its range first, and taken back at the end.
            lifted = (p * 32768.0).to(e.dtype)
            summed = summed * kept[:, None] + tl.dot(lifted, e)
            top = higher
        place = split * rows + row
        tl.store(maximum + place, top, mask=real_row)
        tl.store(total + place, mass, mask=real_row)
        tl.store(expected + place[:, None] * WIDTH + d[None, :], summed * (1.0 / 32768.0), mask=real_row[:, None])

    @triton.jit
    def table_kernel(
        queries, weighted, targets, table, present, scale, normaliser, gradient,
        rows, items,
        WIDTH: tl.constexpr, ROWS: tl.constexpr, ITEMS: tl.constexpr, MASKED: tl.constexpr,
    ):  # fmt: skip
        """sum_r (P_r(i) - [i = target_r]) weighted_r for the items of one block."""
        item = tl.program_id(0) * ITEMS + tl.arange(0, ITEMS)
        d = tl.arange(0, WIDTH)
        counts = item < items
        e = tl.load(table + item[:, None] * WIDTH + d[None, :], mask=counts[:, None], other=0.0)
        if MASKED:
            counts = counts & (tl.load(present + item, mask=counts, other=0) != 0)
        s = tl.load(scale)
        summed = tl.zeros((ITEMS, WIDTH), tl.float32)
        for start in range(0, rows, ROWS):
            row = start + tl.arange(0, ROWS)
            real_row = row < rows
            place = row[:, None] * WIDTH + d[None, :]
            q = tl.load(queries + place, mask=real_row[:, None], other=0.0)
            x = tl.load(weighted + place, mask=real_row[:, None], other=0.0)
            z = tl.load(normaliser + row, mask=real_row, other=float("inf"))
            p = tl.exp(tl.dot(e, tl.trans(q)) * s - z[None, :])
            y = tl.load(targets + row, mask=real_row, other=-1)
            # Before the rounding: little would be left of P(y) - 1 after it where P(y) is nearly 1.
            p = tl.where(counts[:, None], p, 0.0) - tl.where(item[:, None] == y[None, :], 1.0, 0.0)
            summed += tl.dot((p * 32768.0).to(e.dtype), x)
        tl.store(gradient + item[:, None] * WIDTH + d[None, :], summed * (1.0 / 32768.0), mask=(item < items)[:, None])


def look_blocks(width: int) -> dict[str, int]:
    """Rows and items of a block, warps and stages: the sums of a block of rows fill the registers of its warps.

    Compiled for an H200 at widths of 256 and 512 these take up to 247 registers, none spilled, and 160 KiB of shared memory.
    """
    if width > 256:
        return {"ROWS": 64, "ITEMS": 32, "num_warps": 8, "num_stages": 3}
    return {"ROWS": 128, "ITEMS": 64, "num_warps": 8, "num_stages": 3}


def table_blocks(width: int) -> dict[str, int]:
    """The same where the sums are those of a block of items."""
    if width > 256:
        return {"ROWS": 32, "ITEMS": 64, "num_warps": 8, "num_stages": 2}
    return {"ROWS": 64, "ITEMS": 128, "num_warps": 8, "num_stages": 2}


@functools.lru_cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def splits_of(row_blocks: int, items: int, block: int, device: torch.device) -> tuple[int, int]:
    """Splits of the items so that all processors have work, and items of a split, a multiple of the block."""
    blocks = -(-items // block)
    wanted = max(1, min(blocks, round(2 * _processors(device) / row_blocks)))
    per_split = -(-blocks // wanted) * block
    return -(-items // per_split), per_split


class KernelPass:
    """The kernels as a pass of `mixture_nll`: all rows at once.

    Args:
        halves: per modality the items of this call, in fp16.
        scales: (M,) in fp32, of any size.
        present: per modality an (N,) bool mask of items that stand in its softmax, or None for all.
    """

    def __init__(
        self, halves: Sequence[HalfTable], scales: Tensor, *, present: Sequence[Tensor | None] | None = None
    ) -> None:
        self.tables, self.scales = [half.logits for half in halves], scales
        self.present = present or [None] * len(halves)
        for table in self.tables:
            assert table.shape[1] in WIDTHS and table.dtype == torch.float16 and table.is_contiguous()

    def rows_at_once(self, rows: int) -> int:
        return max(1, rows)

    def look(self, m: int, part: slice, query: Tensor, y: Tensor, keep: bool) -> Look:
        table, scale, mask = self.tables[m], self.scales[m : m + 1].contiguous(), self.present[m]
        (rows, width), items = query.shape, len(table)
        operand = query.half().contiguous()
        vector = table[y].float()
        own_logit = (operand.float() * vector).sum(1) * scale
        blocks = look_blocks(width)
        row_blocks = triton.cdiv(rows, blocks["ROWS"])
        splits, per_split = splits_of(row_blocks, items, blocks["ITEMS"], table.device)
        maximum, total = (query.new_empty(splits, rows) for _ in range(2))
        expected = query.new_empty(splits, rows, width)
        look_kernel[(row_blocks, splits)](
            operand, table, operand if mask is None else mask.to(torch.int8), scale, maximum, total, expected,
            rows, items, per_split, WIDTH=width, MASKED=mask is not None, **blocks,
        )  # fmt: skip
        top = maximum.amax(0)
        share = torch.exp(maximum - top)
        total = (total * share).sum(0).clamp(min=torch.finfo(total.dtype).tiny)
        expected = (expected * share[:, :, None]).sum(0).div_(total[:, None])
        # All items lack the modality: no logit was seen, and no target has a weight either.
        top = torch.maximum(top, -self.scales[m].abs() - 1)
        kept = operand if keep else None
        return Look(own_logit, top, total, expected, vector, torch.exp(own_logit - top) / total, kept)

    def add_table_gradient(self, m: int, d_table: Tensor, look: Look, query: Tensor, y: Tensor, factor: Tensor) -> None:
        table, scale, mask = self.tables[m], self.scales[m : m + 1].contiguous(), self.present[m]
        (rows, width), items, blocks = query.shape, len(table), table_blocks(query.shape[1])
        # Relative to the largest factor all of them fit fp16.
        largest = factor.abs().amax().clamp(min=torch.finfo(factor.dtype).tiny)
        weighted = (query * (factor / largest)[:, None]).half()
        found = torch.empty_like(d_table)
        table_kernel[(triton.cdiv(items, blocks["ITEMS"]),)](
            look.kept, weighted, y.int(), table, look.kept if mask is None else mask.to(torch.int8), scale,
            (look.top + look.total.log()).contiguous(), found, rows, items, WIDTH=width, MASKED=mask is not None, **blocks,
        )  # fmt: skip
        d_table.addcmul_(found, largest)

    def finish_table_gradient(self, m: int, d_table: Tensor) -> None:
        if self.present[m] is not None:
            d_table.mul_(self.present[m][:, None])


_choices: dict[tuple, bool] = {}
"""What was measured in this process, by device and widths."""


def kernel_wins(halves: Sequence[HalfTable], scales: Tensor, learned: Sequence[bool]) -> bool:
    """Whether the kernels agree with the plain pass on these tables and are faster; measured once per process.

    Where they are not taken, one line says why.

    Args:
        halves: per modality all items, in fp16.
        learned: per modality whether its table has a gradient.
    """
    device, widths = scales.device, tuple(half.logits.shape[1] for half in halves)
    key = (device, widths, len(halves[0].logits))
    if key not in _choices:
        with torch.autocast(device.type, enabled=False):
            reason = why_not(device, widths) or _measure(halves, scales, learned)
        if reason is not None:
            log.warning("objective without the Triton kernel: %s", reason)
        _choices[key] = reason is None
    return _choices[key]


def _measure(halves: Sequence[HalfTable], scales: Tensor, learned: Sequence[bool]) -> str | None:
    """Why the plain pass is to be preferred, or None."""
    made = torch.Generator().manual_seed(0)
    tables = [half.logits.float().requires_grad_(needs) for half, needs in zip(halves, learned)]
    scales, items = scales.detach().clone(), len(tables[0])
    queries = [
        torch.nn.functional.normalize(torch.randn(MEASURED_ROWS, t.shape[1], generator=made), dim=1)
        .to(scales.device)
        .requires_grad_()
        for t in tables
    ]
    targets = torch.randint(0, items, (MEASURED_ROWS,), generator=made).to(scales.device)
    log_weights = scales.new_full((MEASURED_ROWS, len(tables)), 1 / len(tables)).log()
    leaves = [*queries, *(table for table in tables if table.requires_grad)]

    def take(make_pass: MakePass) -> list[Tensor]:
        weights = scales.new_full((MEASURED_ROWS,), 1 / MEASURED_ROWS)
        loss = mixture_nll(queries, tables, targets, log_weights, scales, weights, make_pass=make_pass)
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    bound = float(scales.max())
    plain = functools.partial(take, lambda _, s: HalfPass(halves, s, scale_bound=bound))
    fused = functools.partial(take, lambda _, s: KernelPass(halves, s))
    try:
        pairs = list(zip(fused(), plain()))
    except Exception as error:  # noqa: BLE001 - whatever a compiler or driver may raise
        return f"it fails here ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
    apart = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    if not apart <= AGREEMENT:
        return f"it differs from the plain pass by {apart:.1e}"
    seconds = {name: _seconds(work, scales.device) for name, work in (("kernel", fused), ("plain", plain))}
    if seconds["kernel"] >= seconds["plain"]:
        return f"it takes {1e3 * seconds['kernel']:.1f} ms where the plain pass takes {1e3 * seconds['plain']:.1f}"
    return None


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
