"""The charts over trials: learning curves, slices, the simplex map, parallel coordinates, one ranking against the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmemf import text_format
from llmemf.pages.charts import Axis, Dot, Label, Line, Plot, Point, indent, inset, linear_axis, whole_axis
from sweeps.reporting.history import SweepHistory, TrialHistory
from sweeps.reporting.parameters import Parameter

LABEL_HEIGHT = 0.07
"""Share of a chart's height that a label takes."""
KINDS = {"completed": "c", "pruned": "p", "failed": "f"}


def kind_of(history: SweepHistory, trial: TrialHistory) -> str:
    """Class of a trial's lines and dots; the best has its own."""
    return "best" if trial is history.best else KINDS.get(trial.record.outcome, "o")


def _objective_axis(history: SweepHistory, label: str = "") -> Axis:
    values = [trial.objective for trial in history.valued]
    return linear_axis(min(values), max(values), label=label, pad=0.06)


def curves(history: SweepHistory) -> Plot | None:
    """Learning curves of all trials; rungs are dashed, and a ring ends a curve that was cut there."""
    trials = [trial for trial in history.trials.values() if trial.curve]
    if not trials:
        return None
    best = history.best
    trials.sort(key=lambda trial: (trial is best, trial.record.outcome == "completed", -trial.record.number))
    values = np.concatenate([trial.curve for trial in trials])
    # A first epoch or a collapse far below all others would flatten the rest.
    low, high = float(np.quantile(values, 0.02)) if len(trials) > 20 else float(values.min()), float(values.max())
    low, high = _with_references(history, low, high)
    y = linear_axis(low, high, label=history.monitored, pad=0.11)
    x = whole_axis(max(history.epochs, 2), label="epoch")
    plot = Plot(f"{history.monitored} by epoch of {text_format.plural(len(trials), 'trial')}", "tall", x, y)
    for rung in history.rungs:
        cut = sum(trial.record.outcome == "pruned" and trial.record.epoch == rung for trial in trials)
        plot.lines.append(Line([(x.at(rung), 0), (x.at(rung), 1)], "r"))
        if cut:
            plot.labels.append(Label(x.at(rung), 1, f"{cut} cut", "rung"))
    _draw_references(history, plot, y)
    for trial in trials:
        kind, number = kind_of(history, trial), trial.record.number
        points = [(x.at(epoch), min(1.0, max(0.0, y.at(value)))) for epoch, value in enumerate(trial.curve, start=1)]
        plot.lines.append(Line(points, f"l {kind}", number))
        if trial is best:
            at = points[trial.record.best_epoch - 1]
            plot.labels.append(Label(*at, f"{trial.name}  {trial.objective:.4f}", "up"))
            plot.dots.append(Dot(*at, kind, number))
        elif trial.record.outcome in ("pruned", "failed") or len(points) == 1:
            plot.dots.append(Dot(*points[-1], kind, number))
    return plot


def _with_references(history: SweepHistory, low: float, high: float) -> tuple[float, float]:
    """The range of a chart with the levels of simple systems in it, but for those that would flatten everything else."""
    room = 1.5 * (high - low)
    near = [level for level in history.references.values() if low - room <= level <= high + room]
    return min([low, *near]), max([high, *near])


def _draw_references(history: SweepHistory, plot: Plot, y: Axis) -> None:
    """The levels of chance and of simple systems as dashed lines; levels side by side share a label."""
    labels: list[tuple[float, list[str]]] = []
    for name, level in history.references.items():
        at = y.at(level)
        if not 0 <= at <= 1:
            continue
        plot.lines.append(Line([(0, at), (1, at)], "r"))
        text = f"{name} {level:.4f}"
        if labels and at - labels[-1][0] < LABEL_HEIGHT:
            labels[-1][1].append(text)
        else:
            labels.append((at, [text]))
    plot.labels += [Label(0, at, ", ".join(texts), "level") for at, texts in labels]


def best_so_far(history: SweepHistory) -> Plot | None:
    """The objective of every trial in their order, and the best of all up to each as a line; None below two trials."""
    valued = sorted(history.valued, key=lambda trial: trial.record.number)
    if len(valued) < 2:
        return None
    values = [trial.objective for trial in valued]
    low, high = _with_references(history, min(values), max(values))
    x, y = whole_axis(len(history.trials), label="trial"), linear_axis(low, high, label=history.monitored, pad=0.11)
    plot = Plot(f"{history.monitored} of {text_format.plural(len(valued), 'trial')} and the best so far", "", x, y)
    _draw_references(history, plot, y)
    steps: list[Point] = []
    for trial, best in zip(valued, np.maximum.accumulate(values), strict=True):
        at = x.at(trial.record.number), y.at(float(best))
        steps += [(at[0], steps[-1][1]), at] if steps else [at]
        plot.dots.append(Dot(at[0], y.at(trial.objective), kind_of(history, trial), trial.record.number))
    plot.lines.append(Line([*steps, (1.0, steps[-1][1])], "l best"))
    return plot


def losses(history: SweepHistory) -> Plot | None:
    """The training loss by epoch, over that of the first: its terms have other weights in every trial. None without one."""
    trials = [trial for trial in history.trials.values() if len(trial.losses) > 1]
    if not trials:
        return None
    trials.sort(key=lambda trial: (trial is history.best, trial.record.outcome == "completed", -trial.record.number))
    values = np.concatenate([trial.losses for trial in trials])
    high = min(float(values.max()), 2.0)
    x = whole_axis(max(history.epochs, 2), label="epoch")
    y = linear_axis(float(values.min()), high, label="training loss over that of epoch 1", pad=0.11)
    plot = Plot(f"training loss by epoch of {text_format.plural(len(trials), 'trial')}", "", x, y)
    for trial in trials:
        points = [(x.at(epoch), min(1.0, y.at(value))) for epoch, value in enumerate(trial.losses, start=1)]
        plot.lines.append(Line(points, f"l {kind_of(history, trial)}", trial.record.number))
    return plot


def slice_of(history: SweepHistory, parameter: Parameter) -> Plot:
    """The objective against one setting, one dot per trial; the line joins the best of each part of the range."""
    y, placed = _objective_axis(history), []
    plot = Plot("", "small", inset(parameter.axis), y)
    for trial in reversed(history.valued):
        at = parameter.position(trial.record.varied.get(parameter.key))
        if at is not None:
            placed.append((indent(at), y.at(trial.objective)))
            plot.dots.append(Dot(*placed[-1], kind_of(history, trial), trial.record.number))
    plot.lines = [Line(envelope(placed), "e")]
    plot.says = f"{history.monitored} against {parameter.key} over {text_format.plural(len(placed), 'trial')}"
    return plot


def envelope(points: list[Point], parts: int = 6) -> list[Point]:
    """The highest point of each part of the range, from left to right; empty with fewer than four points."""
    if len(points) < 4:
        return []
    highest: dict[int, Point] = {}
    for x, y in points:
        part = min(parts - 1, int(x * parts))
        if part not in highest or y > highest[part][1]:
            highest[part] = (x, y)
    return [highest[part] for part in sorted(highest)]


def simplex(history: SweepHistory, pair: tuple[Parameter, Parameter]) -> Plot:
    """The map of two shares and the third that they leave: dark where the objective is high."""
    first, second = pair
    # The mixture of LLM-EMF: alpha weighs ids, beta images, and text has the rest.
    meaning = (" (text)", " (ids)", " (images)") if history.record.model == "llm_emf" else ("", "", "")
    plot = Plot(f"objective over {first.key}, {second.key} and the share that they leave", "triangle")
    plot.corners = [f"{name} = 1{what}" for name, what in zip(("rest", first.key, second.key), meaning)]
    plot.lines = [Line([(0, 0), (1, 0), (0.5, 1), (0, 0)], "t")]
    for step in (0.25, 0.5, 0.75):
        for a, b in (((step, 0), (step, 1 - step)), ((0, step), (1 - step, step)), ((step, 0), (0, step))):
            plot.lines.append(Line([_corner(*a), _corner(*b)], "g"))
    for trial, level in _worst_first(history):
        shares = [trial.record.varied.get(parameter.key) for parameter in pair]
        if shares[0] is not None and shares[1] is not None:
            best = " best" if trial is history.best else ""
            pruned = " ring" if trial.record.outcome == "pruned" else ""
            plot.dots.append(Dot(*_corner(shares[0], shares[1]), f"q{level}{best}{pruned}", trial.record.number))
    return plot


def _corner(first: float, second: float) -> Point:
    """Place of two shares in the triangle: the first to the right, the second to the top."""
    return first + second / 2, second


def _worst_first(history: SweepHistory) -> list[tuple[TrialHistory, int]]:
    """Trials with a value and the fifth that each is in; the best ends on top."""
    classes = quantile_classes([trial.objective for trial in history.valued])
    return list(zip(history.valued, classes))[::-1]


def quantile_classes(values: list[float], count: int = 5) -> list[int]:
    """Which fifth of the order each value is in; the best have the highest number."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return [min(count - 1, int(count * place / max(1, len(values)))) for place in order]


def parallel(history: SweepHistory) -> Plot | None:
    """Every trial as a line through its settings, to its objective at the right; None with fewer than two settings."""
    parameters = [parameter for parameter in history.parameters if len(parameter.values) > 1]
    if len(parameters) < 2:
        return None
    objective, last = _objective_axis(history, "objective"), len(parameters)
    axes = [*(parameter.axis for parameter in parameters), objective]
    trials = text_format.plural(len(history.valued), "trial")
    plot = Plot(f"settings and objective of {trials} as parallel coordinates", "parallel")
    for trial, level in _worst_first(history):
        known = [parameter.position(trial.record.varied.get(parameter.key)) for parameter in parameters]
        places = [at for at in known if at is not None]
        if len(places) == len(parameters):
            points = [(index / last, at) for index, at in enumerate([*places, objective.at(trial.objective)])]
            kind = "best" if trial is history.best else f"q{level}"
            plot.lines.append(Line(points, f"l {kind}", trial.record.number))
    for index, axis in enumerate(axes):
        plot.lines.append(Line([(index / last, 0), (index / last, 1)], "s"))
        plot.upright.append((index / last, axis))
    return plot


def scatter(history: SweepHistory, domain: str, points: Mapping[int, tuple[float, float]]) -> Plot:
    """MRR among all items against MRR among the stored candidates, one dot per trial.

    Args:
        points: number of a trial -> both.
    """
    sampled, full = zip(*points.values(), strict=True)
    x = linear_axis(min(sampled), max(sampled), label="MRR among stored candidates", pad=0.05)
    y = linear_axis(min(full), max(full), label="MRR among all items", pad=0.05)
    plot = Plot(f"MRR of {domain} among all items against stored candidates", "small both", x, y)
    for number, (a, b) in reversed(list(points.items())):
        plot.dots.append(Dot(x.at(a), y.at(b), kind_of(history, history.trials[number]), number))
    return plot
