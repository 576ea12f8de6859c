"""What to try next, derived from what came out: each rule looks for one thing and says which command answers it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from llmemf import text_format
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.reporting import commands
from sweeps.reporting.certainty import Certainty
from sweeps.reporting.history import SweepHistory
from sweeps.reporting.importance import ENOUGH, FEWEST, Importances
from sweeps.reporting.parameters import Parameter

EDGE = 0.1
"""A value this near to an end of its axis lies at the edge."""
LEADERS = 3
FEW_COMPLETED = 5
"""Trials that must have run to their end before something is said about how they run."""


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes:
        title: what.
        why: the observation behind it, with its numbers.
        command: a line that does it, "" where there is none.
    """

    title: str
    why: str
    command: str = ""


def advise(history: SweepHistory, importances: Importances, certainty: Certainty) -> list[Advice]:
    """Everything that the rules find, the most urgent first; of a running sweep only its failures."""
    if history.group:
        return []
    failures = avoid_failures(history)
    if history.state == "running":
        return [failures] if failures else []
    found = [
        finish_first(history),
        failures,
        widen_range(history, importances),
        compare_seeds(history, certainty),
        train_longer(history),
        fix_unimportant(history, importances),
        add_trials(history),
    ]
    return [advice for advice in found if advice]


def finish_first(history: SweepHistory) -> Advice | None:
    """Trials of an interrupted sweep are left."""
    is_open = any(not record.ended for record in history.records)
    left = history.planned - sum(record.ended for record in history.records)
    left += sum(not repeat.record.ended for repeat in history.repeats)
    if not left or not (history.state in ("interrupted", "planned") or (history.record.is_searched and is_open)):
        return None
    why = f"{text_format.plural(left, 'trial')} of {history.planned} left."
    return Advice("Finish it", why, commands.resume(history.record))


def avoid_failures(history: SweepHistory) -> Advice | None:
    """Failures by memory ask for smaller batches; failures in one region of a setting ask to leave it out."""
    failed = [record for record in history.records if record.error]
    if not failed:
        return None
    record, count = history.record, len(history.records)
    said = f"{len(failed)} of {text_format.plural(count, 'trial')} failed"
    kind, many = Counter(item.kind for item in failed).most_common(1)[0]
    if kind == "memory" and many * 2 >= len(failed):
        batch = max(1, int(history.fixed.get("batch_size", 256)) // 2)
        why = f"{said}, {many} for want of memory."
        return Advice("Halve the batch", why, commands.again(record, assignments={"batch_size": batch}))
    for parameter in history.parameters:
        if found := leave_out_region(history, parameter, said):
            return found
    if len(failed) == count or many * 4 >= count:
        reason = Counter(item.error for item in failed).most_common(1)[0][0]
        trace = f"errors/{failed[0].name}.txt"
        return Advice(
            "Look at the failures",
            f"{said}; most often: {reason}. The full trace is in {trace} of the sweep's folder.",
        )
    return None


def leave_out_region(history: SweepHistory, parameter: Parameter, said: str) -> Advice | None:
    """To leave out the side of a numeric setting with the most failures beyond those elsewhere; None where they are spread, or
    fewer than two.
    """
    ran = [record for record in history.records if record.ended or record.error or record.objective is not None]
    found = [(record.varied.get(parameter.key), bool(record.error)) for record in ran if parameter.is_numeric]
    pairs = [(float(value), failed) for value, failed in found if value is not None]
    total = sum(failed for _, failed in pairs)
    regions: list[tuple[float, bool, float, str]] = []
    if total < 2 or total == len(pairs):
        return None
    for is_upper in (True, False):
        for end in sorted({value for value, _ in pairs}):
            inside = [failed for value, failed in pairs if (value >= end if is_upper else value <= end)]
            many, rest = sum(inside), len(pairs) - len(inside)
            if rest and many >= 0.8 * total and many >= 0.7 * len(inside):
                side = f"{text_format.number(end)} {'on' if is_upper else 'down'}"
                why = f"{many} of {len(inside)} with {parameter.key} {side}, {total - many} of {rest} elsewhere."
                regions.append((many / len(inside) - (total - many) / rest, is_upper, end, why))
    if not regions:
        return None
    _, is_upper, end, why = max(regions, key=lambda region: region[0])
    values = parameter.grid or parameter.values
    kept = [value for value in values if (value < end if is_upper else value > end)]
    ends = kept if parameter.grid or not kept else [min(kept), max(kept)]
    change = ends[0] if len(set(ends)) == 1 else ends
    line = commands.again(history.record, assignments={parameter.key: change}) if kept else ""
    return Advice(f"Leave out the {parameter.key} that fails", f"{said}: {why}", line)


def widen_range(history: SweepHistory, importances: Importances) -> Advice | None:
    """The best trials lie at the end of a setting's range: what lies beyond was never tried."""
    leaders = history.valued[:LEADERS]
    if len(history.valued) < FEW_COMPLETED:
        return None
    wider: dict[str, list[float]] = {}
    seen = []
    for parameter in history.parameters:
        axis, importance = parameter.axis, importances.of(parameter.key)
        if not parameter.is_numeric or parameter.is_share or axis.low == axis.high:
            continue
        if importance is not None and importances.trials >= ENOUGH and not importance.is_clear:
            continue
        places = [parameter.position(trial.record.varied.get(parameter.key)) for trial in leaders]
        for upper in (False, True):
            at = [place is not None and (place >= 1 - EDGE if upper else place <= EDGE) for place in places]
            value = beyond(parameter, upper=upper)
            if not at[0] or 2 * sum(at) < len(at) or value is None or not _is_valid(history, parameter.key, value):
                continue
            wider[parameter.key] = sorted({*(parameter.grid or (axis.low, axis.high)), value})
            end = text_format.number(axis.high if upper else axis.low)
            seen.append(f"{parameter.key} at the {'top' if upper else 'bottom'} of its range ({end}) in {sum(at)}")
    if not wider:
        return None
    why = f"Of the best {len(leaders)} trials: {'; '.join(seen)}. What is beyond was never tried."
    more = max(6, len(history.records) // 2)
    return Advice(f"Widen {text_format.listed(wider)}", why, commands.extend(history.record, more, wider))


def beyond(parameter: Parameter, *, upper: bool) -> float | None:
    """The next value outside of a range: one more step of its grid, by ratio on a logarithmic axis."""
    points = sorted(float(value) for value in parameter.grid) or [parameter.axis.low, parameter.axis.high]
    if len(points) < 2:
        return None
    end, inner = (points[-1], points[-2]) if upper else (points[0], points[1])
    if parameter.axis.log:
        # A range has two points; ten times of it would be another experiment.
        value = end * (end / inner) if parameter.grid else end * (10.0 if upper else 0.1)
    else:
        value = end + (end - inner) if parameter.grid else end + 0.5 * (end - inner)
    value = float(f"{value:.2g}")
    return value if math.isfinite(value) else None


def _is_valid(history: SweepHistory, key: str, value: float) -> bool:
    try:
        config_class = model_class(history.record.model).config_class
        best = history.valued[0].record
        build_config(config_class, {**history.record.fixed, **best.config, **best.varied, key: value})
    except InputError:
        return False
    return True


def compare_seeds(history: SweepHistory, certainty: Certainty) -> Advice | None:
    """The first places are closer together than their noise: only seeds can tell them apart."""
    if len(history.valued) < 2 or not certainty.how or certainty.is_clear:
        return None
    top = min(5, max(2, certainty.level))
    why = f"{certainty.level} trials lie within the noise of the best "
    why += f"({certainty.runner_up} is {certainty.lead:.4f} behind, standard error {certainty.error:.4f})."
    return Advice("Let seeds decide", why, commands.rerun(history.record, top=top, seeds=5))


def fix_unimportant(history: SweepHistory, importances: Importances) -> Advice | None:
    """A setting that does not matter need not be searched."""
    best = history.best
    if best is None or importances.trials < ENOUGH or not any(item.is_clear for item in importances.items):
        return None
    unclear = [item.key for item in importances.items if not item.is_clear and item.share < 0.1]
    fixed = {key: best.record.varied[key] for key in unclear if key in best.record.varied}
    if not fixed:
        return None
    why = f"Among {importances.trials} trials {'they matter' if len(fixed) > 1 else 'it matters'} no more than chance "
    why += "would give; fixed, the trials go to what does."
    return Advice(f"Fix {', '.join(fixed)}", why, commands.again(history.record, assignments=fixed))


def train_longer(history: SweepHistory) -> Advice | None:
    """The best trial was best at its last epoch: it was still learning."""
    best = history.best
    if best is None or best.record.outcome != "completed" or best.record.best_epoch < best.record.epochs:
        return None
    gain = f", gaining {best.curve[-1] - best.curve[-2]:.4f} in it" if len(best.curve) > 1 else ""
    why = f"{best.name} was best at its last epoch ({best.record.best_epoch} of {best.record.epochs}){gain}."
    return Advice("Train longer", why, commands.again(history.record, epochs=2 * best.record.epochs))


def add_trials(history: SweepHistory) -> Advice | None:
    """Too few trials for the number of settings that are searched."""
    count, settings = len(history.valued), len([p for p in history.parameters if len(p.values) > 1])
    wanted = max(FEWEST, 5 * settings)
    if (
        history.state not in ("completed", "incomplete")
        or history.record.search == "grid"
        or not settings
        or not 0 < count < wanted
    ):
        return None
    why = f"{text_format.plural(count, 'trial')} with a value for {text_format.plural(settings, 'setting')}; {wanted} would be "
    return Advice("More trials", why + "a start.", commands.extend(history.record, wanted - count))
