"""What another size or a GPU would take: the model of `scaling`, set right by what was measured here. Not a measurement.

A device's share of its roof is modelled seconds over measured seconds, for training and validation apart. Another size on the
same device, or another device, is taken to reach the same share, but no GPU to be quicker than it starts its kernels; memory
grows from what was measured by what the model adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmemf import text_format
from sweeps.costs import scaling
from sweeps.costs.probe import Measured
from sweeps.costs.scaling import Device
from sweeps.costs.workload import Workload

FACTOR = 10
CASES = 2000
"""Validation cases that `valid_cases` is advised to keep."""
SLOW = 0.5
"""Share of an epoch from which on a part of it counts as the wall."""


@dataclass(frozen=True)
class Calibration:
    """What was measured, beside what the model says of it.

    Attributes:
        size: of the trial that was measured.
        device: where, with the ceilings found there.
        measured: its seconds and bytes.
        train, valid: share of the roof that was reached.
        trials: at once on this node.
        node: bytes of the node's memory.
    """

    size: Workload
    device: Device
    measured: Measured
    train: float
    valid: float
    trials: int
    node: float


@dataclass(frozen=True)
class Projected:
    """One size on one device.

    Attributes:
        train, valid: seconds of an epoch.
        memory: bytes of the node for the trials at once; `on_device` for one trial on a GPU, 0 on a CPU.
        walls: what is in the way, each with its switch.
    """

    name: str
    train: float
    valid: float
    memory: float
    on_device: float
    walls: list[str]

    @property
    def epoch(self) -> float:
        return self.train + self.valid


def calibrate(size: Workload, device: Device, measured: Measured, *, trials: int, node: float) -> Calibration:
    """Compare the model with what was measured."""
    return Calibration(
        size,
        device,
        measured,
        scaling.train_seconds(size, device) / measured.train,
        scaling.valid_seconds(size, device) / max(measured.valid, 1e-9),
        trials,
        node,
    )


def project(found: Calibration, size: Workload, device: Device, name: str) -> Projected:
    """Another size, another device, or both."""
    train = max(scaling.train_seconds(size, device) / found.train, size.steps * device.step)
    batches = sum(size.cases) / size.eval_batch
    valid = max(scaling.valid_seconds(size, device) / found.valid, batches * device.step)
    on_gpu = device.padded
    private = found.measured.gpu_memory or found.measured.private
    own = private + scaling.trial_bytes(size) - scaling.trial_bytes(found.size)
    shared = found.measured.memory - found.measured.private
    grown = scaling.host_bytes(size, 0) - scaling.host_bytes(found.size, 0)
    host_own = found.measured.libraries if on_gpu else own
    memory = shared + grown + found.trials * host_own
    on_device = private + scaling.device_bytes(size) - scaling.trial_bytes(found.size) if on_gpu else 0.0
    if on_gpu and found.device.padded:  # what was measured there has the tables in it
        on_device -= scaling.device_bytes(found.size) - scaling.trial_bytes(found.size)
    result = Projected(name, train, valid, memory, on_device, [])
    return replace(result, walls=walls(found, size, device, result))


def walls(found: Calibration, size: Workload, device: Device, result: Projected) -> list[str]:
    """What does not fit or takes most of the time, and the switch that passes it."""
    lines = []
    frozen = 0.0 if size.mapped else 2 * scaling.frozen_bytes(size)
    if result.memory > found.node:
        need = f"memory: {text_format.size(result.memory)} of {text_format.size(found.node)}"
        if frozen > 0.1 * result.memory:
            need += f"; `llmemf features pack` takes {text_format.size(frozen)} off"
        if found.trials > 1 and not device.padded:
            need += f"; --concurrency below {found.trials}"
        own = scaling.trial_bytes(size)
        if not device.padded and own > 0.5 * found.node:
            need += f"; a trial alone holds {text_format.size(own)}, most of it ids: lower id_dim"
        lines.append(need)
    if result.on_device > device.memory:
        lines.append(
            f"GPU memory: {text_format.size(result.on_device)} of {text_format.size(device.memory)}; lower id_dim (the id table is not "
            "split over GPUs), or objective=sampled where it is exact"
        )
    parts = scaling.training(size, padded=device.padded)
    seconds = {part: work.seconds(device) for part, work in parts.items()}
    if not size.negatives and not device.padded and seconds["objective"] > SLOW * sum(seconds.values()):
        sampled = replace(size, negatives=2048)
        quicker = scaling.train_seconds(sampled, device) / found.train
        if quicker < SLOW * result.train:
            lines.append(f"exact softmax: --set objective=sampled takes {_seconds(quicker)} an epoch instead")
    if result.valid > result.train and sum(size.cases) > CASES:
        kept = result.valid * CASES / sum(size.cases)
        lines.append(
            f"validation: --set valid_cases={CASES} takes {_seconds(kept)} instead of {_seconds(result.valid)}"
        )
    return lines


def projections(found: Calibration) -> list[Projected]:
    """Ten times the items or users here, and today's and those sizes on one H200."""
    larger = {f"{FACTOR} x {what}": found.size.grown(FACTOR, what) for what in ("items", "users")}
    rows = [project(found, size, found.device, name) for name, size in larger.items()]
    if "H200" not in found.device.name:
        sizes = {"this size": found.size, **larger}
        rows += [project(found, size, scaling.H200, f"{name}, one H200") for name, size in sizes.items()]
    return rows


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 600 else text_format.duration(value)
