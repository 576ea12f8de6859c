"""A sweep in words: its data, trials, confirmation, resources and space, and what a reader of its numbers must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmemf import text_format
from llmemf.features.finding import is_offline
from llmemf.scenarios.scenario import Scenario
from sweeps.cluster.resources import described
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import SweepData
from sweeps.search.block import Block
from sweeps.state.references import References
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord

COMPONENTS = {
    "popularity_weight": "popularity",
    "transition_weight": "transitions",
    "neighbour_weight": "neighbours",
    "text_weight": "likeness of texts",
}
"""Settings of LLM-EMF that add to the paper's score, and what they add."""


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
        parts = {"of the grid": first, "proposed": plan.trials - named - first}
        how = ", ".join(
            [f"{count}: {text_format.plural(named, 'given point')}", *(f"{n} {word}" for word, n in parts.items() if n)]
        )
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
    each = described(record.cpus_per_trial, record.gpus_per_trial)
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


def caveats(plan: Plan, data: SweepData, best: TrialRecord | None = None, evaluations: int = 0) -> list[str]:
    """What a reader of the numbers must know.

    Args:
        evaluations: how often this sweep evaluated a trial on the test split.
    """
    encoders = {kind: matrix.encoder for kind, matrix in data.features.items()}
    settings = {**plan.configs[0].to_dict(), **(best.config if best else {})}
    notes = caveats_of(data.scenario.name, settings, plan.objectives, encoders, evaluations)
    return [*reference_notes(plan.record, best, plan.configs[0].monitor), *notes]


def reference_notes(record: SweepRecord, best: TrialRecord | None, monitor: str) -> list[str]:
    """What chance and simple systems reach in a sweep's objective, and whether its best trial is above them."""
    references = References.load(record.folder)
    if best is None or best.objective is None or monitor != "val_mrr" or not references.line:
        return []
    backs_off = COMPONENTS.keys() & {*record.fixed, *best.config}
    warning = references.warning(best.objective, "" if backs_off else record.model)
    return [f"Mean validation MRR {references.line}.", *([warning] if warning else [])]


def caveats_of(
    scenario: str, settings: Mapping[str, Any], objectives: list[str], encoders: Mapping[str, str], evaluations: int
) -> list[str]:
    """What a reader of numbers must know.

    Args:
        settings: those of the trial that the numbers are of.
        objectives: training objectives among the trials.
        encoders: of the features, by kind.
        evaluations: how often the sweep evaluated a trial on the test split.
    """
    notes = []
    if evaluations > 1:
        notes.append(f"The sweep was tested {evaluations} times, once for each change of the best trial.")
    if scenario == "sample":
        notes.append("Numbers of a generated sample: they say nothing about the paper's data.")
    if "sampled" in objectives:
        notes.append("Trained with the sampled objective, an estimate of the full softmax.")
    if components := [name for key, name in COMPONENTS.items() if settings.get(key)]:
        notes.append(
            f"The score has parts beside the paper's, which are counted, not trained: {', '.join(components)}."
        )
    offline = [kind for kind, encoder in encoders.items() if is_offline(encoder)]
    if offline:
        notes.append(f"Features by offline encoders ({', '.join(offline)}), not by CLIP.")
    return notes
