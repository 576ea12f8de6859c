"""How time, memory and disk grow with items, users and trials: measured on sizes that fit, and carried on by the model.

    python benchmarks/scale.py                          # all parts, about ten minutes on two cores (docs/scale.md)
    python benchmarks/scale.py --parts items --items 2000,8000 --batch-size 16
    python benchmarks/scale.py --parts carried --gpu-hour 4

items     seconds of a training step and of a scored case, exact and sampled, and the peak of a process's own memory
users     seconds and bytes to bring histories to the device, to import them, and to batch them
features  copied and mapped tables: seconds and memory until a trial's data is ready, bytes that go to every trial
trials    MLflow's SQLite file: milliseconds per epoch written, bytes, and how long its runs take to list
carried   the model of `sweeps.costs.scaling` from 10 thousand to 10 million items, to a thousand million interactions

Every size is a process of its own, so that its peak of memory is its own. `slope` is the exponent between the smallest and the
largest size: 1 grows alike, 0 does not grow. `carried` divides this machine's seconds by the shares of its ceilings that `items`
found; a GPU's are its roof, which nothing reaches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.figures import timed, write
from llmemf.batches import TrialData
from llmemf.features.matrix import FeatureMatrix, unit_rows
from llmemf.memory import process_bytes, reset_memory_peak
from llmemf.scenarios.scenario import Sequences
from sweeps.costs import scaling
from sweeps.costs.scaling import H200, RTX4090, Device
from sweeps.costs.workload import Workload, workload

MIB = 2**20
WIDTH, IDS = 512, 256
SHARE_X = 36845 / 100782
MOVIE_BOOK = {"items": 100782, "sequences": 58515, "cases": 7644}
MEAN_LENGTH = 12
"""Items per made-up history, 9 to 15; the published mean is 11.98."""
METRICS = 40
"""Metrics that a trial reports per epoch."""
OBJECTIVES = {"exact": {"objective": "full"}, "sampled": {"objective": "sampled"}}


def made_up(items: int, sequences: int, cases: int, *, features: bool = True, seed: int = 0) -> TrialData:
    """Histories of 9 to 15 items drawn uniformly out of two domains, and random features of unit length."""
    rng = np.random.default_rng(seed)
    num_x = round(SHARE_X * items)
    lengths = rng.integers(9, 16, sequences)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    drawn = rng.integers(0, items, offsets[-1]).astype(np.int32)
    train = Sequences(np.arange(sequences, dtype=np.int32), offsets, drawn, np.full(len(drawn), -1))
    valid = Sequences(train.users[:cases], offsets[: cases + 1], drawn[: offsets[cases]], train.times[: offsets[cases]])
    low = np.where(valid.targets < num_x, 0, num_x)[:, None]
    high = np.where(valid.targets < num_x, num_x, items)[:, None]
    candidates = rng.integers(low, high, (cases, 999)).astype(np.int32)
    own = candidates == valid.targets[:, None]
    candidates = np.where(own, low + (candidates + 1 - low) % (high - low), candidates).astype(np.int32)

    def matrix(kind: str) -> FeatureMatrix | None:
        if not features:
            return None
        has = np.ones(items, bool)
        return FeatureMatrix(
            kind, "random", unit_rows(rng.random((items, WIDTH), np.float32) - 0.5, has), has, "made up"
        )

    return TrialData(
        ("x", "y"), num_x, items, sequences, train, valid, candidates, matrix("text"), matrix("image"), "made up"
    )


def configuration(**settings):
    from llmemf.config import build_config
    from llmemf.models.llm_emf import LLMEMFConfig

    return build_config(LLMEMFConfig, {"device": "cpu", "epochs": 1, "id_dim": IDS, **settings})


class Peak:
    """Bytes of the resident set above what was there, at their highest, while the block runs."""

    def __enter__(self) -> Self:
        reset_memory_peak()
        self._before = process_bytes("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        self.bytes = process_bytes("VmHWM") - self._before


def items_part(items: int, objective: str, batch: int, rounds: int) -> dict[str, float]:
    """One size of the catalogue: a step, a scored case, memory, and the shares of this machine's ceilings."""
    from llmemf.training import Trainer
    from sweeps.costs.ceilings import ceilings

    cases = min(64, batch)
    config = configuration(batch_size=batch, eval_batch_size=cases, **OBJECTIVES[objective])
    data = made_up(items, batch, cases)
    with Peak() as peak:
        trainer = Trainer(config, data)
        steps = [timed(lambda: trainer._train_epoch(1)) for _ in range(rounds + 1)][1:]
        scored = [timed(trainer._validate) for _ in range(rounds + 1)][1:]
    size, here = workload(config, data), ceilings("cpu", 0)
    step, case = statistics.median(steps), statistics.median(scored) / cases
    return {
        "step": step,
        "case": case,
        "peak": peak.bytes,
        "model": scaling.trial_bytes(size),
        "train share": scaling.train_seconds(size, here) / step,
        "valid share": scaling.valid_seconds(size, here) / cases / case,
        "flops": here.flops,
        "bandwidth": here.bandwidth,
    }


def users_part(users: int) -> dict[str, float]:
    """One number of histories: on the device, batched, and imported from text."""
    import torch

    from llmemf.batches import device_sequences
    from llmemf.scenarios.histories import read_histories

    data = made_up(10000, users, 1, features=False)
    with Peak() as peak:
        began = time.perf_counter()
        sequences = device_sequences(configuration(), data, "train", torch.device("cpu"))
        placed = time.perf_counter() - began
    held = sequences.users.nbytes + sum(
        table.nbytes for view in sequences.views.values() for table in (view.items, view.next_same, view.next_merged)
    )
    index = torch.randint(0, users, (256,))
    batched = statistics.median(timed(lambda: sequences.batch(index)) for _ in range(50))
    with tempfile.TemporaryDirectory() as folder:
        table, histories = Path(folder) / "items.tsv", Path(folder) / "histories.txt"
        table.write_text("".join(f"{i}\t{'X' if i < data.num_x else 'Y'}\ti{i}\n" for i in range(data.num_items)))
        rows = np.split(data.train.items, data.train.offsets[1:-1])
        histories.write_text("".join(f"u{u}\t{','.join(map(str, row))}\n" for u, row in enumerate(rows)))
        with Peak() as importing:
            imported = timed(lambda: read_histories(histories, table, "made_up"))
    interactions = len(data.train.items)
    return {
        "interactions": interactions, "device seconds": placed, "device bytes": held, "device peak": peak.bytes,
        "batch": batched, "import seconds": imported, "import peak": importing.bytes,
    }  # fmt: skip


def features_part(items: int, precision: str) -> dict[str, float]:
    """One table of an encoder, read for a sweep: as it is, or packed."""
    from pandas import DataFrame

    from llmemf.features.matrix import find_features
    from llmemf.features.packed import pack
    from llmemf.scenarios.scenario import Scenario

    with tempfile.TemporaryDirectory() as folder:
        data = made_up(items, 100, 1)
        names = DataFrame({"external_id": np.arange(items).astype(str), "title": "", "description": "", "image": ""})
        scenario = Scenario(
            "made_up", data.domains, data.num_x, names, np.arange(100).astype(str), data.train, data.valid, data.valid,
            candidates={"valid": data.valid_candidates, "test": data.valid_candidates},
        )  # fmt: skip
        scenario = replace(scenario, folder=scenario.save(folder))
        replace(data.text, items_hash=scenario.items_hash()).save(scenario)
        encoder, packing = "random", 0.0
        if precision != "copied":
            packing = timed(lambda: pack(find_features(scenario, "text"), scenario, precision))
            encoder = f"random-{precision}"
        del data
        with Peak() as peak:
            began = time.perf_counter()
            trial_data = TrialData.build(scenario, text=find_features(scenario, "text", encoder))
            ready = time.perf_counter() - began
        anonymous = 0 if trial_data.text.packed else trial_data.text.rows.nbytes
        return {
            "pack": packing, "ready": ready, "peak": peak.bytes, "held": anonymous,
            "file": (scenario.folder / "features" / f"text.{encoder}" / "rows.npy").stat().st_size,
            "sent": len(pickle.dumps(trial_data.text)),
        }  # fmt: skip


def trials_part(trials: int, epochs: int) -> dict[str, float]:
    """MLflow's SQLite file with so many runs."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        client = MlflowClient(f"sqlite:///{file}")
        experiment = client.create_experiment("scale", artifact_location=folder)
        empty, written = file.stat().st_size, []
        for _ in range(trials):
            run = client.create_run(experiment).info.run_id
            client.log_batch(run, params=[Param(f"p{number}", "0.1") for number in range(20)])
            for epoch in range(epochs):
                metrics = [Metric(f"m{number}", 0.1, 0, epoch) for number in range(METRICS)]
                written.append(timed(partial(client.log_batch, run, metrics=metrics)))
        listed = timed(lambda: client.search_runs([experiment], order_by=["metrics.m0 DESC"], max_results=100))
        return {
            "points": trials * epochs * METRICS,
            "epoch": statistics.median(written[-50:]),
            "listed": listed,
            "bytes": file.stat().st_size - empty,
        }


PARTS = {"items": items_part, "users": users_part, "features": features_part, "trials": trials_part}


def apart(part: str, *arguments: object) -> dict[str, float]:
    """A part in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps([part, *arguments])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{part} {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def slope(sizes: list[int], values: list[float]) -> str:
    """The exponent between the first and the last size."""
    if len(sizes) < 2 or min(values) <= 0:
        return ""
    return f"{math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0]):.2f}"


def show(
    console: Console, title: str, sizes: list[int], rows: dict[str, tuple[list[float], Callable[[float], str]]]
) -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for name in ("", *(f"{size:,}" for size in sizes), "slope"):
        table.add_column(name, justify="right" if name else "left")
    for name, (values, form) in rows.items():
        table.add_row(name, *map(form, values), slope(sizes, values))
    console.print(table)
    console.print()


def seconds(value: float) -> str:
    return f"{1000 * value:,.3g} ms" if value < 1 else f"{value:,.3g} s" if value < 7200 else f"{value / 3600:,.3g} h"


def size_text(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:,.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def show_part(console: Console, part: str, sizes: list[int], found: list[dict[str, float]], title: str) -> None:
    """Every figure of a part; those called seconds are times, those of bytes are sizes."""
    times = {"step", "case", "device seconds", "batch", "import seconds", "pack", "ready", "epoch", "listed"}
    plain = {"train share", "valid share", "interactions", "points"}
    rows = {}
    for name in found[0]:
        if name not in ("flops", "bandwidth"):
            form = seconds if name in times else (lambda value: f"{value:,.3g}") if name in plain else size_text
            rows[name] = ([one[name] for one in found], form)
    show(console, f"{part}: {title}", sizes, rows)


def movie_book() -> dict[str, Workload]:
    """The published size at the paper's widths, with made-up histories; exact and sampled."""
    data = made_up(1000, 2000, 200)
    found = {}
    for name, settings in OBJECTIVES.items():
        size = workload(configuration(batch_size=256, **settings), data)
        size = size.grown(MOVIE_BOOK["items"] / 1000, "items")
        cases = tuple(MOVIE_BOOK["cases"] * count / 200 for count in size.cases)
        found[name] = replace(
            size, frozen=(WIDTH, WIDTH), rows=MOVIE_BOOK["sequences"], cases=cases, kept_cases=MOVIE_BOOK["cases"]
        )
    return found


def carried(console: Console, here: Device, shares: dict[str, tuple[float, float]], price: float, epoch: float) -> None:
    """Tables of the model: by items, by users, by trials and GPUs."""
    sizes = movie_book()
    points = [10_000, 100_000, 1_000_000, 10_000_000]
    rows: dict[str, tuple[list[float], Callable[[float], str]]] = {}
    for name, base in sizes.items():
        grown = [base.grown(items / base.num_items, "items") for items in points]
        train, valid = shares[name]
        rows[f"{name}: operations of an epoch"] = ([sum(w.flops for w in scaling.training(s).values()) for s in grown],
                                                   lambda value: f"{value:.2g}")  # fmt: skip
        rows[f"{name}: epoch here, one core"] = ([scaling.train_seconds(s, here) / train for s in grown], seconds)
        for device in (H200, RTX4090):
            rows[f"{name}: epoch, roof of one {device.name}"] = (
                [scaling.train_seconds(s, device) for s in grown],
                seconds,
            )
        rows[f"{name}: a trial's own memory that grows"] = ([scaling.trial_bytes(s) for s in grown], size_text)
        if name == "exact":
            rows["validation here, one core"] = ([scaling.valid_seconds(s, here) / valid for s in grown], seconds)
            rows["validation, roof of one H200"] = ([scaling.valid_seconds(s, H200) for s in grown], seconds)
            rows["frozen tables, fp32"] = ([scaling.frozen_bytes(s) for s in grown], size_text)
            rows["frozen tables, packed fp16"] = (
                [scaling.frozen_bytes(replace(s, row_bytes=2)) for s in grown],
                size_text,
            )
            rows["node with 8 trials on GPUs, copied"] = (
                [scaling.host_bytes(s, 8, device=H200) for s in grown],
                size_text,
            )
            rows["checkpoint"] = ([scaling.checkpoint_bytes(s) for s in grown], size_text)
        halved = [replace(s, row_bytes=2, mapped=True) for s in grown]
        rows[f"{name}: one trial on a GPU, packed"] = ([scaling.device_bytes(s) for s in halved], size_text)
    show(console, "carried: items, 58,515 sequences of 12, 7,644 validation cases, widths 256, 512, 512", points, rows)

    points = [1_000_000, 10_000_000, 100_000_000, 1_000_000_000]
    base = sizes["sampled"]
    grown = [base.grown(count / MEAN_LENGTH / base.rows, "users") for count in points]
    fixed = [replace(size, kept_cases=2000, cases=(730, 1270)) for size in grown]
    rows = {
        "training rows": ([s.rows for s in grown], lambda value: f"{value:,.3g}"),
        "epoch here, one core": ([scaling.train_seconds(s, here) / shares["sampled"][0] for s in grown], seconds),
        "epoch, roof of one H200": ([scaling.train_seconds(s, H200) for s in grown], seconds),
        "validation here, a case per 8 rows": (
            [scaling.valid_seconds(s, here) / shares["sampled"][1] for s in grown],
            seconds,
        ),
        "the same, valid_cases=2000": ([scaling.valid_seconds(s, here) / shares["sampled"][1] for s in fixed], seconds),
        "histories in the object store": ([scaling.history_bytes(s) for s in fixed], size_text),
        "tables of one trial, on its device": ([scaling.sequence_bytes(s) for s in fixed], size_text),
    }
    show(console, "carried: interactions, sampled, 100,782 items", points, rows)

    from sweeps.costs.halving_simulation import simulate

    points = [25, 100, 1000, 10_000]
    rows = {}
    for gpus in (1, 4, 16):
        walls = [
            simulate([epoch] * count, start_seconds=5, slots=gpus, epochs=100, rungs=(3, 9, 27, 81)).wall
            for count in points
        ]
        rows[f"{gpus} GPUs"] = (walls, seconds)
    busy = [
        simulate([epoch] * count, start_seconds=5, slots=1, epochs=100, rungs=(3, 9, 27, 81)).busy for count in points
    ]
    rows[f"money at {price:g} per GPU-hour (an example)"] = (
        [price * b / 3600 for b in busy],
        lambda value: f"{value:,.2f}",
    )
    title = f"carried: trials of at most 100 epochs of {epoch:g} s with halving (grace 3, factor 3), one per GPU, 5 s to start"
    show(console, title, points, rows)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="items,users,features,trials,carried")
    parser.add_argument("--items", type=numbers, default=[4000, 16000, 64000])
    parser.add_argument("--users", type=numbers, default=[5000, 20000, 80000])
    parser.add_argument("--feature-items", type=numbers, default=[20000, 80000])
    parser.add_argument("--trials", type=numbers, default=[10, 40, 160])
    parser.add_argument("--epochs", type=int, default=6, help="of those trials")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu-hour", type=float, default=3.0, help="price of one in the example of money")
    parser.add_argument("--epoch", type=float, default=1.8, help="seconds of an epoch in the table of trials")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(PARTS[given.one[0]](*given.one[1:])))
        return
    parts = given.parts.split(",")
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    found: dict[str, list[dict[str, float]]] = {}
    # Only until `items` has measured them.
    here, shares = Device("here", 60e9, 10e9, 0, padded=False), dict.fromkeys(OBJECTIVES, (0.3, 0.1))
    if "items" in parts:
        for objective in OBJECTIVES:
            found[objective] = [apart("items", n, objective, given.batch_size, given.rounds) for n in given.items]
            show_part(
                console, objective, given.items, found[objective], f"items, batches of {given.batch_size}, one core"
            )
            last = found[objective][-1]
            shares[objective] = (last["train share"], last["valid share"])
        here = replace(here, flops=last["flops"], bandwidth=last["bandwidth"])
        console.print(f"ceilings of one core: {here.flops / 1e9:.0f} GFLOP/s, {here.bandwidth / 1e9:.1f} GB/s\n")
    if "users" in parts:
        found["users"] = [apart("users", n) for n in given.users]
        show_part(console, "users", given.users, found["users"], "histories of 9 to 15 items")
    if "features" in parts:
        for kind in ("copied", "fp32", "fp16"):
            found[kind] = [apart("features", n, kind) for n in given.feature_items]
            show_part(console, f"features, {kind}", given.feature_items, found[kind], "items, one table 512 wide")
    if "trials" in parts:
        found["trials"] = [apart("trials", n, given.epochs) for n in given.trials]
        show_part(
            console, "trials", given.trials, found["trials"], f"trials of {given.epochs} epochs in MLflow's SQLite"
        )
    if "carried" in parts:
        carried(console, here, shares, given.gpu_hour, given.epoch)
    write(found, given.json)


if __name__ == "__main__":
    main()
