"""The charts over trials: learning curves, slices, the simplex map, parallel coordinates, one ranking against the other."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from llmemf import text_format
from sweeps.report.agreement import Agreement
from sweeps.report.gather import ReportData, TrialHistory
from sweeps.report.html_page import Axis, dot, frame, indent, inset, linear_axis, log_axis, note, path, whole_axis
from sweeps.report.parameters import Parameter

KINDS = {"completed": "c", "pruned": "p", "failed": "f"}


def kind_of(findings: ReportData, story: TrialHistory) -> str:
    """Class of a trial's lines and dots; the best has its own."""
    if findings.best is not None and story.record.number == findings.best.record.number:
        return "best"
    return KINDS.get(story.record.outcome, "o")


def _drawn(findings: ReportData) -> list[TrialHistory]:
    """Trials with a value, the best last, so that it lies on top."""
    return findings.valued[::-1]


def _objective_axis(findings: ReportData, label: str, count: int = 4) -> Axis:
    values = [story.record.objective for story in findings.valued]
    return linear_axis(min(values), max(values), label=label, count=count, pad=0.06)


def curves(findings: ReportData) -> str:
    """Learning curves of all trials; rungs are dashed, and a ring ends a curve that was cut there."""
    stories = [story for story in findings.trials.values() if story.curve]
    best = findings.best
    stories.sort(key=lambda story: (story is best, story.record.outcome == "completed", -story.record.number))
    values = np.concatenate([story.curve for story in stories])
    # A first epoch or a collapse far below all others would flatten the rest.
    low = float(np.quantile(values, 0.02)) if len(stories) > 20 else float(values.min())
    y = linear_axis(low, float(values.max()), label=findings.monitored, pad=0.11)
    x = whole_axis(max(findings.epochs, 2), label="epoch")
    lines, marks = [], []
    for rung in findings.rungs:
        cut = sum(s.record.outcome == "pruned" and s.record.epoch == rung for s in stories)
        lines.append(f'<path class="r" d="{path([(x.at(rung), 0), (x.at(rung), 1)])}"/>')
        if cut:
            marks.append(f'<b class="n rung" style="left:{100 * x.at(rung):.1f}%;top:0">{cut} cut</b>')
    for story in stories:
        kind = kind_of(findings, story)
        points = [(x.at(i), _inside(y.at(v))) for i, v in enumerate(story.curve, start=1)]
        lines.append(f'<path class="l {kind}" data-t={story.record.number} d="{path(points)}"/>')
        if story.record.outcome in ("pruned", "failed") or len(points) == 1 or story is best:
            at = points[story.record.best_epoch - 1] if story is best else points[-1]
            marks.append(dot(*at, kind, story.record.number))
    if best is not None and best.curve:
        at = x.at(best.record.best_epoch), _inside(y.at(best.curve[best.record.best_epoch - 1]))
        marks.append(note(*at, f"{best.name}  {best.record.objective:.4f}", "up"))
    says = f"{findings.monitored} by epoch of {text_format.plural(len(stories), 'trial')}"
    return frame(lines, marks, x=x, y=y, says=says, kind="tall")


def _inside(at: float) -> float:
    return min(1.0, max(0.0, at))


def parameter_axis(parameter: Parameter, label: str = "", count: int = 4) -> Axis:
    """The axis of a searched setting."""
    if not parameter.numeric:
        size = len(parameter.values)
        ticks = [((index + 0.5) / size, str(text)) for index, text in enumerate(parameter.values)]
        return Axis(0, 1, False, tuple(ticks), label)
    if parameter.log:
        return log_axis(parameter.low, parameter.high, label=label, count=count)
    if parameter.low == parameter.high:
        return Axis(parameter.low, parameter.high, False, ((0.5, text_format.number(parameter.low)),), label)
    return linear_axis(parameter.low, parameter.high, label=label, count=count)


def slice_of(findings: ReportData, parameter: Parameter) -> str:
    """The objective against one setting, one dot per trial; the line joins the best of each part of the range."""
    stories = _drawn(findings)
    y, x = _objective_axis(findings, ""), inset(parameter_axis(parameter, parameter.key))
    marks, placed = [], []
    for story in stories:
        at = parameter.position(story.record.varied.get(parameter.key))
        if at is not None:
            placed.append((indent(at), y.at(story.record.objective)))
            marks.append(dot(*placed[-1], kind_of(findings, story), story.record.number))
    lines = [f'<path class="e" d="{path(envelope(placed))}"/>']
    says = f"{findings.monitored} against {parameter.key} over {text_format.plural(len(placed), 'trial')}"
    return frame(lines, marks, x=x, y=y, says=says, kind="small")


def envelope(points: list[tuple[float, float]], parts: int = 6) -> list[tuple[float, float]]:
    """The highest point of each part of the range, from left to right; empty with fewer than four points."""
    if len(points) < 4:
        return []
    highest: dict[int, tuple[float, float]] = {}
    for x, y in points:
        part = min(parts - 1, int(x * parts))
        if part not in highest or y > highest[part][1]:
            highest[part] = (x, y)
    return [highest[part] for part in sorted(highest)]


def simplex(findings: ReportData, pair: tuple[Parameter, Parameter]) -> str:
    """The map of two shares and the third that they leave: dark where the objective is high."""
    first, second = pair
    classes = quantile_classes([story.record.objective for story in findings.valued])
    lines = ['<path class="t" d="M0 1000L1000 1000L500 0Z"/>']
    for step in (0.25, 0.5, 0.75):
        for a, b in (((step, 0), (step, 1 - step)), ((0, step), (1 - step, step)), ((step, 0), (0, step))):
            lines.append(f'<path class="g" d="{path([_corner(*a), _corner(*b)])}"/>')
    marks = []
    for story, level in list(zip(findings.valued, classes))[::-1]:
        shares = [story.record.varied.get(parameter.key) for parameter in pair]
        if None in shares:
            continue
        best = " best" if story is findings.best else ""
        pruned = " ring" if story.record.outcome == "pruned" else ""
        marks.append(dot(*_corner(*shares), f"q{level}{best}{pruned}", story.record.number))
    # The mixture of LLM-EMF: alpha weighs ids, beta images, and text has the rest.
    meaning = (" (text)", " (ids)", " (images)") if findings.record.model == "llm_emf" else ("", "", "")
    names = [f"{name} = 1{what}" for name, what in zip(("rest", first.key, second.key), meaning)]
    corners = "".join(f'<b class="n corner k{i}">{name}</b>' for i, name in enumerate(names))
    says = f"objective over {first.key}, {second.key} and the share that they leave"
    return frame(lines, [*marks, corners], x=None, y=None, says=says, kind="triangle")


def _corner(first: float, second: float) -> tuple[float, float]:
    """Place of two shares in the triangle: the first to the right, the second to the top."""
    return first + second / 2, second


def quantile_classes(values: list[float], count: int = 5) -> list[int]:
    """Which fifth of the order each value is in; the best have the highest number."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return [min(count - 1, int(count * place / max(1, len(values)))) for place in order]


def parallel(findings: ReportData) -> str:
    """Every trial as a line through its settings, to its objective at the right."""
    parameters = [p for p in findings.parameters if len(p.values) > 1]
    y = _objective_axis(findings, "objective")
    last = len(parameters)
    classes = quantile_classes([story.record.objective for story in findings.valued])
    lines, marks = [], []
    for story, level in list(zip(findings.valued, classes))[::-1]:
        places = [parameter.position(story.record.varied.get(parameter.key)) for parameter in parameters]
        if None in places:
            continue
        points = [(index / last, place) for index, place in enumerate(places)]
        points.append((1.0, y.at(story.record.objective)))
        kind = "best" if story is findings.best else f"q{level}"
        lines.append(f'<path class="l {kind}" data-t={story.record.number} d="{path(points)}"/>')
    for index in range(last + 1):
        lines.append(f'<path class="s" d="{path([(index / last, 0), (index / last, 1)])}"/>')
        axis = y if index == last else parameter_axis(parameters[index], parameters[index].key)
        marks.append(_standing(index / last, axis))
    says = f"settings and objective of {text_format.plural(len(findings.valued), 'trial')} as parallel coordinates"
    return frame(lines, marks, x=None, y=None, says=says, kind="parallel")


def _standing(at: float, axis: Axis) -> str:
    """Name and ticks of an axis that stands in the plane."""
    side = " z" if at > 0.98 else " a" if at < 0.02 else ""
    ticks = axis.ticks if len(axis.ticks) <= 5 else axis.ticks[:: math.ceil(len(axis.ticks) / 5)]
    labels = "".join(f'<u style="top:{100 * (1 - place):.1f}%">{escape(text)}</u>' for place, text in ticks)
    return f'<div class="axis{side}" style="left:{100 * at:.1f}%"><b>{escape(axis.label)}</b>{labels}</div>'


def scatter(findings: ReportData, agreement: Agreement) -> str:
    """MRR among all items against MRR among the stored candidates, one dot per trial."""
    sampled, full = [p[1] for p in agreement.points], [p[2] for p in agreement.points]
    x = linear_axis(min(sampled), max(sampled), label="MRR among stored candidates", pad=0.05)
    y = linear_axis(min(full), max(full), label="MRR among all items", pad=0.05)
    marks = [
        dot(x.at(a), y.at(b), kind_of(findings, findings.trials[number]), number)
        for number, a, b in reversed(agreement.points)
    ]
    says = f"MRR of {agreement.domain} among all items against stored candidates"
    return frame([], marks, x=x, y=y, says=says, kind="small both")
