"""The tables that a sweep prints at its end: its best trials, and the test metrics of the best one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from llmemf.ranking_names import METRICS, RANKINGS, ranking_rows
from sweeps.core.display import STYLE, add_settings, fits
from sweeps.state.leaderboard import SHOWN_METRICS
from sweeps.state.trial_records import TrialRecord, ranked, seed_values

TOP = 10


def table(records: list[TrialRecord], domains: tuple[str, ...], width: int) -> Table:
    """The best trials for the terminal: validation metrics per domain where the width allows it."""
    shown = ranked(records)[:TOP]
    outcomes = [record.outcome for record in shown if record.outcome != "completed"]
    fixed = {
        "trial": [record.name for record in shown],
        "epoch": [f"{record.best_epoch}/{record.epoch}" for record in shown],
        "objective": ["-" if record.objective is None else f"{record.objective:.4f}" for record in shown],
    }
    if over_seeds := seed_values(records):
        values = [over_seeds.get(record.number) for record in shown]
        fixed["mean"] = ["" if own is None else f"{fmean(own):.4f} ({len(own)})" for own in values]
    metrics = [f"val/{domain}/{name}" for domain in domains for name in SHOWN_METRICS]
    used = sum(len(max([name, *cells], key=len)) for name, cells in fixed.items()) + max(map(len, outcomes), default=0)
    fewer = [[name for name in metrics if name.endswith("/mrr")], []] if over_seeds else [[]]
    for columns, gap in itertools.product((metrics, *fewer), (2, 1)):
        gaps = gap * (len(fixed) + bool(outcomes) + len(columns) - 1)
        left = width - used - gaps - sum(len(heading(name)) for name in columns)
        if fits(shown, left, gap):
            break
    result = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    for name in (*fixed, *map(heading, columns)):
        result.add_column(name, no_wrap=True, justify="left" if name == "trial" else "right")
    if outcomes:
        result.add_column("", no_wrap=True)
    cells_of = add_settings(result, shown, left, gap)
    for place, record in enumerate(shown):
        cells: list[Any] = [column[place] for column in fixed.values()]
        cells += [f"{record.metrics[name]:.4f}" if name in record.metrics else "-" for name in columns]
        if outcomes:
            quiet = record.outcome == "completed"
            cells.append(Text("" if quiet else record.outcome, style=STYLE[record.outcome]))
        result.add_row(*cells, *cells_of(record), style="bold" if place == 0 else "")
    return result


def heading(metric: str) -> str:
    """`val/movie/ndcg_10` -> `movie N@10`, `val_full/...` -> `... (all items)`."""
    split, *domain, name = metric.split("/")
    among = "".join(f" ({label})" for ending, label in RANKINGS.values() if ending and split.endswith(ending))
    return f"{' '.join([*domain, name.upper().replace('NDCG_', 'N@').replace('_', '@')])}{among}"


def test_table(test: Mapping[str, float], domains: tuple[str, ...]) -> Table:
    """Test metrics of the best trial: one row per domain and ranking; rankings that are the same share a row."""
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    result.add_column("test", no_wrap=True)
    result.add_column("ranked among")
    for name in METRICS:
        result.add_column(name.upper().replace("_", "@"), justify="right", no_wrap=True)
    for domain in domains:
        for among, cells in ranking_rows(test, "test", domain, METRICS):
            result.add_row(domain, among, *cells)
    return result
