"""What a sweep will take: some of its trials train a few real steps in processes like theirs, scaled up to the whole sweep.

Measured are the start of a process, the seconds of an epoch (from pieces of it) and the memory, with as many trials at once
as the sweep runs. Computed are the epochs that ASHA leaves (`expected_epochs`), the time of all trials on their slots, and the disk.
The output ends with what it assumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from rich.console import Console

from llmemf import text_format
from llmemf.config import TrialConfig
from llmemf.errors import InputError
from sweeps.cluster.resources import machine, slots
from sweeps.core.console import facts_table
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import SweepData, check_device
from sweeps.costs.disk_need import DiskNeed, disk_need, largest_config, middle_values
from sweeps.costs.dry_run import disk_text, remaining
from sweeps.costs.measure import TrialCost, TrialProcesses
from sweeps.search.rungs import expected_epochs

SWEEP_START = 12.0
"""Seconds for Ray, MLflow and the leaderboard (measured on two cores: 10 to 20)."""
TRIAL_GAP = 1.0
"""Seconds before the process of a trial starts, where it is a new one."""
CUDA_CONTEXT = 0.6 * 2**30
"""What the driver holds on a GPU for each process."""
GPU_FILLED = 0.9
MEASURED_TRIALS = 8
"""Trials of the sweep that are measured at least, if it has so many; the first has the largest model."""
TRIALS_SECONDS = 40.0
"""For all measured trials."""


@dataclass(frozen=True)
class Estimate:
    """What one sweep will take; times in seconds, disk in bytes.

    Attributes:
        trials: costs of the measured trials, `together` of which ran at the same time.
        largest: cost of the largest model of the space.
        start: from a free slot to the first step of a trial, in the mean of trials that need a new process and others.
        epochs: of a mean trial.
        at_most: all that is left of the sweep if every trial runs all its epochs; `expected` counts with ASHA.
        gpu_hours: expected; `gpu_hours_at_most` if every trial runs all its epochs.
    """

    trials: Sequence[TrialCost]
    largest: TrialCost
    together: int
    start: float
    epochs: float
    at_most: float
    expected: float
    gpu_hours: float
    gpu_hours_at_most: float

    def mean(self, part: str) -> float:
        return mean(getattr(trial, part) for trial in self.trials)

    def highest(self, part: str) -> int:
        return max(getattr(trial, part) for trial in (self.largest, *self.trials))


def estimate(
    plan: Plan, data: SweepData, parallel: int, console: Console, *, gpu_price: float | None = None
) -> Estimate:
    """Measure for about a minute, and print what the sweep will take.

    Args:
        parallel: trials at once.
        gpu_price: money per GPU-hour; without it no price is printed.

    Raises:
        InputError: no trial is left or fits this machine, or its configuration does not fit the data or the memory.
    """
    check_device(plan)
    left = num_left(plan)
    if not left:
        raise InputError(f"sweep {plan.record.name!r} has no trial left to run")
    parallel = min(parallel, left)
    here = plan.record.model_copy(update={"concurrency": parallel, "ray_address": None})
    try:
        copies = slots(here, machine())
    except InputError as error:
        raise InputError(f"{error}; or run the estimate on a machine like those of the trials") from None
    if not console.is_terminal:
        console.print("estimate: measuring for about a minute")
    costs: list[TrialCost] = []
    with console.status("estimate: building a trial") as status:
        disk = disk_need(plan, data.trial_data, parallel)
        count = copies * math.ceil(min(MEASURED_TRIALS, left) / copies)
        configs = [largest_config(plan, data.trial_data), *sampled_configs(plan, count - 1)]
        with TrialProcesses(data.trial_data, here, copies) as processes:
            for first in range(0, count, copies):
                status.update(f"estimate: {len(costs)} of {count} trials are measured, {copies} at once")
                costs += processes.measure(configs[first : first + copies], TRIALS_SECONDS * copies / count)
    found = scale(plan, data, parallel, costs[1:] or costs, costs[0], copies, processes.start_seconds)
    _print(plan, found, parallel, disk, console, gpu_price)
    return found


def num_left(plan: Plan) -> int:
    """Trials that are still to run or to be finished."""
    unfinished, points, later = remaining(plan, plan.state())
    return len(unfinished) + len(points) + later


def sampled_configs(plan: Plan, count: int) -> list[TrialConfig]:
    """So many of the trials that are left, evenly spread over their order; drawn at random where proposals will come."""
    unfinished, points, later = remaining(plan, plan.state())
    known = [record.config for record in unfinished] + points
    middle, rng, configs = middle_values(plan), np.random.default_rng(plan.record.seed), []
    for index in range(count):
        place = index * (len(known) + later) // count
        values = known[place] if place < len(known) else plan.space.at(rng.random(plan.space.places).tolist())
        point = {**middle, **values}
        configs.append(plan.configs[0] if plan.check.problem(point) else plan.check.config(point))
    return configs


def scale(
    plan: Plan,
    data: SweepData,
    parallel: int,
    trials: Sequence[TrialCost],
    largest: TrialCost,
    together: int,
    process_seconds: float,
) -> Estimate:
    """What is left of the sweep out of measured trials.

    Args:
        trials: measured, `together` at once.
        process_seconds: from the start of a process until it is ready for a trial.
    """
    build, epoch, valid, save = (
        mean(getattr(trial, part) for trial in trials) for part in ("build", "epoch", "valid", "save")
    )
    record, cases, left = plan.record, len(data.trial_data.valid), num_left(plan)
    new_processes = 1.0 if record.fresh_workers else parallel / left
    start = build + new_processes * (process_seconds + TRIAL_GAP)
    # The test split is evaluated once, as a validation of all its cases.
    cases = max(1, min(plan.configs[0].valid_cases or cases, cases))
    once = SWEEP_START + valid * len(data.scenario.test) / cases
    # Trials that ended have left their values at the rungs.
    all_epochs, ended_epochs = (
        count * expected_epochs(count, plan.epochs, plan.rungs, record.reduction_factor) if count else 0.0
        for count in (plan.trials, plan.trials - left)
    )
    epochs = (all_epochs - ended_epochs) / left
    around = start + (1 + len(plan.rungs)) * save
    full, likely = around + plan.epochs * epoch, around + epochs * epoch
    rounds = math.ceil(left / parallel)
    # Repeats of the best trials run to their end; a race that ends early has fewer.
    state = plan.state()
    repeats = max(0, plan.most_repeats - len(state.records) + len(state.searched))
    again = math.ceil(repeats / parallel) * full
    each = record.gpus_per_trial / 3600
    gpu_hours, gpu_hours_at_most = each * (left * likely + repeats * full), each * (left + repeats) * full
    # The first trial of a sweep runs to its end.
    longest = full if left == plan.trials else likely
    at_most, expected = once + rounds * full + again, once + max(longest, rounds * likely) + again
    return Estimate(trials, largest, together, start, epochs, at_most, expected, gpu_hours, gpu_hours_at_most)


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


def _print(
    plan: Plan, found: Estimate, parallel: int, disk: DiskNeed, console: Console, gpu_price: float | None
) -> None:
    size, epochs, left = text_format.size, text_format.plural(plan.epochs, "epoch"), num_left(plan)
    low, high = (end(trial.epoch for trial in found.trials) for end in (min, max))
    private, gpu = found.highest("private"), found.highest("gpu_memory")
    shared = max(0, found.highest("memory") - private)
    trials = text_format.plural(left, "trial") + (f" left of {plan.trials:,}" if left < plan.trials else "")
    one = found.start + plan.epochs * found.mean("epoch")
    rows = {
        "sweep": f"{plan.record.scenario}, {trials} of at most {epochs}",
        "device": f"{found.largest.device}, {parallel} at once",
        "epoch": f"{_seconds(found.mean('epoch'))} = {_seconds(found.mean('train'))} training + {_seconds(found.mean('valid'))} "
        f"validation (mean of {len(found.trials)} trials; {_seconds(low)} to {_seconds(high)})",
        "start": f"{_seconds(found.start)} before a trial's first step in the mean (process, imports, model)",
        "memory": f"{size(shared + private)} per trial at its peak, {size(shared)} of it program files and data that all "
        f"trials of a node share; {size(parallel * private + shared)} for {parallel} at once",
    }
    if (share := gpu_share(gpu, found.largest.gpu_total)) is not None:
        of = f"{size(gpu + CUDA_CONTEXT)} of {size(found.largest.gpu_total)}"
        rows["GPU memory"] = f"{of} per trial: the memory allows --gpus-per-trial {share:g}"
    rows["one trial"] = f"{text_format.duration(one)} if it runs all its epochs"
    rows["at most"] = f"{_hours(found.at_most)} without early stopping{_gpu_hours(found.gpu_hours_at_most)}"
    if plan.rungs:
        halved = f"{found.epochs:.1f} of {epochs} per trial{_gpu_hours(found.gpu_hours)}"
        rows["expected"] = f"{_hours(found.expected)} with ASHA, {halved}"
    if gpu_price is not None:
        priced = f"{gpu_price * found.gpu_hours:,.2f} expected, at {gpu_price:g} per GPU-hour"
        rows["money"] = priced if found.gpu_hours else "none: no trial takes a GPU (--gpus-per-trial)"
    facts = facts_table()
    for name, text in rows.items():
        facts.add_row(name, text, style="bold" if name == "expected" else None)
    facts.add_row("disk", disk_text(disk, plan))
    console.print(facts)
    console.print("\nassumed", style="dim")
    for line in assumptions(plan, found, parallel):
        console.print(f"- {line}", style="dim", highlight=False)


def assumptions(plan: Plan, found: Estimate, parallel: int) -> list[str]:
    """What the figures rest on beside the measurements."""
    steps, cases = (min(getattr(trial, part) for trial in found.trials) for part in ("steps", "cases"))
    pieces = f"{text_format.plural(steps, 'training step')} and {text_format.plural(cases, 'validation case')}"
    lines = [
        f"an epoch is scaled up from pieces of {pieces} or more, timed here and now, with all other work on this machine",
        f"{SWEEP_START:g} s for Ray, MLflow and the leaderboard, {TRIAL_GAP:g} s for each new process, one test evaluation",
        "no trial fails, and none ends by its own patience",
    ]
    if plan.most_repeats:
        lines.append(f"{plan.most_repeats} repeats of the best trials with new seeds, all of them to their last epoch")
    if plan.rungs:
        lines.append("ASHA: trials fall behind at random; real curves stop more or fewer")
    if found.together < parallel:
        lines.append(f"{parallel} trials at once slow each other down no more than {found.together} did here")
    if plan.record.ray_address:
        lines.append(f"the cluster's machines are like this one, and {parallel} trials run at once")
    return lines


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 600 else text_format.duration(value)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h ({text_format.duration(seconds)})"


def _gpu_hours(hours: float) -> str:
    return f", {hours:.3g} GPU-hours" if hours else ""
