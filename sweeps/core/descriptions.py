"""A planned sweep in words: its data, trials, confirmation, resources and space."""

from __future__ import annotations

from llmemf import text_format
from llmemf.scenarios.scenario import Scenario
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import SweepData
from sweeps.search.block import Block
from sweeps.state.sweep_state import SweepState


def describe_progress(state: SweepState, trials: int) -> str:
    """What a continued sweep has, and what is left."""
    records, repeats = list(state.records.values()), len(state.records) - len(state.searched)
    ended = [record for record in state.searched if record.ended]
    left = [record for record in records if not record.ended]
    parts = [f"{len(ended)} of {text_format.plural(trials, 'trial')} done"]
    if left:
        names = ", ".join(f"{record.name} (after epoch {record.epoch})" for record in left[:5])
        parts.append(f"{names}{' ...' if len(left) > 5 else ''} to be finished")
    if trials > len(state.searched):
        parts.append(f"{trials - len(state.searched)} not started")
    if repeats:
        parts.append(f"{repeats} again with new seeds")
    return ", ".join(parts)


def describe_scenario(scenario: Scenario) -> str:
    """A scenario with its counts, in one line."""
    sizes = f"{scenario.num_x:,} {scenario.domains[0]} + {scenario.num_y:,} {scenario.domains[1]} items"
    return f"{scenario.name} ({scenario.fingerprint[:8]}), {sizes}, {len(scenario.train):,} sequences"


def describe_trials(plan: Plan) -> str:
    """How many trials there are and where they come from, for the plan's table."""
    record, named = plan.record, len(plan.record.points)
    first = len(plan.points) - named
    count = text_format.plural(plan.trials, "trial")
    if plan.resumed:
        how = f"{count} in all, {record.search}"
    elif named:
        how = f"{count}: {text_format.plural(named, 'given point')}, {first} of the grid, {plan.trials - named - first} proposed"
    elif first == plan.trials:
        how = f"{count} from a grid of {plan.space.size:,} points"
    elif first:
        how = f"{count}: {first} grid points of {plan.space.size:,}, then {plan.trials - first} refined by Optuna"
    else:
        by = {"random": "drawn at random", "auto": "proposed by a model of settings and epochs"}
        how = f"{count} {by.get(record.search, 'drawn by Optuna')}"
    ends = "none is stopped early"
    if plan.rungs:
        ends = f"ASHA stops the laggards at epoch{'s' * (len(plan.rungs) > 1)} {', '.join(map(str, plan.rungs))}"
    return f"{how}; at most {text_format.plural(plan.epochs, 'epoch')}, {ends}"


def describe_confirmation(plan: Plan) -> str:
    """How the best trials are confirmed, for the plan's table."""
    return (
        f"the best {plan.candidates} run again with new seeds, in at most {100 * plan.record.confirm:g} % of these epochs "
        f"({text_format.plural(plan.most_repeats, 'whole trial')}); the best mean wins"
    )


def describe_resources(plan: Plan, parallel: int) -> str:
    """What trials get and how many run at once, for the plan's table."""
    record = plan.record
    each = f"{record.cpus_per_trial:g} CPU" + (f" and {record.gpus_per_trial:g} GPU" if record.gpus_per_trial else "")
    where = f" on the cluster at {record.ray_address}" if record.ray_address else ""
    return f"{parallel} at once, {each} each{where}"


def describe_objective(plan: Plan, data: SweepData) -> str:
    """What the trials are ranked by."""
    if plan.configs[0].monitor == "val_loss":
        return "negative validation loss"
    scenario = data.scenario
    present = [scenario.domains[index] for index in sorted(set(scenario.domain_of(scenario.valid.targets).tolist()))]
    if len(present) == 1:
        return f"validation MRR of {present[0]}, which all validation cases are of"
    return "mean validation MRR of both domains"


def describe_space(block: Block) -> str:
    """A block of the space in a few words, for the start of a sweep."""
    keys = ", ".join(block.keys)
    if not block.points:
        scale = " (log)" if block.log else ""
        return f"{keys}: {text_format.number(block.low)} to {text_format.number(block.high)}{scale}"
    if len(block.keys) > 1:
        return f"{keys}: {len(block.points)} combinations"
    return f"{keys}: " + ", ".join(text_format.number(point[0]) for point in block.points)
