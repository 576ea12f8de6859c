"""The leaderboard of the report: every trial with all metrics, the digits of leaderboard.csv behind the shown ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmemf import text_format
from sweeps.core.result_tables import heading
from sweeps.reporting.history import SweepHistory, TrialHistory
from sweeps.reporting.spending import Spending
from sweeps.state import leaderboard
from sweeps.state.leaderboard import SHOWN_METRICS


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by where that is something else."""

    text: str
    sort: str = ""


Fill = Callable[[dict[str, Any], TrialHistory], Cell]


@dataclass(frozen=True)
class Column:
    """A column and how its cells are made of a leaderboard's row and the trial's history.

    Attributes:
        kind: classes: `t` a text, `x` minor and hidden at first.
        low_first: whether the first click sorts it upwards.
        is_short: whether the short table of the Markdown twin has it.
    """

    heading: str
    fill: Fill
    kind: str = ""
    low_first: bool = False
    is_short: bool = True


@dataclass(frozen=True)
class Row:
    """One trial as a row of the table."""

    number: int
    is_best: bool
    cells: list[Cell]


@dataclass(frozen=True)
class TrialTable:
    """All trials with the columns that the page shows."""

    columns: list[Column]
    rows: list[Row]

    def short(self, count: int) -> tuple[list[str], list[list[str]]]:
        """Headings and texts of the first rows, main columns only."""
        chosen = [place for place, column in enumerate(self.columns) if column.is_short]
        texts = [[row.cells[place].text for place in chosen] for row in self.rows[:count]]
        return [self.columns[place].heading for place in chosen], texts


def trial_table(history: SweepHistory, spending: Spending) -> TrialTable | None:
    """The best trial first; None without trials."""
    rows = leaderboard.rows(history.records)
    if not rows:
        return None
    metrics = [name for name in rows[0] if "/" in name]
    shown = [f"val/{domain}/{name}" for domain in history.domains for name in SHOWN_METRICS]
    shown = [name for name in shown if name in metrics]
    columns = [
        Column("rank", lambda row, trial: Cell(str(row["rank"])), low_first=True),
        Column("trial", lambda row, trial: Cell(trial.name), "t", low_first=True),
        Column("outcome", lambda row, trial: Cell(row["outcome"]), "t out", low_first=True),
        Column("objective", _number("objective")),
        *([_seeds(), Column("mean", _number("mean")), Column("sd", _number("sd"))] if "mean" in rows[0] else []),
        Column("epochs", lambda row, trial: Cell(f"{row['best_epoch']}/{row['epochs_run']}", str(row["best_epoch"]))),
        *(Column(heading(name), _number(name)) for name in shown),
        *(Column(key, _setting(key)) for key in dict.fromkeys(key for r in history.records for key in r.varied)),
        Column("minutes", lambda row, trial: Cell(f"{row['seconds'] / 60:.1f}", str(row["seconds"])), "", True, False),
    ]
    if spending.uses_gpus:
        columns.append(Column("GPU-h", lambda row, trial: _hours(trial.gpu_seconds), "", True, False))
    columns.append(Column("CPU-h", lambda row, trial: _hours(trial.cpu_seconds), "x", True, False))
    columns += [Column(heading(name), _number(name), "x", is_short=False) for name in metrics if name not in shown]
    lines = []
    for row, trial in zip(rows, history.ranked, strict=True):
        lines.append(Row(trial.record.number, trial is history.best, [column.fill(row, trial) for column in columns]))
    return TrialTable(columns, lines)


def _number(name: str) -> Fill:
    return lambda row, trial: Cell("-") if row[name] is None else Cell(f"{row[name]:.4f}", repr(row[name]))


def _seeds() -> Column:
    return Column("seeds", lambda row, trial: Cell("-" if row["seeds"] is None else str(row["seeds"])))


def _setting(key: str) -> Fill:
    def fill(row: dict[str, Any], trial: TrialHistory) -> Cell:
        value = row[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = "-" if value in (None, "") else text_format.number(value)
        return Cell(text, repr(value) if is_number else "")

    return fill


def _hours(seconds: float) -> Cell:
    return Cell(f"{seconds / 3600:.2g}", f"{seconds / 3600:.6g}")
