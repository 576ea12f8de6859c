"""Sweeps beside each other: how they stand, their progress in one chart, and the settings of their best trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmemf import text_format
from llmemf.pages.charts import Dot, Line, Plot, Point, linear_axis, whole_axis
from llmemf.pages.page import Page, Section
from sweeps.reporting.history import SweepHistory
from sweeps.reporting.spending import spend

MOST = 4
"""Sweeps that a page can show: so many lines can be told apart."""


def beside_page(histories: Sequence[SweepHistory]) -> Page:
    """The page of two to `MOST` sweeps."""
    names = [history.record.name for history in histories]
    plots = {
        "Best so far, trial by trial": _best_so_far(histories),
        "The best trials, epoch by epoch": _curves(histories),
    }
    columns = [(title, [("plot", plot)]) for title, plot in plots.items() if plot.lines]
    key = [([f"ln s{index}"], name) for index, name in enumerate(names)]
    charts = [("beside", columns, "two"), ("key", key if columns else [])]
    standing = [*charts, ("table", _standing(histories), ["", *names], (0,), "plain")]
    kinds = ", ".join(dict.fromkeys(f"{history.record.model} on {history.record.scenario}" for history in histories))
    title, lead = text_format.listed(names), f"{kinds}."
    sections = [Section("How they stand", standing), _settings(histories, names)]
    return Page("Sweeps beside each other", title, lead, sections, title, warnings=_warnings(histories))


def _warnings(histories: Sequence[SweepHistory]) -> list[str]:
    found = []
    if len({history.record.fingerprint for history in histories}) > 1:
        found.append("These sweeps ran on different data: their numbers cannot be compared.")
    if len({history.fixed.get("monitor", "val_mrr") for history in histories}) > 1:
        found.append("They monitored different metrics: their objectives cannot be compared.")
    return found


def _standing(histories: Sequence[SweepHistory]) -> list[list[str | tuple[str, str]]]:
    rows: dict[str, list[str]] = {}
    values = [history.best.objective for history in histories if history.best]
    for history in histories:
        best, spending = history.best, spend(list(history.trials.values()))
        facts = {
            "state": history.state,
            "trials": f"{sum(record.ended for record in history.records)} of {history.planned}",
            "search": f"{history.record.search}, {history.record.scheduler}",
            "epochs at most": str(history.epochs),
            "best trial": best.name if best else "-",
            history.monitored: f"{best.objective:.4f}" if best else "-",
            "test MRR": f"{history.test['test/mrr']:.4f}" if "test/mrr" in history.test else "-",
            "wall time": text_format.duration(history.seconds),
            "CPU-hours": f"{spending.total.cpu_seconds / 3600:.2g}",
            "GPU-hours": f"{spending.total.gpu_seconds / 3600:.2g}",
        }
        for name, text in facts.items():
            rows.setdefault(name, []).append(text)
    if set(rows["GPU-hours"]) == {"0"}:
        del rows["GPU-hours"]
    top = f"{max(values):.4f}" if values else ""
    return [[name, *((text, "best" if text == top else "") for text in texts)] for name, texts in rows.items()]


def _settings(histories: Sequence[SweepHistory], names: list[str]) -> Section:
    """The settings of the best trials that differ."""
    whole = [{**h.fixed, **h.best.record.config, **h.best.record.varied} if h.best else h.fixed for h in histories]
    keys = list(dict.fromkeys(key for settings in whole for key in settings))
    texts = {key: [text_format.number(settings[key]) if key in settings else "-" for settings in whole] for key in keys}
    differing = {key: found for key, found in texts.items() if len(set(found)) > 1}
    rows = [[key, *found] for key, found in differing.items()]
    same = f"{'All' if not rows else 'The other'} {text_format.plural(len(keys) - len(rows), 'setting')} are the same."
    parts = [("table", rows, ["", *names], (0,), "plain"), ("text", same, "quiet hint")]
    return Section("Settings of the best trials", parts)


def _best_so_far(histories: Sequence[SweepHistory]) -> Plot:
    lines = []
    for history in histories:
        valued = sorted(history.valued, key=lambda trial: trial.record.number)
        best: list[float] = np.maximum.accumulate([trial.objective for trial in valued]).tolist() if valued else []
        lines.append([(trial.record.number, value) for trial, value in zip(valued, best, strict=True)])
    return _lines(histories, lines, "trial")


def _curves(histories: Sequence[SweepHistory]) -> Plot:
    return _lines(histories, [list(enumerate(h.best.curve, 1)) if h.best else [] for h in histories], "epoch")


def _lines(histories: Sequence[SweepHistory], lines: list[list[tuple[int, float]]], along: str) -> Plot:
    """One line per sweep."""
    points = [point for line in lines for point in line]
    if not points:
        return Plot("", "")
    values = [value for _, value in points]
    x = whole_axis(max(2, *(place for place, _ in points)), label=along)
    y = linear_axis(min(values), max(values), label=histories[0].monitored, pad=0.11)
    plot = Plot(f"{histories[0].monitored} by {along} of {text_format.plural(len(lines), 'sweep')}", "", x, y)
    for index, line in enumerate(lines):
        placed: list[Point] = [(x.at(place), y.at(value)) for place, value in line]
        if placed:
            plot.lines.append(Line(placed, f"l s{index}"))
        if len(placed) == 1:  # no line is seen of one place
            plot.dots.append(Dot(*placed[0], f"s{index}"))
    return plot
