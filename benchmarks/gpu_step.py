"""The objective of one step for the GPU benchmark, and the passes that it is tried with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_bench import Bench
from llmemf.objective import mixture_nll
from llmemf.objective_half import HalfPass, HalfTable

WEIGHTS, SEQUENCE_WEIGHTS = (0.4, 0.3, 0.3), (1.0, 0.3, 0.1)


@dataclass
class Step:
    """The objective's inputs of one step: per sequence its items, its targets and its queries."""

    ranges: list[tuple[int, int]]
    targets: list[Tensor]
    queries: list[list[Tensor]]
    tables: list[Tensor]
    scales: Tensor

    @classmethod
    def make(cls, bench: Bench, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Step:
        shape, made = bench.shape, torch.Generator().manual_seed(seed)
        ranges = [(0, shape.num_x), (shape.num_x, shape.num_items), (0, shape.num_items)]
        per_sequence = (4.95, 5.03, 10.98)

        def unit(rows: int, width: int) -> Tensor:
            return F.normalize(torch.randn(rows, width, generator=made), dim=1).to(bench.device, dtype)

        rows = [round(shape.batch * count / 128) * 128 or 128 for count in per_sequence]
        if not bench.on_gpu:
            rows = [round(shape.batch * count) for count in per_sequence]
        tables = [unit(shape.num_items, width) for width in shape.widths]
        tables[0].requires_grad_()
        targets = [torch.randint(0, high - low, (count,), generator=made).to(bench.device)
                   for count, (low, high) in zip(rows, ranges)]  # fmt: skip
        queries = [[unit(count, width).requires_grad_() for width in shape.widths] for count in rows]
        scales = torch.full((3,), 1 / 0.07, device=bench.device, dtype=dtype)
        return cls(ranges, targets, queries, tables, scales)

    def pairs(self) -> int:
        return sum(len(t) * (high - low) for t, (low, high) in zip(self.targets, self.ranges))

    def leaves(self) -> list[Tensor]:
        return [self.tables[0], *(query for queries in self.queries for query in queries)]

    def cast(self, dtype: torch.dtype) -> Step:
        def copy(t: Tensor) -> Tensor:
            return t.detach().to(dtype).requires_grad_(t.requires_grad)

        queries = [[copy(query) for query in queries] for queries in self.queries]
        return Step(self.ranges, self.targets, queries, [copy(t) for t in self.tables], self.scales.to(dtype))

    def loss(self, make_pass: Callable | None) -> Tensor:
        """Loss of the step. `make_pass` takes the halves' range, tables and scales; None computes as the inputs are."""
        log_weights, total = torch.tensor(WEIGHTS, device=self.scales.device).log().to(self.scales.dtype), 0.0
        for weight, (low, high), targets, queries in zip(SEQUENCE_WEIGHTS, self.ranges, self.targets, self.queries):
            chosen = None if make_pass is None else lambda t, s, low=low, high=high: make_pass(low, high, t, s)
            total = total + weight / self.targets[0].numel() * mixture_nll(
                queries, [table[low:high] for table in self.tables], targets, log_weights.expand(len(targets), -1),
                self.scales, self.scales.new_ones(len(targets)), make_pass=chosen,
            )  # fmt: skip
        return total

    def take(self, make_pass: Callable | None) -> Tensor:
        for leaf in self.leaves():
            leaf.grad = None
        loss = self.loss(make_pass)
        loss.backward()
        return loss.detach()


def half_pass(step: Step, dtype: torch.dtype, chunk: tuple[int, int] | None = None) -> Callable:
    """Plain half-precision passes; the frozen tables' copies are made here, those of the ids in every step."""
    frozen = [HalfTable(table, dtype) for table in step.tables[1:]]
    current: dict[str, HalfTable] = {}

    def make(low: int, high: int, tables: Sequence[Tensor], scales: Tensor) -> HalfPass:
        if low == 0 and high < len(step.tables[0]):  # the first sequence of a step
            current["ids"] = HalfTable(step.tables[0], dtype)
        parts = [half.part(low, high) for half in (current["ids"], *frozen)]
        fitting = None if chunk is None else (chunk[0], min(chunk[1], high - low))
        return HalfPass(parts, scales, scale_bound=1 / 0.07, chunk=fitting)

    return make


def kernel_pass(step: Step) -> Callable:
    from llmemf.objective_kernel import KernelPass

    frozen = [HalfTable(table, torch.float16) for table in step.tables[1:]]
    current: dict[str, HalfTable] = {}

    def make(low: int, high: int, tables: Sequence[Tensor], scales: Tensor):
        if low == 0 and high < len(step.tables[0]):
            current["ids"] = HalfTable(step.tables[0], torch.float16)
        return KernelPass([half.part(low, high) for half in (current["ids"], *frozen)], scales)

    return make


def worst_gradient(step: Step, make_pass: Callable | None) -> float:
    """Largest relative error of a gradient against the equations' exact pass in float64."""
    exact = step.cast(torch.float64)
    exact.take(None)
    step.take(make_pass)
    return max(float((b.grad.double() - a.grad).norm() / a.grad.norm()) for a, b in zip(exact.leaves(), step.leaves()))
