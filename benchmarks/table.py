"""Today's ratios in one table: runs the benchmarks beside it one after the other and writes what they print.

    python benchmarks/table.py [--rounds 5] [--only objective,training,...] [--json out.json] [--markdown out.md]

Takes about half an hour on two quiet cores. A row whose measurement was left out, or whose package is not here
(benchmarks/peers.py says how to put RecBole beside), says so; a goal that is missed is shown as such. What needs a GPU is in
benchmarks/gpu.py. Seconds depend on the machine, ratios hardly do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from figures import machine
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
COMMANDS = {
    "objective": ["objective.py", "--rounds", "{rounds}"],
    "training": ["training.py", "--rounds", "{rounds}"],
    "overhead": ["overhead.py", "--rounds", "{rounds}"],
    "encode": ["encode.py", "--count", "96", "--repeats", "{rounds}"],
    "peers": ["peers.py", "--rounds", "{rounds}"],
}
"""Each writes its figures as JSON."""
PACKAGES = {"peers": "recbole"}
"""What a benchmark needs beside this project's own dependencies."""


@dataclass(frozen=True)
class Row:
    """One figure: which benchmark has it, how it follows, and what is aimed at."""

    what: str
    against: str
    source: str
    value: Callable[[dict[str, float]], float]
    goal: float
    at_least: bool = True
    form: str = "{:.2f}"

    def reached(self, value: float) -> bool:
        return value >= self.goal if self.at_least else value <= self.goal


def ratio(over: str, under: str) -> Callable[[dict[str, float]], float]:
    return lambda found: found[over] / found[under]


def figure(name: str) -> Callable[[dict[str, float]], float]:
    return lambda found: found[name]


ROWS = [
    Row("objective and gradients, time", "equations on padded rows / ours", "objective",
        ratio("seconds, equations, padded", "seconds, ours"), 4),
    Row("the same", "equations on real rows / ours", "objective",
        ratio("seconds, equations, real rows", "seconds, ours"), 1),
    Row("the same", "torch linear_cross_entropy / ours", "objective",
        ratio("seconds, torch linear_cross_entropy", "seconds, ours"), 1.6),
    Row("its memory", "equations on padded rows / ours", "objective", ratio("MiB, equations, padded", "MiB, ours"), 10),
    Row("its rate", "fp32 matrix product of this run", "objective", figure("share of the GEMM rate"), 0.7),
    Row("gradients in fp64, relative error", "equations in fp64", "objective", figure("gradient error, float64"), 1e-12,
        False, "{:.0e}"),
    Row("gradients in fp32, relative error", "equations in fp64", "objective", figure("gradient error, float32"), 1e-5,
        False, "{:.0e}"),
    Row("encoders, time", "padding computed / left out", "training", figure("encoders, padded / ours"), 1),
    Row("data path, rows per second", "lists through a DataLoader / ours", "training",
        figure("data path, lists / ours"), 20),
    Row("validation, share of an epoch", "both rankings, both domains", "training", figure("validation / epoch"), 0.08,
        False, "{:.3f}"),
    Row("validation, time", "case by case / ours", "training", figure("validation, case by case / ours"), 1),
    Row("ranking from encoded histories, time", "case by case / ours", "training",
        figure("ranking, case by case / ours"), 10),
    Row("ranks in fp32 that differ", "fp64", "training", figure("cases whose fp32 rank differs"), 0, False, "{:.3f}"),
    Row("sweep around a trial of 100 epochs of 1.8 s", "bare training", "overhead",
        figure("share of a trial of 100 epochs"), 0.01, False, "{:.3f}"),
    Row("the same, 25 trials cut to 289 epochs", "bare training", "overhead", figure("share of a halving sweep"), 0.03,
        False, "{:.3f}"),
    Row("report and log, ms per epoch", "", "overhead", figure("ms per report"), 5, False, "{:.1f}"),
    Row("start and end of a trial, seconds", "", "overhead", figure("seconds per trial"), 0.5, False, "{:.2f}"),
    Row("CLIP of images, rate", "the model alone / ours", "encode", figure("images, model / ours"), 0.9),
    Row("CLIP of titles, time", "a plain open_clip loop / ours", "encode", figure("titles, plain / ours"), 4),
    Row("SASRec, targets per second", "ours / RecBole's", "peers", figure("targets per second, ours / RecBole"), 5),
]  # fmt: skip


def run(source: str, rounds: int) -> dict[str, float]:
    """The figures of one benchmark, run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        script, *options = [part.format(rounds=rounds) for part in COMMANDS[source]]
        subprocess.run(
            [sys.executable, str(HERE / script), *options, "--json", str(path)], check=True, stdout=subprocess.DEVNULL
        )
        return json.loads(path.read_text())


def lines(found: dict[str, dict[str, float]]) -> list[tuple[str, str, str, str, str]]:
    """What is measured, against what, today, goal, and whether it is reached."""
    made = []
    for row in ROWS:
        goal = ("at least " if row.at_least else "at most ") + f"{row.goal:g}"
        if row.source not in found:
            missing = PACKAGES.get(row.source)
            why = f"needs {missing}" if missing and find_spec(missing) is None else "left out"
            made.append((row.what, row.against, why, goal, ""))
            continue
        value = row.value(found[row.source])
        made.append((row.what, row.against, row.form.format(value), goal, "yes" if row.reached(value) else "no"))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(COMMANDS), help="which benchmarks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(COMMANDS):
        sys.exit(f"error: --only {', '.join(sorted(unknown))}: there are {', '.join(COMMANDS)}")
    console, found = Console(), {}
    load = os.getloadavg()[0]
    for source in wanted:
        if source in PACKAGES and find_spec(PACKAGES[source]) is None:
            continue
        with console.status(f"measuring: {source}"):
            found[source] = run(source, given.rounds)
    header = ("figure", "against", "today", "goal", "reached")
    head = f"{datetime.date.today()}, {machine()}; load {load:.1f} before; medians of {given.rounds} interleaved rounds"
    table = Table(*header)
    for line in lines(found):
        table.add_row(*line)
    console.print(head)
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps({"head": head, **found}, indent=1))
    if given.markdown:
        body = [header, ("---",) * len(header), *lines(found)]
        given.markdown.write_text(head + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in body) + "\n")


if __name__ == "__main__":
    main()
