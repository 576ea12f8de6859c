"""The leaderboard of the report: every trial with all metrics, the digits of leaderboard.csv behind the shown ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

from llmemf import text_format
from llmemf.pages.page import Part
from sweeps.core.result_tables import heading
from sweeps.reporting.history import SweepHistory, TrialHistory
from sweeps.reporting.spending import Spending
from sweeps.state import leaderboard
from sweeps.state.leaderboard import SHOWN_METRICS


class Cell(NamedTuple):
    """What is shown, and what it is sorted by where that is something else."""

    text: str
    sort: str = ""


class Column(NamedTuple):
    """A column.

    Attributes:
        kind: classes: `t` a text, `x` minor and hidden at first.
        low_first: whether the first click sorts it upwards.
        is_short: whether the short table of the Markdown twin has it.
    """

    heading: str
    kind: str = ""
    low_first: bool = False
    is_short: bool = True


def trial_tables(history: SweepHistory, spending: Spending, count: int = 20) -> tuple[Part, Part]:
    """Every trial with all metrics, the best first, to be sorted; and the main columns of the first `count` of them."""
    rows = leaderboard.rows(history.records)
    metrics = [name for name in rows[0] if "/" in name]
    shown = [f"val/{domain}/{name}" for domain in history.domains for name in SHOWN_METRICS]
    shown = [name for name in shown if name in metrics]
    settings = dict.fromkeys(key for record in history.records for key in record.varied)

    def cells(row: dict[str, Any], trial: TrialHistory) -> dict[Column, Cell]:
        found = {
            Column("rank", low_first=True): Cell(str(row["rank"])),
            Column("trial", "t", low_first=True): Cell(trial.name),
            Column("outcome", "t out", low_first=True): Cell(row["outcome"]),
            Column("objective"): _number(row["objective"]),
        }
        if "mean" in row:
            found[Column("seeds")] = Cell("-" if row["seeds"] is None else str(row["seeds"]))
            found |= {Column(name): _number(row[name]) for name in ("mean", "sd")}
        found[Column("epochs")] = Cell(f"{row['best_epoch']}/{row['epochs_run']}", str(row["best_epoch"]))
        found |= {Column(heading(name)): _number(row[name]) for name in shown}
        found |= {Column(key): _setting(row[key]) for key in settings}
        found[Column("minutes", "", True, False)] = Cell(f"{row['seconds'] / 60:.1f}", str(row["seconds"]))
        if spending.uses_gpus:
            found[Column("GPU-h", "", True, False)] = _hours(trial.gpu_seconds)
        found[Column("CPU-h", "x", True, False)] = _hours(trial.cpu_seconds)
        minor = [name for name in metrics if name not in shown]
        return found | {Column(heading(name), "x", is_short=False): _number(row[name]) for name in minor}

    lines = [(trial, cells(row, trial)) for row, trial in zip(rows, history.ranked, strict=True)]
    columns = list(lines[0][1])
    main = [column for column in columns if column.is_short]
    board = [
        SimpleNamespace(number=trial.record.number, is_best=trial is history.best, cells=list(line.values()))
        for trial, line in lines
    ]
    short = [[line[column].text for column in main] for _, line in lines[:count]]
    return ("board", columns, board), ("table", short, [column.heading for column in main], (0, 1, 2))


def _number(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:.4f}", repr(value))


def _setting(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell("-" if value in (None, "") else text_format.number(value), repr(value) if is_number else "")


def _hours(seconds: float) -> Cell:
    return Cell(f"{seconds / 3600:.2g}", f"{seconds / 3600:.6g}")
