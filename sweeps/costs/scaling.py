"""How a trial of LLM-EMF grows: operations, bytes and seconds of an epoch, memory and disk, as plain functions of sizes.

Operations are those of matrix products (2 per multiply-add), which decide on every device; bytes are what a step must move
where products do not decide, were its cache large: the tables behind the chunks of the objective, all weights with their
moments, the scores.
Seconds are a roofline: each part takes its operations over the device's rate or its bytes over its bandwidth, whichever is
longer. Nothing reaches its roof: whoever wants seconds divides by the share of the roof that was measured somewhere.

What is left out: sizes that do not grow (start of processes, libraries, activations), gathers, dropout, and what a GPU spends
between two kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeps.costs.workload import FP32, View, Workload

INDEX = 4
"""Bytes of an item id in the tables on the device."""
VIEW_TABLES = 3
"""Items, next of the same domain, next of either (`llmemf.batches.View`)."""
ADAM = 7 * FP32
"""Bytes moved per weight and step: weight, gradient and two moments read, all but the gradient written."""
HELD = 4
"""Numbers held per weight in training: itself, its gradient, two moments."""
STORED = 3
"""Numbers per weight in a checkpoint besides the best weights: itself, two moments."""
EXACT_TABLES = 4
"""Tables of the size of the trained ones that a step of the exact objective holds at once: unit rows and gradients."""
RANKED = 10
"""Bytes per case and item while cases are ranked: the score, a logarithm or copy of it, and comparisons."""


@dataclass(frozen=True)
class Device:
    """What a device can do at most.

    Attributes:
        flops: operations per second of large matrix products, in the precision of the objective.
        bandwidth: bytes per second of a copy, read and written ones counted.
        memory: bytes.
        padded: encoders compute padding as well (not on a CPU).
        step: seconds that a step takes at least, whatever its size: about 1,000 kernels of 5 microseconds on a GPU.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    padded: bool = True
    step: float = 0.0


LAUNCHES = 0.005
H200 = Device("H200", 790e12, 4.3e12, 139 * 2**30, step=LAUNCHES)
"""Half-precision products with fp32 accumulation, and a copy, as measured on one."""
RTX4090 = Device("RTX 4090", 165e12, 1.008e12, 24e9, step=LAUNCHES)
"""The manufacturer's sheet."""


@dataclass(frozen=True)
class Work:
    """Operations of matrix products, and bytes moved."""

    flops: float
    moved: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved + other.moved)

    def times(self, factor: float) -> Work:
        return Work(factor * self.flops, factor * self.moved)

    def seconds(self, device: Device) -> float:
        return max(self.flops / device.flops, self.moved / device.bandwidth)


def encoding(size: Workload, view: View, rows: float, inputs: float, at_once: int, *, padded: bool) -> Work:
    """A view's encoders, forwards, over so many rows with so many real inputs each, some of them at once."""
    length = view.columns if padded else inputs
    # Attention itself is padded everywhere.
    per_row = sum(size.products * width**2 * length + 2 * view.columns**2 * width for width in size.widths)
    weights = size.products * size.layers * sum(width**2 for width in size.widths)
    return Work(2 * rows * size.layers * per_row, FP32 * weights * rows / at_once)


def projection(size: Workload, read: float) -> float:
    """Operations of a linear map of so many items' frozen vectors, forwards."""
    return 2 * read * size.projected * sum(size.frozen)


def columns(size: Workload, view: View) -> float:
    """Columns of a view's softmax in a training step: all its items, or draws beside the batch's own inputs."""
    if not size.negatives:
        return view.span
    return size.negatives + expected_distinct(size.batch * view.inputs, view.span)


def expected_distinct(draws: float, items: float) -> float:
    """Distinct items among uniform draws; a skewed catalogue has fewer."""
    return items * -math.expm1(draws * math.log1p(-1 / items)) if items > 1 else items


def objective(size: Workload, *, half: bool = False) -> Work:
    """The losses of a training step with their gradients: scores, expected vectors, and gradients of trained tables.

    Args:
        half: the exact objective has operands of half precision, as on a GPU.
    """
    total = Work(0, 0)
    every, trained = sum(size.widths), sum(size.trained_widths)
    for view in size.views:
        wide, rows = columns(size, view), size.batch * view.targets * view.trained
        pairs = rows * wide
        half = half and not size.negatives
        chunks = max(min(1.0, rows), rows / size.chunk_rows if half else pairs / max(size.chunk, wide))
        # Each chunk reads every table twice and adds to the gradient of the trained ones; its logits stay in the cache.
        moved = chunks * wide * ((FP32 // 2 if half else FP32) * 2 * every + FP32 * 2 * trained)
        total += Work(2 * pairs * (2 * every + trained), moved)
    return total


def tables(size: Workload) -> Work:
    """What a step does to all weights, gradients and Adam, and to the items that it reads: unit rows and projections."""
    weights = size.ids * size.id_tables * size.num_items + encoder_weights(size)
    moved = weights * (ADAM + FP32)
    read = float(size.num_items)
    if size.negatives:
        draws = 2 * sum(size.batch * view.inputs * (view.trained > 0) for view in size.views[2:])
        drawn = sum(expected_distinct(size.negatives, view.span) for view in size.views if view.trained)
        read = min(read, expected_distinct(draws, size.num_items) + drawn)
    # Unit vectors and their gradient.
    moved += 6 * FP32 * size.ids * read
    return Work(2 * projection(size, read), moved)


def training(size: Workload, *, padded: bool = False) -> dict[str, Work]:
    """An epoch of training by part: `objective`, `encoders`, `tables`."""
    encoders = Work(0, 0)
    for view in size.views:
        encoders += encoding(size, view, size.batch, view.inputs, size.batch, padded=padded).times(3 * view.trained)
    parts = {"objective": objective(size, half=padded), "encoders": encoders, "tables": tables(size)}
    return {name: work.times(size.steps) for name, work in parts.items()}


def validation(size: Workload, *, padded: bool = False) -> dict[str, Work]:
    """A validation by part: `encoders`, `scores`."""
    encoders = scores = Work(0, 0)
    for domain, cases in enumerate(size.cases):
        for view in size.views:
            if span := view.scored[domain]:
                encoders += encoding(size, view, cases, view.history[domain], size.eval_batch, padded=padded)
                at_once = min(size.eval_batch, max(size.score_rows, size.score_chunk // max(1, size.num_items)))
                scores += Work(2 * cases * span * sum(size.widths), FP32 * cases * span * sum(size.widths) / at_once)
        # Among all items, compared with the target's.
        scores += Work(0, 8 * FP32 * cases * size.items[domain])
    scores += Work(projection(size, size.num_items), 0)
    return {"encoders": encoders, "scores": scores}


def train_seconds(size: Workload, device: Device) -> float:
    """An epoch of training at the device's roof."""
    return sum(work.seconds(device) for work in training(size, padded=device.padded).values())


def valid_seconds(size: Workload, device: Device) -> float:
    """A validation at the device's roof."""
    return sum(work.seconds(device) for work in validation(size, padded=device.padded).values())


def frozen_bytes(size: Workload) -> float:
    """The frozen tables: in the object store of every node and in the driver, or in the page cache where they are mapped."""
    return float(size.num_items * sum(size.frozen) * size.row_bytes)


def encoder_weights(size: Workload) -> float:
    """Weights of all encoders and maps, without vectors and positions."""
    encoders = size.products * size.layers * len(size.views) * sum(width**2 for width in size.widths)
    return float(size.models * (encoders + size.projected * sum(size.frozen)))


def sequence_bytes(size: Workload) -> float:
    """Training rows and validation cases as padded tables on the device; each trial has its own."""
    row = sum(view.columns for view in size.views) * VIEW_TABLES * INDEX + INDEX
    return row * (size.rows + size.kept_cases)


def history_bytes(size: Workload) -> float:
    """Histories and candidates in the object store of every node."""
    per_item, per_row = 4 + 8, 4 + 8
    items = 1 + max((view.inputs for view in size.views), default=0)
    return size.rows * (items * per_item + per_row) + size.kept_cases * (items * per_item + 4 * size.candidates)


def trial_bytes(size: Workload) -> float:
    """What grows with the sizes in a trial's own memory (on a GPU: there), at its highest."""
    table = FP32 * size.ids * size.id_tables * float(size.num_items)
    held = (HELD + size.best) * (table + FP32 * encoder_weights(size)) + sequence_bytes(size)
    projected = FP32 * size.num_items * size.projected * len(size.frozen)
    train = 0.0
    if not size.negatives:
        train = EXACT_TABLES * (table / max(1, size.id_tables) + projected)
        if size.row_bytes < FP32:
            train += FP32 * size.num_items * sum(size.frozen)
    span = max((max(view.scored) for view in size.views), default=0)
    at_once = min(size.eval_batch, max(size.score_rows, size.score_chunk // max(1, size.num_items)))
    valid = table + projected + RANKED * size.eval_batch * max(size.items) + 2 * FP32 * at_once * span
    return held + max(train, valid)


def host_bytes(size: Workload, trials: int, *, device: Device | None = None) -> float:
    """What grows on a node that drives a sweep and runs so many trials: shared data, the driver's copy, the trials' own.

    Args:
        device: a GPU that holds the trials' own part; None where the host does.
    """
    frozen = 0.0 if size.mapped else 2 * frozen_bytes(size)
    return frozen + 2 * history_bytes(size) + (0.0 if device else trials * trial_bytes(size))


def device_bytes(size: Workload) -> float:
    """One trial on a GPU: its own part, the frozen tables, and for the exact objective two 16-bit copies of all tables."""
    copies = 0.0 if size.negatives else FP32 * size.num_items * sum(size.widths)
    return trial_bytes(size) + frozen_bytes(size) + copies


def checkpoint_bytes(size: Workload) -> float:
    """One checkpoint: weights, moments, and the best weights twice (to go on with, and as the file that scores)."""
    weights = size.ids * size.id_tables * float(size.num_items) + encoder_weights(size)
    return (STORED + 2 * size.best) * FP32 * weights
