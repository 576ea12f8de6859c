"""What a sweep will take: a few real steps of its trials, in processes like theirs, scaled up to all of them.

What is measured: start of a process with its imports, epochs of a typical, the cheapest and the dearest configuration
(from pieces of an epoch), memory, and how much slower trials are when as many as will run at once do so. What is computed:
the schedule of all trials on their slots, with and without asynchronous halving, and what other sizes and a GPU would take
(`projection`). What is assumed is printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from llmemf import text_format
from llmemf.errors import InputError
from sweeps.cluster.resources import machine, slots
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import SweepData
from sweeps.costs.disk_need import DiskNeed, disk_need
from sweeps.costs.dry_run import disk_text, remaining
from sweeps.costs.halving_simulation import simulate
from sweeps.costs.probe import Measured
from sweeps.costs.processes import Probes, total_memory
from sweeps.costs.projection import Calibration, Projected, calibrate, projections
from sweeps.costs.trial import TrialCosts, measure_costs, trial_factors
from sweeps.costs.workload import workload
from sweeps.state.sweep_state import SweepState

SWEEP_START = 12.0
"""Seconds for Ray, MLflow and the leaderboard (measured on two cores: 10 to 20)."""
TRIAL_GAP = 1.0
"""Seconds before the process of a trial starts, where it is a new one."""
CUDA_CONTEXT = 0.6 * 2**30
"""What the driver holds on a GPU for each process."""
GPU_FILLED = 0.9


@dataclass(frozen=True)
class Estimate:
    """What one sweep will take; times in seconds, memory and disk in bytes.

    Attributes:
        typical, cheapest, dearest: measured alone on this machine; the ends are None where all trials cost the same.
        start: from a free slot to the first step of a trial, in the mean of trials that need a new process and others.
        crowded: how many times longer an epoch takes with `together` trials at once.
        together: copies that were tried at once.
        epoch: seconds of a mean trial's epoch among others.
        at_most: the whole sweep if every trial runs all its epochs.
        expected: the same with halving; equal to `at_most` without a scheduler.
        expected_epochs: of a mean trial.
        gpu_hours: expected; `gpu_hours_at_most` without early stopping.
        gpu_share: the smallest `--gpus-per-trial` that the memory of a GPU allows, None without one.
        calibration: what `projection` starts from; None for systems other than LLM-EMF, which it does not know.
    """

    typical: Measured
    cheapest: Measured | None
    dearest: Measured | None
    start: float
    crowded: float
    together: int
    epoch: float
    at_most: float
    expected: float
    expected_epochs: float
    gpu_hours: float
    gpu_hours_at_most: float
    gpu_share: float | None
    disk: DiskNeed
    calibration: Calibration | None


def estimate(
    plan: Plan, data: SweepData, parallel: int, console: Console, *, gpu_price: float | None = None
) -> Estimate:
    """Measure for about a minute, and print what the sweep will take.

    Args:
        gpu_price: money per GPU-hour, for what the sweep will cost; told nowhere without it.

    Raises:
        InputError: no trial is left or fits this machine, or its configuration does not fit the data or the memory.
    """
    record = plan.record
    if not any(map(bool, remaining(plan, SweepState(record.folder)))):
        raise InputError(f"sweep {record.name!r} has no trial left to run")
    if not console.is_terminal:
        console.print("estimate: measuring for about a minute")
    with console.status("estimate: building a trial") as status:
        disk = disk_need(plan, data.trial_data, parallel)
        here = record.model_copy(update={"concurrency": min(parallel, plan.trials), "ray_address": None})
        try:
            copies = slots(here, machine())
        except InputError as error:
            raise InputError(f"{error}; or run the estimate on a machine like those of the trials") from None
        with Probes(data.trial_data, here) as probes:
            found = measure_costs(plan, probes, copies, lambda text: status.update(f"estimate: {text}"))
    result = _scale(plan, data, parallel, disk, found)
    _print(plan, result, parallel, console, gpu_price)
    return result


def _scale(plan: Plan, data: SweepData, parallel: int, disk: DiskNeed, found: TrialCosts) -> Estimate:
    typical = found.typical
    together = sum(copy.epoch for copy in found.crowd) / len(found.crowd)
    crowded = max(1.0, together / typical.epoch) if len(found.crowd) > 1 else 1.0
    new = 1.0 if plan.record.fresh_workers else min(parallel, plan.trials) / plan.trials
    start = crowded * typical.build + new * (crowded * found.imports + TRIAL_GAP)
    base = crowded * typical.epoch
    epoch_seconds = [base * factor for factor in trial_factors(plan, found.ratios)]
    saves = 1 + len(plan.rungs)
    options = {"start_seconds": start + saves * typical.save, "slots": parallel, "epochs": plan.epochs}
    # One look at the test split, as a validation of all its cases.
    cases = plan.configs[0].valid_cases or len(data.trial_data.valid)
    around = SWEEP_START + typical.valid * len(data.scenario.test) / max(1, min(cases, len(data.trial_data.valid)))
    most = simulate(epoch_seconds, **options)
    likely = simulate(epoch_seconds, **options, rungs=plan.rungs, reduction_factor=plan.record.reduction_factor)
    gpus = plan.record.gpus_per_trial
    return Estimate(
        typical=typical,
        cheapest=found.cheapest,
        dearest=found.dearest,
        start=start,
        crowded=crowded,
        together=len(found.crowd),
        epoch=sum(epoch_seconds) / len(epoch_seconds),
        at_most=around + most.wall,
        expected=around + likely.wall,
        expected_epochs=likely.epochs,
        gpu_hours=gpus * likely.busy / 3600,
        gpu_hours_at_most=gpus * most.busy / 3600,
        gpu_share=gpu_share(max(m.gpu_memory for m in (typical, found.dearest) if m), typical.gpu_total),
        disk=disk,
        calibration=_calibration(data, found, parallel),
    )


def _calibration(data: SweepData, found: TrialCosts, parallel: int) -> Calibration | None:
    from llmemf.models.llm_emf import LLMEMFConfig

    if not isinstance(found.config, LLMEMFConfig):
        return None
    size = workload(found.config, data.trial_data)
    return calibrate(size, found.device, found.typical, trials=parallel, node=total_memory())


def gpu_share(used: int, total: int) -> float | None:
    """The smallest share of a GPU per trial whose trials fit into its memory together, rounded so that Ray packs them.

    Args:
        used: bytes that torch reserved for one trial, without the driver's part of the process.
        total: bytes of the GPU, 0 without one.
    """
    if not total:
        return None
    fit = int(GPU_FILLED * total / (used + CUDA_CONTEXT))
    return 1.0 if fit < 2 else math.floor(1e4 / fit) / 1e4


def _print(plan: Plan, found: Estimate, parallel: int, console: Console, gpu_price: float | None) -> None:
    record, typical = plan.record, found.typical
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    trials = text_format.plural(plan.trials, "trial")
    facts.add_row("sweep", f"{record.scenario}, {trials} of at most {text_format.plural(plan.epochs, 'epoch')}")
    facts.add_row("device", f"{typical.device}, {parallel} at once")
    facts.add_row("epoch", f"{_epoch(typical)}, typical settings, alone")
    if found.cheapest and found.dearest:
        facts.add_row(
            "", f"{_seconds(found.cheapest.epoch)} cheapest, {_seconds(found.dearest.epoch)} dearest settings"
        )
    if found.together > 1:
        facts.add_row("", f"x {found.crowded:.2f} with {found.together} at once: {_seconds(found.epoch)} in the mean")
    facts.add_row("start", f"{_seconds(found.start)} before a trial's first step in the mean (process, imports, model)")
    shared = typical.memory - typical.private
    facts.add_row(
        "memory",
        f"{text_format.size(typical.memory)} per trial at its peak, {text_format.size(shared)} of it program files and data "
        f"that all trials of a node share; {text_format.size(parallel * typical.private + shared)} for {parallel} at once",
    )
    if typical.gpu_total:
        largest = max(m.gpu_memory for m in (typical, found.dearest) if m)
        facts.add_row(
            "GPU memory",
            f"{text_format.size(largest + CUDA_CONTEXT)} of {text_format.size(typical.gpu_total)} per trial: the memory allows "
            f"--gpus-per-trial {found.gpu_share:g}",
        )
    if record.stack > 1:
        facts.add_row(
            "stacks", f"not counted: all times are of single trials; --stack {record.stack} is tried at the start"
        )
    one = found.start + plan.epochs * found.epoch
    facts.add_row("one trial", f"{text_format.duration(one)} if it runs all its epochs")
    facts.add_row("at most", f"{_hours(found.at_most)} without early stopping{_gpu_hours(found.gpu_hours_at_most)}")
    if plan.rungs:
        facts.add_row(
            "expected",
            f"{_hours(found.expected)} with ASHA, {found.expected_epochs:.1f} of {text_format.plural(plan.epochs, 'epoch')} "
            f"per trial{_gpu_hours(found.gpu_hours)}",
            style="bold",
        )
    if gpu_price is not None and found.gpu_hours:
        facts.add_row("money", f"{gpu_price * found.gpu_hours:,.2f} expected, at {gpu_price:g} per GPU-hour")
    facts.add_row("disk", disk_text(found.disk, plan))
    console.print(facts)
    if found.calibration:
        print_projections(plan, found, parallel, console, gpu_price)
    console.print("\nassumed", style="dim")
    for line in assumptions(plan, found, parallel):
        console.print(f"- {line}", style="dim", highlight=False)


def assumptions(plan: Plan, found: Estimate, parallel: int) -> list[str]:
    """What the figures rest on beside what was measured."""
    lines = [
        f"an epoch is scaled up from pieces of {found.typical.steps} training steps and {found.typical.cases:,} "
        + "validation cases, timed here and now: other work on this machine is in them",
        f"{SWEEP_START:g} s for Ray, MLflow and the leaderboard, {TRIAL_GAP:g} s for each new process, and one look at "
        + "the test split",
        "no trial fails, and none ends by its own patience",
    ]
    if plan.rungs:
        lines.append(
            "ASHA: the expectation over simulated sweeps in which a trial's rank at one rung tells most of its rank at "
            "the next; real curves stop more or fewer"
        )
    if found.together < parallel:
        lines.append(f"{parallel} trials at once slow each other down no more than {found.together} did here")
    if plan.record.ray_address:
        lines.append(
            f"the cluster's machines are like this one, and {parallel} trials run at once; to measure on a worker: ray job "
            "submit --entrypoint-num-gpus 1 -- python sweeps/grid.py ... --estimate"
        )
    if found.typical.gpu_total:
        lines.append(
            f"{text_format.size(CUDA_CONTEXT)} for the driver per process on a GPU, and a tenth of its memory left free"
        )
    if plan.resumed:
        lines.append("trials that go on are counted from their first epoch")
    return lines


def print_projections(
    plan: Plan, found: Estimate, parallel: int, console: Console, gpu_price: float | None = None
) -> None:
    """Other sizes and a GPU, beside what is in the way there."""
    base = found.calibration
    roof = f"{base.device.flops / 1e9:,.0f} GFLOP/s, {base.device.bandwidth / 1e9:,.0f} GB/s"
    console.print(
        f"\nprojected, not measured: from operations and bytes, at the share of its ceilings ({roof}) that this device reached, "
        f"training {base.train:.0%}, validation {base.valid:.0%} (docs/scale.md)"
    )
    table = Table(box=None, padding=(0, 1), header_style="dim", show_edge=False)
    columns = ["", "epoch", "sweep", *(["money"] if gpu_price is not None else []), "node memory", "GPU memory"]
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    rows = projections(base)
    for row in rows:
        seconds = projected_sweep(plan, found, row, parallel)
        money = [f"{gpu_price * seconds / 3600:,.2f}" if row.on_device else ""] if gpu_price is not None else []
        gpu = text_format.size(row.on_device) if row.on_device else ""
        table.add_row(
            row.name, _seconds(row.epoch), f"{seconds / 3600:.2g} h", *money, text_format.size(row.memory), gpu
        )
    console.print(table)
    for row in rows:
        for wall in row.walls:
            console.print(f"- {row.name}: {wall}", highlight=False)


def projected_sweep(plan: Plan, found: Estimate, row: Projected, parallel: int) -> float:
    """Seconds of the sweep with the epochs of another size or device; on a GPU that was not measured, one trial at a time."""
    other = row.on_device and not found.typical.gpu_total
    slots, crowded = (1, 1.0) if other else (parallel, found.crowded)
    mean = found.epoch / (found.crowded * found.typical.epoch)
    each = found.start + found.expected_epochs * mean * crowded * row.epoch
    return SWEEP_START + plan.trials * each / min(slots, plan.trials)


def _epoch(measured: Measured) -> str:
    parts = f"{_seconds(measured.train)} training + {_seconds(measured.valid)} validation"
    return f"{_seconds(measured.epoch)} = {parts}"


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 600 else text_format.duration(value)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h ({text_format.duration(seconds)})"


def _gpu_hours(hours: float) -> str:
    return f", {hours:.3g} GPU-hours" if hours else ""
