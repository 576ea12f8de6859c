"""What the benchmarks share: timing in turn, and figures as a table and as JSON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table


def timed(work: Callable[[], object]) -> float:
    """Seconds on the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, run in turn; a first round only warms up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            took = timed(run)
            if number:
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def show(found: Mapping[str, float]) -> None:
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:,.4g}")
    Console().print(table)


def write(found: object, path: Path | None) -> None:
    """Figures as JSON, where a file was asked for."""
    if path:
        path.write_text(json.dumps(found, indent=1))
