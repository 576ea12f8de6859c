"""What came out: all trials in order, the best settings to use again, and the one look at the test split."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table
from rich.text import Text

from llmemf import text_format
from sweeps.core.display import STYLE, fits
from sweeps.state.trial_records import TrialRecord, ranked

TOP = 10
SHOWN_METRICS = ("mrr", "ndcg_10")


def table(records: list[TrialRecord], domains: tuple[str, ...], width: int) -> Table:
    """The best trials for the terminal: validation metrics per domain where the width allows it."""
    shown = ranked(records)[:TOP]
    keys = list(shown[0].varied) if shown else []
    outcomes = [record.outcome for record in shown if record.outcome != "completed"]
    fixed = {
        "trial": [record.name for record in shown],
        "epoch": [f"{record.best_epoch}/{record.epoch}" for record in shown],
        "objective": ["-" if record.objective is None else f"{record.objective:.4f}" for record in shown],
    }
    metrics = [f"val/{domain}/{name}" for domain in domains for name in SHOWN_METRICS]
    used = sum(len(max([name, *cells], key=len)) for name, cells in fixed.items()) + max(map(len, outcomes), default=0)
    columns, gap, spread = [], 2, False
    for columns, gap in ((metrics, 2), (metrics, 1), ([], 2), ([], 1)):
        gaps = gap * (len(fixed) + bool(outcomes) + len(columns) - 1)
        spread = fits(shown, keys, width - used - gaps - sum(len(_heading(name)) for name in columns), gap)
        if spread:
            break
    result = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    for name in (*fixed, *map(_heading, columns)):
        result.add_column(name, no_wrap=True, justify="left" if name == "trial" else "right")
    if outcomes:
        result.add_column("", no_wrap=True)
    for key in keys if spread else ["settings"]:
        result.add_column(key, no_wrap=spread, justify="right" if spread else "left")
    for place, record in enumerate(shown):
        cells: list[Any] = [column[place] for column in fixed.values()]
        cells += [f"{record.metrics[name]:.4f}" if name in record.metrics else "-" for name in columns]
        if outcomes:
            quiet = record.outcome == "completed"
            cells.append(Text("" if quiet else record.outcome, style=STYLE[record.outcome]))
        given = [text_format.number(record.varied.get(key)) for key in keys]
        cells += given if spread else [text_format.settings(record.varied)]
        result.add_row(*cells, style="bold" if place == 0 else "")
    return result


def _heading(metric: str) -> str:
    """`val/movie/ndcg_10` -> `movie N@10`."""
    _, domain, name = metric.split("/")
    return f"{domain} {name.upper().replace('NDCG_', 'N@')}"


def rows(records: list[TrialRecord]) -> list[dict[str, Any]]:
    """One flat row per trial, best first: every setting and every validation metric of its best epoch."""
    keys = list(dict.fromkeys(key for record in records for key in record.varied))
    metrics = sorted({name for record in records for name in record.metrics})
    result = []
    for place, record in enumerate(ranked(records), start=1):
        row = {
            "rank": place,
            "trial": record.name,
            "outcome": record.outcome,
            "objective": record.objective,
            "best_epoch": record.best_epoch,
            "epochs_run": record.epoch,
            "seconds": round(record.seconds, 1),
        }
        row |= {key: text_format.number(v) if isinstance(v := record.varied.get(key), list) else v for key in keys}
        row |= {name: record.metrics.get(name) for name in metrics}
        result.append({**row, "error": record.error})
    return result


def as_csv(records: list[TrialRecord]) -> str:
    lines = rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["rank"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_markdown(records: list[TrialRecord], *, title: str, notes: list[str], test: Mapping[str, float]) -> str:
    """The leaderboard as a page that can be shared: trials, notes, and test metrics of the best trial."""
    lines = [f"# {title}", "", *[f"{note}\n" for note in notes]]
    shown = [{name: value for name, value in row.items() if not name.startswith("val_full/")} for row in rows(records)]
    if shown:
        empty = {name for name in shown[0] if all(row[name] in ("", None) for row in shown)}
        names = [name for name in shown[0] if name not in empty]
        lines.append("| " + " | ".join(names) + " |")
        lines.append("|" + "---|" * len(names))
        lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in shown]
    if test:
        lines += ["", "## Test metrics of the best trial", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in sorted(test.items())]
    return "\n".join(lines) + "\n"


def shortened(page: str, limit: int = 5000) -> str:
    """The beginning of a page, whole lines only, without its title: the description of the sweep's run in MLflow."""
    lines, length = [], 0
    for line in page.splitlines()[2:]:
        length += len(line) + 1
        if length > limit:
            break
        lines.append(line)
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def best_yaml(config: Mapping[str, Any], facts: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The resolved settings of the best trial under a header that says where they come from."""
    header = [f"# {name}: {value}" for name, value in facts.items()]
    header += [f"# {name} = {value:.4f}" for name, value in metrics.items()]
    return "\n".join(header) + "\n" + yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None)


def test_table(test: Mapping[str, float], domains: tuple[str, ...]) -> Table:
    """Test metrics of the best trial: one row per domain and ranking."""
    names = ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    result.add_column("test", no_wrap=True)
    result.add_column("ranked among", no_wrap=True)
    for name in names:
        result.add_column(name.upper().replace("_", "@"), justify="right", no_wrap=True)
    for domain in domains:
        for prefix, among in (("test", "stored candidates"), ("test_full", "all items")):
            values = [test.get(f"{prefix}/{domain}/{name}") for name in names]
            result.add_row(domain, among, *("-" if value is None else f"{value:.4f}" for value in values))
    return result


def keep_best(source: Path, folder: Path) -> Path:
    """Copy the weights and settings of the best trial to `best/` in the sweep's folder."""
    target, temporary = folder / "best", folder / ".best.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name in ("best.safetensors", "config.yaml"):
            shutil.copy2(source / name, temporary / name)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
