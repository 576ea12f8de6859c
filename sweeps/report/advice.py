"""What to try next, derived from what came out: each rule looks for one thing and says what would finalize it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmemf import text_format
from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.report import commands
from sweeps.report.certainty import Certainty
from sweeps.report.importance import ENOUGH, FEWEST, Importances
from sweeps.report.parameters import Parameter

if TYPE_CHECKING:
    from sweeps.report.gather import ReportData

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


def advise(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """Everything that the rules find, the most urgent first; of a sweep that runs only what speaks against going on."""
    if findings.group:
        return []
    if findings.state == "running":
        return mend_failures(findings, importances, certainty)
    return [advice for rule in RULES for advice in rule(findings, importances, certainty)]


def finish_first(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """A sweep that was interrupted goes on."""
    if findings.state not in ("interrupted", "planned") and not (findings.state == "completed" and _open(findings)):
        return []
    left = findings.planned - sum(record.ended for record in findings.records)
    if not left:
        return []
    return [
        Advice(
            "Finish it",
            f"{text_format.plural(left, 'trial')} of {findings.planned} left.",
            commands.resume(findings.record),
        )
    ]


def _open(findings: ReportData) -> bool:
    return any(not record.ended for record in findings.records)


def mend_failures(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """Failures by memory ask for smaller batches; failures in one region of a setting ask to leave it out."""
    failed = [record for record in findings.records if record.outcome == "failed"]
    if not failed:
        return []
    record, count = findings.record, len(findings.records)
    said = f"{len(failed)} of {text_format.plural(count, 'trial')} failed"
    kind, many = Counter(item.kind for item in failed).most_common(1)[0]
    if kind == "memory" and many * 2 >= len(failed):
        batch = max(1, int(findings.fixed.get("batch_size", 256)) // 2)
        why = f"{said}, {many} for want of memory."
        return [Advice("Halve the batch", why, commands.again(record, assignments={"batch_size": batch}))]
    for parameter in findings.parameters:
        found = failing_region(findings, parameter)
        if found:
            side, value, inside, outside = found
            kept = [v for v in parameter.grid or parameter.values if (v < value) == (side == "from")]
            kept = kept if side == "from" else [v for v in kept if v != value]
            why = f"{said}: {inside} {parameter.key} {text_format.number(value)} {'on' if side == 'from' else 'down'}"
            why += f", {outside} elsewhere."
            ends = list(kept) if parameter.grid else [min(kept), max(kept)]
            line = commands.again(record, assignments={parameter.key: _single(ends)}) if kept else ""
            return [Advice(f"Leave out the {parameter.key} that fails", why, line)]
    reason = Counter(item.error for item in failed).most_common(1)[0][0]
    first = failed[0].name
    if len(failed) == count or many * 4 >= count:
        why = f"{said}; most often: {reason}. The full trace is in errors/{first}.txt of the sweep's folder."
        return [Advice("Look at the failures", why)]
    return []


def failing_region(findings: ReportData, parameter: Parameter) -> tuple[str, float, str, str] | None:
    """A side of a numeric setting in which trials fail and beside which they do not.

    Returns:
        `from` (this value and above) or `to` (this value and below), the value, and in words how many failed there and
        elsewhere; None where failures are spread, or there are fewer than two.
    """
    if not parameter.numeric:
        return None
    pairs = [(float(r.varied[parameter.key]), r.outcome == "failed") for r in findings.records
             if r.varied.get(parameter.key) is not None and (r.ended or r.objective is not None)]  # fmt: skip
    total = sum(bad for _, bad in pairs)
    if total < 2 or total == len(pairs):
        return None
    best: tuple[float, str, float, str, str] | None = None
    for side in ("from", "to"):
        for value in sorted({v for v, _ in pairs}):
            inside = [bad for v, bad in pairs if (v >= value if side == "from" else v <= value)]
            rest = len(pairs) - len(inside)
            if not rest or sum(inside) < 0.8 * total or sum(inside) < 0.7 * len(inside):
                continue
            outside = total - sum(inside)
            score = sum(inside) / len(inside) - outside / rest
            if best is None or score > best[0]:
                words = f"{sum(inside)} of {len(inside)} with"
                best = (score, side, value, words, f"{outside} of {rest}")
    return best[1:] if best else None


def widen_edge(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """The best trials lie at the end of a setting's range: what lies beyond was never tried."""
    leaders = findings.valued[:LEADERS]
    if len(findings.valued) < FEW_COMPLETED:
        return []
    wider: dict[str, list[float]] = {}
    seen = []
    for parameter in findings.parameters:
        if not parameter.numeric or parameter.share or parameter.low == parameter.high:
            continue
        importance = importances.of(parameter.key)
        if importance is not None and importances.trials >= ENOUGH and not importance.is_clear:
            continue
        places = [parameter.position(story.record.varied.get(parameter.key)) for story in leaders]
        for upper in (False, True):
            at = [p is not None and (p >= 1 - EDGE if upper else p <= EDGE) for p in places]
            value = beyond(parameter, upper=upper)
            if not at[0] or 2 * sum(at) < len(at) or value is None or not _is_valid(findings, parameter.key, value):
                continue
            wider[parameter.key] = sorted({*(parameter.grid or (parameter.low, parameter.high)), value})
            end = text_format.number(parameter.high if upper else parameter.low)
            seen.append(f"{parameter.key} at the {'top' if upper else 'bottom'} of its range ({end}) in {sum(at)}")
    if not wider:
        return []
    why = f"Of the best {len(leaders)} trials: {'; '.join(seen)}. What is beyond was never tried."
    more = max(6, len(findings.records) // 2)
    return [Advice(f"Widen {' and '.join(wider)}", why, commands.extend(findings.record, more, wider))]


def beyond(parameter: Parameter, *, upper: bool) -> float | None:
    """The next value outside of a range: one more step of its grid, by ratio on a logarithmic axis."""
    points = [float(value) for value in parameter.grid] or [parameter.low, parameter.high]
    if len(points) < 2:
        return None
    points = sorted(points)
    end, inner = (points[-1], points[-2]) if upper else (points[0], points[1])
    if parameter.log:
        # A range has two points; ten times of it would be another experiment.
        value = end * (end / inner) if parameter.grid else end * (10.0 if upper else 0.1)
    else:
        value = end + (end - inner) if parameter.grid else end + 0.5 * (end - inner)
    value = float(f"{value:.2g}")
    return value if math.isfinite(value) else None


def _is_valid(findings: ReportData, key: str, value: float) -> bool:
    try:
        config_class = model_class(findings.record.model).config_class
        best = findings.valued[0].record
        build_config(config_class, {**findings.record.fixed, **best.config, **best.varied, key: value})
    except InputError:
        return False
    return True


def settle_noise(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """The first places are closer together than their noise: only seeds can tell them apart."""
    if len(findings.valued) < 2 or not certainty.how or certainty.is_clear:
        return []
    top = min(5, max(2, certainty.level))
    why = f"{certainty.level} trials lie within the noise of the best "
    why += f"({certainty.runner_up} is {certainty.lead:.4f} behind, standard error {certainty.error:.4f})."
    return [Advice("Let seeds decide", why, commands.rerun(findings.record, top=top, seeds=5))]


def fix_flat(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """A setting that does not matter need not be searched."""
    best = findings.best
    if best is None or importances.trials < ENOUGH or not any(item.is_clear for item in importances.items):
        return []
    flat = [item.key for item in importances.items if not item.is_clear and item.share < 0.1]
    flat = [key for key in flat if key in best.record.varied]
    if not flat:
        return []
    why = f"Among {importances.trials} trials {'they matter' if len(flat) > 1 else 'it matters'} no more than chance "
    why += "would give; fixed, the trials go to what does."
    fixed = {key: best.record.varied[key] for key in flat}
    return [Advice(f"Fix {', '.join(flat)}", why, commands.again(findings.record, assignments=fixed))]


def train_longer(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """The best trial was best at its last epoch: it was still learning."""
    best = findings.best
    if best is None or best.record.outcome != "completed" or best.record.best_epoch < best.record.epochs:
        return []
    if best.record.epochs < 2:
        gain = ""
    else:
        gain = f", gaining {best.curve[-1] - best.curve[-2]:.4f} in it" if len(best.curve) > 1 else ""
    why = f"{best.name} was best at its last epoch ({best.record.best_epoch} of {best.record.epochs}){gain}."
    return [Advice("Train longer", why, commands.again(findings.record, epochs=2 * best.record.epochs))]


def train_shorter(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """Completed trials stop improving long before they end."""
    completed = [story.record for story in findings.trials.values() if story.record.outcome == "completed"]
    if len(completed) < FEW_COMPLETED or findings.best is None:
        return []
    latest = max(int(np.quantile([r.best_epoch for r in completed], 0.9)), findings.best.record.best_epoch)
    ran = float(np.mean([r.epoch for r in completed]))
    enough = math.ceil(1.25 * latest)
    if enough > 0.6 * ran:
        return []
    why = f"Nine of ten completed trials had their best epoch by epoch {latest}, and ran {ran:.0f} epochs."
    return [Advice("Train shorter", why, commands.again(findings.record, epochs=enough))]


def cut_later(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """Where a trial stands at the first rung says little about where it ends: successive halving cuts too early."""
    if not findings.rungs:
        return []
    first = findings.rungs[0]
    ran = [s for s in findings.trials.values() if s.record.outcome == "completed" and len(s.curve) > first]
    if len(ran) < FEW_COMPLETED:
        return []
    early = [max(story.curve[:first]) for story in ran]
    late = [story.record.objective for story in ran]
    correlation = rank_correlation(early, late)
    if correlation is None or correlation >= 0.4:
        return []
    why = f"Among {len(ran)} trials that ran on, the order at epoch {first} and at the end have a rank correlation of "
    why += f"{correlation:.2f}: the curves cross after the first cut."
    later = min(max(1, findings.epochs - 1), 2 * first)
    return [Advice("Cut later", why, commands.again(findings.record, grace_period=later))] if later > first else []


def rank_correlation(first: list[float], second: list[float]) -> float | None:
    """Spearman's, None where one side is constant or there are fewer than three."""
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(spearmanr(first, second).statistic)


def more_trials(findings: ReportData, importances: Importances, certainty: Certainty) -> list[Advice]:
    """Too few trials for the number of settings that are searched."""
    count, settings = len(findings.valued), len([p for p in findings.parameters if len(p.values) > 1])
    wanted = max(FEWEST, 5 * settings)
    if findings.state not in ("completed",) or not settings or not count or count >= wanted:
        return []
    if findings.record.search == "grid":
        return []
    why = f"{text_format.plural(count, 'trial')} with a value for {text_format.plural(settings, 'setting')}; {wanted} would be a start."
    return [Advice("More trials", why, commands.extend(findings.record, wanted - count))]


def _single(values: list[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else values


RULES: tuple[Callable[[ReportData, Importances, Certainty], list[Advice]], ...] = (
    finish_first,
    mend_failures,
    widen_edge,
    settle_noise,
    train_longer,
    train_shorter,
    cut_later,
    fix_flat,
    more_trials,
)
