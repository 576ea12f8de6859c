"""The leaderboard of the report: every trial with all metrics, the digits of leaderboard.csv behind the shown ones."""

from __future__ import annotations

from html import escape
from typing import Any

from llmemf import text_format
from sweeps.report.content import Report, value
from sweeps.state import leaderboard
from sweeps.state.leaderboard import SHOWN_METRICS

FIRST = 20
"""Rows that are shown at first."""
LOWER_IS_BETTER = ("rank", "trial", "minutes", "CPU-h", "GPU-h")


def board(report: Report) -> str:
    """The table with its buttons; rows beyond the first and minor metrics hide behind them where scripts run."""
    findings = report.findings
    rows = leaderboard.rows(findings.records)
    if not rows:
        return ""
    settings = list(dict.fromkeys(key for record in findings.records for key in record.varied))
    metrics = [name for name in rows[0] if "/" in name]
    main = [f"val/{domain}/{name}" for domain in findings.domains for name in SHOWN_METRICS]
    main = [name for name in main if name in metrics]
    extra = [name for name in metrics if name not in main]
    costs = ["minutes", *(["GPU-h"] if findings.spending.uses_gpus else [])]
    heads = ["rank", "trial", "outcome", "objective", "epochs", *main, *settings, *costs, "CPU-h", *extra]
    extra.append("CPU-h")
    best = findings.best
    lines = []
    for place, row in enumerate(rows):
        number = int(row["trial"][1:])
        story = findings.trials[number]
        cells = [f"<td>{row['rank']}", f'<td class="t">{row["trial"]}', f'<td class="t out">{row["outcome"]}']
        cells.append(_number(row["objective"]))
        cells.append(f'<td data-v="{row["best_epoch"]}">{row["best_epoch"]}/{row["epochs_run"]}')
        cells += [_number(row[name]) for name in main]
        cells += [_setting(row[key]) for key in settings]
        cells.append(f'<td data-v="{row["seconds"]}">{row["seconds"] / 60:.1f}')
        if findings.spending.uses_gpus:
            cells.append(_hours(story.gpu_seconds))
        cells.append(_hours(story.cpu_seconds, " class=x"))
        cells += [_number(row[name], " class=x") for name in extra if name in row]
        kinds = ["best"] * (best is not None and best.record.number == number) + ["more"] * (place >= FIRST)
        mark = f' class="{" ".join(kinds)}"' if kinds else ""
        lines.append(f"<tr{mark} data-t={number}>{''.join(cells)}")
    head = "".join(_head(name, name in extra) for name in heads)
    tools = []
    if len(rows) > FIRST:
        tools.append(_toggle("short", f"show all {len(rows)} trials", f"show the first {FIRST}"))
    if extra:
        tools.append(_toggle("wide", "show all metrics", "show fewer metrics"))
    return (
        f'<div class="scroll"><table class="board{" short" if len(rows) > FIRST else ""}"><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><div class="tools">{"".join(tools)}</div>'
    )  # fmt: skip


def _head(name: str, extra: bool) -> str:
    left = name in ("trial", "outcome")
    kinds = ["t"] * left + ["x"] * extra
    mark = f' class="{" ".join(kinds)}"' if kinds else ""
    first = ' data-first="up"' if name in LOWER_IS_BETTER or left else ""
    return f'<th scope="col"{mark}{first}><button type="button">{escape(heading(name))}</button></th>'


def heading(metric: str) -> str:
    """`val/movie/ndcg_10` -> `movie N@10`, `val_full/...` -> `... (all items)`; other names as they are."""
    parts = metric.split("/")
    if len(parts) == 1:
        return metric
    among = " (all items)" if parts[0] == "val_full" else ""
    name = parts[-1].upper().replace("NDCG_", "N@").replace("_", "@")
    return f"{' '.join([*parts[1:-1], name])}{among}"


def _number(number: float | None, mark: str = "") -> str:
    return f"<td{mark}>-" if number is None else f'<td{mark} data-v="{number!r}">{value(number)}'


def _hours(seconds: float, mark: str = "") -> str:
    return f'<td{mark} data-v="{seconds / 3600:.6g}">{seconds / 3600:.2g}'


def _setting(item: Any) -> str:
    if item is None or item == "":
        return "<td>-"
    plain = isinstance(item, int | float) and not isinstance(item, bool)
    own = f' data-v="{item!r}"' if plain else ""
    return f"<td{own}>{escape(text_format.number(item))}"


def _toggle(name: str, text: str, other: str) -> str:
    return f'<button type="button" class="tool" data-toggle="{name}" data-other="{other}">{text}</button>'
