"""What a reader of a sweep's numbers must know."""

from __future__ import annotations

from llmemf.features.matrix import is_offline
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import SweepData
from sweeps.state.references import References
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.trial_records import TrialRecord


def caveats(plan: Plan, data: SweepData, best: TrialRecord | None = None, evaluations: int = 0) -> list[str]:
    """What a reader of the numbers must know.

    Args:
        evaluations: how often this sweep evaluated a trial on the test split.
    """
    encoders = {kind: matrix.encoder for kind, matrix in data.features.items()}
    notes = caveats_of(data.scenario.name, plan.objectives, encoders, evaluations)
    return [*reference_notes(plan.record, best, plan.configs[0].monitor), *notes]


def reference_notes(record: SweepRecord, best: TrialRecord | None, monitor: str) -> list[str]:
    """What chance and simple systems reach in a sweep's objective, and whether its best trial is above them."""
    references = References.load(record.folder)
    if best is None or best.objective is None or monitor != "val_mrr" or not references.line:
        return []
    warning = references.warning(best.objective, record.model)
    return [f"Mean validation MRR {references.line}.", *([warning] if warning else [])]


def caveats_of(scenario: str, objectives: list[str], encoders: dict[str, str], evaluations: int) -> list[str]:
    """What a reader of numbers must know that were made from a scenario by features of these encoders (by kind)."""
    notes = []
    if evaluations > 1:
        notes.append(f"The sweep was tested {evaluations} times, once for each change of the best trial.")
    if scenario == "sample":
        notes.append("Numbers of a generated sample: they say nothing about the paper's data.")
    if "sampled" in objectives:
        notes.append("Trained with the sampled objective, an estimate of the full softmax.")
    offline = [kind for kind, encoder in encoders.items() if is_offline(encoder)]
    if offline:
        notes.append(f"Features by offline encoders ({', '.join(offline)}), not by CLIP.")
    return notes
