"""Reading of raw reviews: speed against a plain gzip + json loop over the same file, and memory per million reviews.

    python benchmarks/review_parsing.py                  a review file of 400,000 lines, memory up to 8 million reviews
    python benchmarks/review_parsing.py --reviews 50000 --rounds 1 --memory 1,2

The loop is what everybody writes: `for line in gzip.open(path): record = json.loads(line)`, and the three fields taken
out of the record. It keeps nothing; ours also hashes the file, checks every field and counts lines. Unpacking (zlib)
alone is two fifths of the loop's time on JSON lines, and no parser avoids it: ours unpacks in a thread of its own, so the
ratio by the clock is higher than the one of processor time. Rounds alternate between both, the median counts.

Memory is the growth of the peak (resident set) between processes that collect different numbers of reviews, all of
domain X and as many of domain Y, with the long user ids of the 2023 release and a new user for every second review.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from llmemf.scenarios.bad_lines import LineCounts
from llmemf.scenarios.interactions import InteractionCollector
from llmemf.scenarios.lines import line_blocks
from llmemf.scenarios.review_files import read_reviews

WORDS = 5000
BASE32 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", dtype=np.uint8)


def records(count: int, seed: int = 0):
    """Reviews with the fields and text lengths (median 300 characters, a long tail) of the 2018 release."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz      ", dtype=np.uint8)
    text = rng.choice(letters, size=1 << 21).tobytes().decode()
    lengths = np.minimum(rng.lognormal(5.7, 0.9, size=count), 10_000).astype(int)
    starts = rng.integers(0, len(text) - 10_000, size=count)
    users = rng.integers(0, count, size=count)
    times = rng.integers(1.2e9, 1.5e9, size=count)
    for number in range(count):
        start = int(starts[number])
        yield {
            "overall": 5.0,
            "verified": True,
            "reviewTime": "09 13, 2009",
            "reviewerID": f"A{users[number]:013X}",
            "asin": f"B{number // 30:09d}",
            "style": {"Format:": " Hardcover"},
            "reviewerName": text[start : start + 12],
            "reviewText": f'{text[start : start + lengths[number]]} "quoted"\n',
            "summary": text[start : start + 30],
            "unixReviewTime": int(times[number]),
        }


def write_files(folder: Path, count: int) -> dict[str, Path]:
    """The same reviews as JSON lines, as Python literals (a tenth of them), and as ratings."""
    paths = {
        "JSON lines": folder / "json.gz",
        "Python literals": folder / "literals.gz",
        "ratings CSV": folder / "ratings.csv.gz",
    }
    with (
        gzip.open(paths["JSON lines"], "wt", 6) as lines,
        gzip.open(paths["Python literals"], "wt", 6) as literals,
        gzip.open(paths["ratings CSV"], "wt", 6) as ratings,
    ):
        for number, record in enumerate(records(count)):
            lines.write(json.dumps(record) + "\n")
            if number % 10 == 0:
                of_2014 = {name: value for name, value in record.items() if name not in ("style", "verified")}
                literals.write(repr({**of_2014, "helpful": [2, 3]}) + "\n")
            ratings.write(f"{record['reviewerID']},{record['asin']},5.0,{record['unixReviewTime']}\n")
    return paths


def json_loop(path: Path) -> int:
    count = 0
    with gzip.open(path) as file:
        for line in file:
            record = json.loads(line)
            record["reviewerID"], record["asin"], record["unixReviewTime"]
            count += 1
    return count


def literal_loop(path: Path) -> int:
    count = 0
    with gzip.open(path, "rt") as file:
        for line in file:
            record = ast.literal_eval(line)
            record["reviewerID"], record["asin"], record["unixReviewTime"]
            count += 1
    return count


def csv_loop(path: Path) -> int:
    count = 0
    with gzip.open(path) as file:
        for user, item, _, when in csv.reader(io.TextIOWrapper(file)):
            user, item, int(when)
            count += 1
    return count


def ours(path: Path) -> int:
    return sum(len(columns.times) for columns in read_reviews(LineCounts(path)))


def unpacking(path: Path) -> int:
    """What no parser can avoid."""
    return sum(block.num_lines for block in line_blocks(path))


def seconds(function: Callable[[Path], int], path: Path) -> tuple[float, float, int]:
    """Wall time, processor time (all threads), and what the function counted."""
    wall, processor = time.perf_counter(), time.process_time()
    count = function(path)
    return time.perf_counter() - wall, time.process_time() - processor, count


def speed(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), count)
        for kind, loop in (("JSON lines", json_loop), ("Python literals", literal_loop), ("ratings CSV", csv_loop)):
            taken = {function: [] for function in (loop, ours, unpacking)}
            for _ in range(rounds):
                for function, times in taken.items():
                    times.append(seconds(function, paths[kind]))
            lines = {function: {one[2] for one in times} for function, times in taken.items()}
            assert len(set.union(*lines.values())) == 1, f"{kind}: not the same number of reviews: {lines}"
            wall, processor = (
                {function: statistics.median(one[part] for one in times) for function, times in taken.items()}
                for part in (0, 1)
            )
            number = lines[ours].pop()
            print(
                f"{kind}: {number:,} reviews, {paths[kind].stat().st_size / 1e6:.0f} MB\n"
                f"  wall       loop {wall[loop]:.2f} s, ours {wall[ours]:.2f} s ({number / wall[ours]:,.0f} reviews/s), "
                f"unpacking alone {wall[unpacking]:.2f} s: {wall[loop] / wall[ours]:.2f} x\n"
                f"  processor  loop {processor[loop]:.2f} s, ours {processor[ours]:.2f} s: "
                f"{processor[loop] / processor[ours]:.2f} x"
            )


def collect(millions: float) -> None:
    """Collect that many reviews of each domain, a tenth of Y's by users of X, and print the peak in MiB."""
    rng = np.random.default_rng(0)
    block = 20_000

    def names(numbers: np.ndarray, width: int) -> pa.Array:
        digits = (numbers[:, None] >> np.uint64(3) * np.arange(width, dtype=np.uint64)) % np.uint64(32)
        return pa.array(BASE32[digits].view(f"S{width}").ravel().astype(str), pa.string())

    with InteractionCollector() as collector:
        for domain in (0, 1):
            for start in range(0, int(millions * 1e6), block):
                first = start // 2 + domain * int(millions * 1e6) * 45 // 100
                users = rng.integers(first, first + block // 2, size=block, dtype=np.uint64) * np.uint64(
                    0x9E3779B97F4A7C15
                )
                items = rng.integers(0, 10**6, size=block, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15 - 2 * domain)
                collector.add(domain, names(users, 28), names(items, 10), rng.integers(1, 2**31, size=block))
        kept = collector.finish()
    print(json.dumps([len(kept), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def memory(millions: list[float]) -> None:
    peaks = {}
    for number in millions:
        command = [sys.executable, __file__, "--collect", str(number)]
        kept, peaks[number] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"memory: {number:g} million reviews a domain ({kept:,} by users of both): peak {peaks[number]:,.0f} MiB")
    slope, base = np.polyfit(list(peaks), list(peaks.values()), 1)
    print(
        f"memory: {base:,.0f} MiB + {slope:.1f} MiB per million, so 50 million need {(base + 50 * slope) / 1024:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=400_000, help="lines of the file that is parsed")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts")
    parser.add_argument("--memory", default="2,4,8", help="millions of reviews a domain to collect, with commas")
    parser.add_argument("--collect", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.collect is not None:
        collect(arguments.collect)
        return
    speed(arguments.reviews, arguments.rounds)
    memory([float(part) for part in arguments.memory.split(",")])


if __name__ == "__main__":
    main()
