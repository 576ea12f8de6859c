"""What kinds of trials a sweep has and what each costs, measured in processes that stand for trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmemf.config import TrialConfig
from sweeps.core.plan import Plan
from sweeps.costs.classes import build, class_key, cost_classes, typical_values
from sweeps.costs.dry_run import remaining
from sweeps.costs.probe import Measured
from sweeps.costs.processes import Probes, available_memory
from sweeps.costs.scaling import Device
from sweeps.state.sweep_state import SweepState

TYPICAL_SECONDS = 10.0
KIND_SECONDS = 1.5
KINDS_SECONDS = 15.0
ENDS_SECONDS = 4.0
CROWD_SECONDS = 8.0


@dataclass(frozen=True)
class TrialCosts:
    """What the probes told.

    Attributes:
        typical, cheapest, dearest: see `Estimate`.
        ratios: by block of the space, class of its values -> cost over the typical cost.
        imports: seconds from the start of a process until it was ready for a trial.
        crowd: the typical configuration in as many processes as run at once.
        config: the typical configuration.
        device: what the device reaches at most, beside the typical trial.
    """

    typical: Measured
    cheapest: Measured | None
    dearest: Measured | None
    ratios: list[dict[tuple, float]]
    imports: float
    crowd: list[Measured]
    config: TrialConfig
    device: Device


def measure_costs(plan: Plan, probes: Probes, copies: int, say: Callable[[str], None]) -> TrialCosts:
    """Measure the typical configuration, every kind of value beside it, the cheapest and the dearest, and a crowd.

    Args:
        copies: trials at once on this machine.
        say: told what is measured.

    Raises:
        InputError: a process died, or a configuration does not fit the data.
    """
    say("a typical trial")
    probes.start(1)
    values = typical_values(plan)
    config = build(plan, values) or plan.configs[0]
    typical = probes.measure([config], TYPICAL_SECONDS)[0]
    device = probes.ceilings(config.device)
    kinds = [cost_classes(block) for block in plan.space.blocks]
    others = sum(len(found) - 1 for found in kinds)
    seconds = min(KIND_SECONDS, KINDS_SECONDS / max(1, others))
    ratios: list[dict[tuple, float]] = []
    cheap, dear, tried = dict(values), dict(values), 0
    for found in kinds:
        costs = {found[0].key: 1.0}
        reference = None
        for kind in found[1:]:
            tried += 1
            say(f"kinds of trials, {tried} of {others}")
            other = build(plan, {**values, **kind.values})
            if other is not None:
                reference = reference or probes.measure([config], seconds)[0].epoch
                costs[kind.key] = probes.measure([other], seconds)[0].epoch / reference
        ratios.append(costs)
        by_key = {kind.key: kind.values for kind in found}
        cheap.update(by_key[min(costs, key=costs.__getitem__)])
        dear.update(by_key[max(costs, key=costs.__getitem__)])
    ends = []
    for name, end in (("cheapest", cheap), ("dearest", dear)):
        other = build(plan, end)
        if other is None or end == values:
            ends.append(typical if others else None)
            continue
        say(f"the {name} trial")
        # Against the typical one at the same moment: what else runs on this machine changes by the second.
        beside = probes.measure([config], ENDS_SECONDS)[0].epoch
        ends.append(probes.measure([other], ENDS_SECONDS)[0].scaled(typical.epoch / beside))
    fit = max(1, int(0.8 * available_memory() / typical.private)) if typical.private else copies
    say(f"{min(copies, fit)} trials at once")
    probes.start(min(copies, fit))
    crowd = probes.measure([config] * min(copies, fit), CROWD_SECONDS)
    return TrialCosts(typical, *ends, ratios, probes.imports, crowd, config, device)


def trial_factors(plan: Plan, ratios: Sequence[dict[tuple, float]]) -> list[float]:
    """How many times the typical cost each trial that is left costs: the known ones by their settings, others by the mean.

    Args:
        ratios: by block of the space, class of its values -> cost over the typical cost. Settings are taken to act
            independently of each other.
    """
    unfinished, points, later = remaining(plan, SweepState(plan.record.folder))
    known = [record.config for record in unfinished] + points
    factors = []
    for values in known:
        factor = 1.0
        for block, costs in zip(plan.space.blocks, ratios):
            if all(key in values for key in block.keys):
                point = tuple(tuple(v) if isinstance(v := values[key], list) else v for key in block.keys)
                factor *= costs.get(class_key(block, point), 1.0)
        factors.append(factor)
    mean = 1.0
    for block, costs in zip(plan.space.blocks, ratios):
        if not block.continuous:
            # Proposals between grid values are never exactly 0; others are taken to come up equally often.
            shares = {kind.key: kind.share for kind in cost_classes(block) if kind.key in costs}
            mean *= sum(costs[key] * share for key, share in shares.items()) / sum(shares.values())
    return factors + [mean] * later
