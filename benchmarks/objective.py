"""The objective against the equations as written and against torch's own linear cross entropy: time, memory, accuracy.

    python benchmarks/objective.py [--items 11198] [--batch 256] [--rounds 5] [--threads 2] [--scale 14.3] [--json out.json]

One step is the loss of a batch and all its gradients: three sequences (X, Y, X+Y), three modalities (256, 512 and 512
wide), about 5,400 targets, each over its own items. The variants run in turn, round by round, so that what else happens on
the machine meets all of them; medians are compared. Memory is what one step adds to the peak of a fresh process. Accuracy
is that of all gradients against the equations in float64, on smaller shapes.

By default a ninth of the Movie-Book catalogue (4,094 + 7,104 items) and made-up histories of 6 to 13 items, padded to 15, as long on average as the published ones (9.6).
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from figures import interleaved, parser, timed, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from llmemf.memory import peak_bytes, reset_memory_peak
from llmemf.objective import mixture_nll

WIDTHS, WEIGHTS, SEQUENCE_WEIGHTS = (256, 512, 512), (0.5, 0.3, 0.2), (1.0, 0.3, 0.1)
LENGTH = 15
FLOPS_PER_LOGIT = 2 * (3 * WIDTHS[0] + 2 * WIDTHS[1] + 2 * WIDTHS[2])
"""Products of one pass over one (row, item) pair: logits and expectations for all, the table's gradient for the ids."""


@dataclass
class Step:
    """The inputs of one step: per sequence its items (a range), (B * 15,) targets or -1, and queries per modality.

    `units` are the tables with rows of unit length where they are frozen, made once, as trials have them.
    """

    ranges: list[tuple[int, int]]
    targets: list[Tensor]
    queries: list[list[Tensor]]
    tables: list[Tensor]
    scales: Tensor
    units: list[Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.units = [None if table.requires_grad else F.normalize(table, dim=1) for table in self.tables]

    def unit_tables(self) -> list[Tensor]:
        return [F.normalize(t, dim=1) if unit is None else unit for t, unit in zip(self.tables, self.units)]

    @classmethod
    def make(cls, items: int, batch: int, scale: float, seed: int = 0) -> Step:
        made = torch.Generator().manual_seed(seed)
        num_x = round(items * 36845 / 100782)
        ranges = [(0, num_x), (num_x, items), (0, items)]
        length = torch.randint(6, 14, (batch,), generator=made)
        of_x = (length * (0.35 + 0.3 * torch.rand(batch, generator=made))).long().clamp(min=3)
        targets = []
        for (low, high), count in zip(ranges, (of_x, length - of_x, length)):
            drawn = torch.randint(low, high, (batch, LENGTH), generator=made)
            # One item fewer than the sequence has: its first item is nobody's next.
            real = torch.arange(LENGTH)[None, :] >= LENGTH - (count - 1)[:, None]
            targets.append(torch.where(real, drawn, -1).flatten())
        tables = [torch.randn(items, width, generator=made) for width in WIDTHS]
        tables[0] = (tables[0] * 0.02).requires_grad_()
        queries = [[torch.randn(batch * LENGTH, d, generator=made).requires_grad_() for d in WIDTHS] for _ in ranges]
        return cls(ranges, targets, queries, tables, torch.full((len(WIDTHS),), scale))

    def leaves(self) -> list[Tensor]:
        return [self.tables[0], *(query for queries in self.queries for query in queries)]

    def pairs(self) -> int:
        """(row, item) pairs of the real rows."""
        return sum(int((t >= 0).sum()) * (high - low) for t, (low, high) in zip(self.targets, self.ranges))


def naive(step: Step, *, packed: bool) -> Tensor:
    """Eqs. 3 and 5-10 as written, over padded rows or over the real ones alone."""
    total = step.scales.new_zeros((), dtype=step.tables[0].dtype)
    units = [F.normalize(table, dim=1) for table in step.tables]
    for weight, (low, high), targets, queries in zip(SEQUENCE_WEIGHTS, step.ranges, step.targets, step.queries):
        real = targets >= 0
        if packed:
            queries, targets = [query[real] for query in queries], targets[real]
        mixed = 0.0
        for query, table, share, scale in zip(queries, units, WEIGHTS, step.scales):
            mixed = mixed + share * torch.softmax(scale * (F.normalize(query, dim=1) @ table[low:high].T), dim=1)
        picked = mixed.gather(1, (targets - low).clamp(min=0)[:, None]).squeeze(1)
        losses = -torch.log(picked)
        total = total + weight * (losses if packed else losses[real]).sum()
    return total


def torch_cross_entropy(step: Step) -> Tensor:
    """The mixture from three of torch's chunked linear cross entropies, over the real rows."""
    options = torch.nn.LinearCrossEntropyOptions()
    units = step.unit_tables()
    log_weights = torch.tensor(WEIGHTS).log()
    total = step.scales.new_zeros(())
    for weight, (low, high), targets, queries in zip(SEQUENCE_WEIGHTS, step.ranges, step.targets, step.queries):
        real = targets >= 0
        losses = [
            F.linear_cross_entropy(
                F.normalize(query[real], dim=1) * scale, unit[low:high], targets[real] - low, reduction="none",
                options=options,
            )
            for query, unit, scale in zip(queries, units, step.scales)
        ]  # fmt: skip
        total = total - weight * torch.logsumexp(log_weights - torch.stack(losses, 1), 1).sum()
    return total


def ours(step: Step) -> Tensor:
    """`llmemf.objective.mixture_nll`, as LLM-EMF calls it."""
    units = step.unit_tables()
    log_weights = torch.tensor(WEIGHTS, dtype=step.tables[0].dtype).log()
    total = step.scales.new_zeros((), dtype=step.tables[0].dtype)
    for weight, (low, high), targets, queries in zip(SEQUENCE_WEIGHTS, step.ranges, step.targets, step.queries):
        real = targets >= 0
        rows = [F.normalize(query[real], dim=1) for query in queries]
        count = int(real.sum())
        total = total + weight * mixture_nll(
            rows, [unit[low:high] for unit in units], targets[real] - low, log_weights.expand(count, -1),
            step.scales.to(total.dtype), total.new_ones(count),
        )  # fmt: skip
    return total


VARIANTS: dict[str, Callable[[Step], Tensor]] = {
    "equations, padded": lambda step: naive(step, packed=False),
    "equations, real rows": lambda step: naive(step, packed=True),
    "torch linear_cross_entropy": torch_cross_entropy,
    "ours": ours,
}


def take(step: Step, variant: Callable[[Step], Tensor]) -> float:
    """One step; the loss."""
    for leaf in step.leaves():
        leaf.grad = None
    loss = variant(step)
    loss.backward()
    return loss.item()


def added_memory(name: str, items: int, batch: int, scale: float, threads: int) -> float:
    """MiB that one step of a variant adds to the peak of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_added_memory, (name, items, batch, scale, threads))


def _added_memory(name: str, items: int, batch: int, scale: float, threads: int) -> float:
    torch.set_num_threads(threads)
    step = Step.make(items, batch, scale)
    reset_memory_peak()
    before = peak_bytes()
    take(step, VARIANTS[name])
    return (peak_bytes() - before) / 2**20


def gemm_rate() -> float:
    """FLOP/s of a square fp32 product in this process."""
    a = torch.randn(2048, 2048)
    times = [timed(lambda: a @ a) for _ in range(7)]
    return 2 * 2048**3 / statistics.median(times)


def gradient_error(dtype: torch.dtype, scale: float) -> float:
    """Largest relative error of a gradient against the equations in float64."""
    step = Step.make(501, 8, scale)
    exact = _with_type(step, torch.float64)
    take(exact, VARIANTS["equations, real rows"])
    found = _with_type(step, dtype)
    take(found, ours)
    pairs = zip(exact.leaves(), found.leaves())
    return max(float((b.grad.double() - a.grad).norm() / a.grad.norm()) for a, b in pairs)


def _with_type(step: Step, dtype: torch.dtype) -> Step:
    tables = [table.detach().to(dtype) for table in step.tables]
    tables[0].requires_grad_()
    queries = [[query.detach().to(dtype).requires_grad_() for query in queries] for queries in step.queries]
    return Step(step.ranges, step.targets, queries, tables, step.scales.to(dtype))


def measure(items: int, batch: int, rounds: int, threads: int, scale: float) -> dict[str, float]:
    """All figures of this benchmark by name."""
    torch.set_num_threads(threads)
    step = Step.make(items, batch, scale)
    times = interleaved({name: partial(take, step, variant) for name, variant in VARIANTS.items()}, rounds)
    memory = {name: added_memory(name, items, batch, scale, threads) for name in VARIANTS}
    return {
        **{f"seconds, {name}": value for name, value in times.items()},
        **{f"MiB, {name}": value for name, value in memory.items()},
        "share of the GEMM rate": step.pairs() * FLOPS_PER_LOGIT / times["ours"] / gemm_rate(),
        "gradient error, float64": gradient_error(torch.float64, scale),
        "gradient error, float32": gradient_error(torch.float32, scale),
    }


def main() -> None:
    options = parser(__doc__, items=11198, batch=256, rounds=5, threads=2)
    options.add_argument("--scale", type=float, default=1 / 0.07)
    given = options.parse_args()
    found = measure(given.items, given.batch, given.rounds, given.threads, given.scale)
    table = Table("variant", "ms per step", "time / ours", "MiB", "memory / ours")
    for name in VARIANTS:
        took, held = found[f"seconds, {name}"], found[f"MiB, {name}"]
        table.add_row(
            name, f"{1000 * took:,.0f}", f"{took / found['seconds, ours']:.2f}", f"{held:,.0f}",
            f"{held / found['MiB, ours']:.1f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"share of the GEMM rate: {found['share of the GEMM rate']:.2f}")
    console.print(f"gradient error: {found['gradient error, float64']:.1e} (float64), "
                  f"{found['gradient error, float32']:.1e} (float32)")  # fmt: skip
    write(found, given.json)


if __name__ == "__main__":
    main()
