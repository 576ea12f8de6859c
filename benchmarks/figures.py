"""What the benchmarks share: timing in turn, and figures as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def timed(work: Callable[[], object]) -> float:
    """Seconds on the clock, those of a GPU's queued work included."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
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


def parser(doc: str, **integers: int) -> argparse.ArgumentParser:
    """The options that most benchmarks have: whole numbers with their defaults, and --json."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in integers.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    made.add_argument("--json", type=Path, help="write the figures to this file as well")
    return made


def report(found: Mapping[str, float | str], path: Path | None) -> None:
    """Print figures as a table, and write them as JSON where a file was asked for."""
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(escape(name), value if isinstance(value, str) else f"{value:,.4g}")
    Console().print(table)
    write(found, path)


def write(found: object, path: Path | None) -> None:
    if path:
        path.write_text(json.dumps(found, indent=1))


def machine() -> str:
    """Processor or GPU, and the versions that figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    chip = f"{os.cpu_count()} x {names[0] if names else platform.machine()}"
    if torch.cuda.is_available():
        chip += f", {torch.cuda.get_device_name()}"
    return f"{chip}, Python {platform.python_version()}, torch {torch.__version__}"
