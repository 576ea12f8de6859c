"""What a GPU makes of a training epoch of Movie-Book's size: each part against its floor.

    python benchmarks/gpu.py [--minutes 9] [--parts ceilings,sweep] [--json out.json]
    python benchmarks/gpu.py --dry                  every part at toy shapes, on any machine, in less than a minute

Needs torch, numpy, pandas, pyarrow, pydantic, safetensors and pyyaml. Data is made up: 58,515 sequences of 11.98 items on
average, 36,845 + 63,937 items, ids 256 and features 512 wide. Parts run in the order below until the minutes are spent; one
that fails is reported, and the next one runs.

    ceilings    a large half-precision matrix product and a large copy: what the floors are computed from
    accuracy    gradients of the objective's half-precision passes against the equations in float64
    operations  operations of a step on tensors, single encoders against grouped ones
    waits       what makes the host wait for the device within a step
    steps       a step with single encoders, with grouped ones, and replayed as a CUDA graph
    epoch       two epochs of training and the validation of 7,644 cases on stored candidates and all items
    kernel      the objective of a step, plain against the Triton kernel
    sweep       the objective of a step, by rows of a chunk, columns of a block and type of the operands
    busy        share of the time in which the device computes
    processes   sequences per second of one process against two that share the device
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_bench import DRY, REAL, Bench, Shape
from benchmarks.gpu_step import Step, half_pass, kernel_pass, worst_gradient
from llmemf.models import attention
from llmemf.objective_half import CHUNK_ROWS, chunk_shape
from llmemf.training import Trainer

CHILD_SECONDS = (1.0, 10.0)
"""How long a child trains, on a CPU and on a GPU."""
ALWAYS_VIEWS = {
    "alias", "as_strided", "detach", "empty", "empty_like", "empty_strided", "expand", "lift_fresh", "new_empty",
    "permute", "promote_types", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind",
    "unflatten", "unsqueeze", "view", "_unsafe_view",
}  # fmt: skip
"""Operations that launch nothing."""


def ceilings(bench: Bench) -> dict[str, float]:
    n, found = bench.shape.product, {}
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(n, n, device=bench.device).to(dtype) for _ in range(2))
        found[f"TFLOP/s, {name}"] = 2 * n**3 / bench.seconds(lambda a=a, b=b: a @ b) / 1e12
    source = torch.randint(0, 255, (bench.shape.copied,), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    found["TB/s, copy"] = 2 * source.numel() / bench.seconds(lambda: target.copy_(source)) / 1e12
    return found


def kernel_is_there(bench: Bench) -> bool:
    """Whether the Triton kernel can run: on a GPU, or anywhere through Triton's interpreter."""
    from llmemf import objective_kernel

    return objective_kernel.why_not(bench.device) is None


def accuracy(bench: Bench) -> dict[str, float]:
    small = Bench(bench.device, Shape(**{**vars(bench.shape), "num_x": 401, "num_y": 611, "batch": 16}))
    step = Step.make(small)
    found = {
        "gradients, fp32": worst_gradient(step, None),
        "gradients, fp16 operands": worst_gradient(step, half_pass(step, torch.float16)),
        "gradients, bf16 operands": worst_gradient(step, half_pass(step, torch.bfloat16)),
    }
    if kernel_is_there(bench):
        found["gradients, kernel"] = worst_gradient(step, kernel_pass(step))
    return found


class Operations(TorchDispatchMode):
    """How many operations on tensors run that are not mere views."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function._schema.name.partition("::")[2] not in ALWAYS_VIEWS
        return function(*args, **(kwargs or {}))


def operations(bench: Bench) -> dict[str, float]:
    """Counted without dropout, which a CPU composes of several operations, in fp32, as all positions are computed."""
    counts: dict[str, int] = {}
    before, packed = attention.Layout, attention.Layout
    attention.Layout = lambda real: packed(real, packed=False)
    try:
        for name, choice in (("single", "no"), ("grouped", "yes")):
            trainer = bench.trainer(group_encoders=choice, dropout=0.0, objective_precision="fp32")
            tower, index = trainer.model.towers[0], torch.arange(bench.shape.batch, device=bench.device)
            tower.fix_row_counts(trainer.train_sequences, index, bench.shape.batch)
            trainer.step(index)
            with Operations() as whole:
                trainer.step(index)
            counts[f"operations of a step, {name} encoders"] = whole.count
            batch = trainer.train_sequences.batch(index)
            trainer.optimizer.zero_grad(set_to_none=True)
            vectors = {s: [t.input_rows(v.items) for t in tower.tables.values()] for s, v in batch.views.items()}
            with Operations() as encoders:
                sum(state.sum() for own in tower._states_of(batch.views, vectors).values() for state in own).backward()
            counts[f"operations of the encoders, {name}"] = encoders.count
    finally:
        attention.Layout = before
    step, encoders = (
        counts[f"{what}single{end}"] / counts[f"{what}grouped{end}"]
        for what, end in (("operations of a step, ", " encoders"), ("operations of the encoders, ", ""))
    )
    return {**counts, "step, single / grouped": step, "encoders, single / grouped": encoders}


def batches(trainer: Trainer, count: int) -> list[Tensor]:
    """So many full batches, looked ahead at as an epoch's."""
    order = torch.randperm(len(trainer.train_sequences), device=trainer.device)
    trainer.model.plan_epoch(trainer.train_sequences, order)
    size = min(trainer.config.batch_size, len(order))
    return [order.roll(-number * size)[:size] for number in range(count)]


def step_seconds(bench: Bench, trainer: Trainer) -> float:
    """Time of a step among several that nothing waits between."""
    take, count = trainer._graphed or trainer.step, bench.shape.steps
    chosen = batches(trainer, count + 8)
    for index in chosen[:8]:  # warm-up, and a recording where there is one
        take(index)
    bench.wait()
    began = time.perf_counter()
    for index in chosen[8:]:
        take(index)
    bench.wait()
    return (time.perf_counter() - began) / count


def steps(bench: Bench) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, changes in (
        ("single encoders", {"group_encoders": "no"}),
        ("grouped encoders", {"group_encoders": "yes"}),
        ("grouped, CUDA graph", {"group_encoders": "yes", "cuda_graphs": True}),
    ):
        trainer = bench.trainer(**changes)
        found[f"ms per step, {name}"] = 1000 * step_seconds(bench, trainer)
        if changes.get("cuda_graphs"):
            eager = "no GPU" if trainer._graphed is None else trainer._graphed.why_eager
            found["graph"] = "replayed" if eager is None else f"eager: {eager}"
        del trainer
    return found


def waits(bench: Bench) -> dict[str, str]:
    """torch reports what synchronises; on a CPU nothing does."""
    if not bench.on_gpu:
        return {"waits": "no GPU"}
    found = {}
    for precision in ("bf16", "fp32"):
        trainer = bench.trainer(group_encoders="yes", precision=precision)
        chosen = batches(trainer, 4)
        for index in chosen[:3]:
            trainer.step(index)
        bench.wait()
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.step(chosen[3])
            found[f"waits, {precision}"] = "none"
        except RuntimeError as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found[f"waits, {precision}"] = f"{Path(place.filename).name}:{place.lineno}: {place.line}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def epoch_floor(bench: Bench) -> float:
    """Seconds: the objective in one pass, Adam and the id table's traffic, the encoders at 30 % of the product's rate."""
    shape = bench.shape
    pairs = shape.sequences * (4.95 * shape.num_x + 5.03 * shape.num_y + 10.98 * shape.num_items)
    parameters, count = shape.num_items * shape.id_width, shape.sequences / shape.batch
    encoders = shape.sequences * 20.96 * 3 * 12 * (shape.id_width**2 + 2 * shape.feature_width**2)
    moved = parameters * (28 + 50) * count
    return pairs * shape.flops_per_pair() / bench.rate() + moved / bench.bandwidth() + encoders / (0.3 * bench.rate())


def best_settings(bench: Bench) -> dict[str, object]:
    """Graphs where `steps` found that they work and are faster."""
    found = bench.found.get("steps", {})
    graphs = found.get("graph") == "replayed" and (
        found["ms per step, grouped, CUDA graph"] < found["ms per step, grouped encoders"]
    )
    return {"group_encoders": "yes", "cuda_graphs": graphs}


def epoch(bench: Bench) -> dict[str, float | str]:
    trainer, floor = bench.trainer(**best_settings(bench)), epoch_floor(bench)
    took = []
    for number in (1, 2):
        bench.wait()
        began = time.perf_counter()
        loss = trainer._train_epoch(number)
        bench.wait()
        took.append(time.perf_counter() - began)
    validation = []
    for _ in range(2):
        began = time.perf_counter()
        metrics = trainer._validate()
        bench.wait()
        validation.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_reserved(bench.device) / 2**30 if bench.on_gpu else math.nan
    return {
        "seconds, first epoch": took[0], "seconds, second epoch": took[1], "goal": 1.8, "floor": floor,
        "floor / epoch": floor / took[1], "seconds, validation": validation[1],
        "validation / epoch": validation[1] / (took[1] + validation[1]), "train loss": loss,
        "validation MRR": metrics["val/mrr"], "GiB reserved": memory,
        "settings": ", ".join(f"{key} = {value}" for key, value in best_settings(bench).items()),
    }  # fmt: skip


def objective_row(bench: Bench, step: Step, make_pass: Callable | None) -> tuple[float, float]:
    """Milliseconds of a step's objective, and its floor over them."""
    took = bench.seconds(lambda: step.take(make_pass))
    return 1000 * took, step.pairs() * bench.shape.flops_per_pair() / bench.rate() / took


def kernel(bench: Bench) -> dict[str, float | str]:
    step, found = Step.make(bench), {}
    found["ms, plain"], found["floor / plain"] = objective_row(bench, step, half_pass(step, torch.float16))
    from llmemf import objective_kernel

    if (reason := objective_kernel.why_not(bench.device)) is not None:
        return {**found, "kernel": reason}
    plain = step.take(half_pass(step, torch.float16))
    wanted = [leaf.grad.clone() for leaf in step.leaves()]
    loss = step.take(kernel_pass(step))
    apart = max(float((leaf.grad - w).norm() / w.norm()) for leaf, w in zip(step.leaves(), wanted))
    found["ms, kernel"], found["floor / kernel"] = objective_row(bench, step, kernel_pass(step))
    return {
        **found, "plain / kernel": found["ms, plain"] / found["ms, kernel"],
        "kernel against plain, loss": float((loss - plain).abs() / plain.abs()),
        "kernel against plain, gradients": apart,
    }  # fmt: skip


def sweep(bench: Bench) -> dict[str, float | str]:
    step, found = Step.make(bench), {}
    step_columns = bench.shape.num_items
    height, width = chunk_shape(len(step.targets[2]), step_columns, bench.device)
    found["chosen"] = f"{height} rows, {width} columns"
    for dtype, name in ((torch.float16, "fp16"), (torch.bfloat16, "bf16")):
        for rows in (128, 256, 512, 1024, 2048):
            fitting = max(256, width * CHUNK_ROWS // rows // 256 * 256)
            for columns in (fitting, 4 * fitting, step_columns):
                if columns <= step_columns:
                    took, share = objective_row(bench, step, half_pass(step, dtype, (rows, columns)))
                    found[f"ms, {name}, {rows} rows, {columns} columns"] = took
                    found[f"floor / it, {name}, {rows} rows, {columns} columns"] = share
    return found


def busy(bench: Bench) -> dict[str, float]:
    """Sum of the kernels' times over the time of some steps; on a CPU that of the operations."""
    from torch.profiler import ProfilerActivity, profile

    trainer = bench.trainer(**best_settings(bench))
    take, chosen = trainer._graphed or trainer.step, batches(trainer, 8 + bench.shape.steps)
    for index in chosen[:8]:
        take(index)
    bench.wait()
    wanted = [ProfilerActivity.CUDA if bench.on_gpu else ProfilerActivity.CPU]
    began = time.perf_counter()
    for index in chosen[8:]:
        take(index)
    bench.wait()
    plain = time.perf_counter() - began
    with profile(activities=wanted) as profiled:
        for index in chosen[8:]:
            take(index)
        bench.wait()
    events = profiled.key_averages()
    name = "self_device_time_total" if bench.on_gpu else "self_cpu_time_total"
    computed = sum(getattr(event, name) for event in events) / 1e6
    largest = sorted(events, key=lambda event: -getattr(event, name))[:12]
    return {
        "kernel seconds / wall seconds": computed / plain, "ms per step, computing": 1000 * computed / bench.shape.steps,
        "ms per step, wall": 1000 * plain / bench.shape.steps,
        **{f"ms per step, {event.key[:60]}": getattr(event, name) / 1000 / bench.shape.steps for event in largest},
    }  # fmt: skip


def child_command(bench: Bench) -> list[str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(CHILD_SECONDS[bench.on_gpu])]
    return [*command, "--device", str(bench.device), *(["--dry"] if bench.shape is DRY else [])]


def together(command: Sequence[str], count: int) -> float:
    """Sequences per second of so many children that train at the same time: they get ready, then start on a word."""
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for child in children:
            assert child.stdout.readline().strip() == "ready", "a child did not get ready"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        return sum(float(child.stdout.readline()) for child in children)
    finally:
        for child in children:
            child.stdin.close()
            child.wait(timeout=60)


def processes(bench: Bench) -> dict[str, float]:
    """One child alone, then two that share the device."""
    one, two = (together(child_command(bench), count) for count in (1, 2))
    return {"sequences/s, one process": one, "sequences/s, two processes": two, "two / one": two / one}


def child(bench: Bench, seconds: float) -> None:
    """Train until the time is over, and print the sequences per second."""
    trainer = bench.trainer(group_encoders="yes")
    if bench.on_gpu:
        torch.cuda.set_per_process_memory_fraction(0.5, bench.device)
    for index in batches(trainer, 4):
        trainer.step(index)
    bench.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    began, trained = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for index in batches(trainer, 10):
            trainer.step(index)
            trained += len(index)
        bench.wait()
    print(trained / (time.perf_counter() - began), flush=True)


PARTS: dict[str, Callable[[Bench], dict]] = {
    part.__name__: part
    for part in (ceilings, accuracy, operations, waits, steps, epoch, kernel, sweep, busy, processes)
}


def shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def run(bench: Bench, wanted: Sequence[str], minutes: float, path: Path | None) -> dict[str, dict]:
    """Run parts in order until the time is spent; what was found is written after each."""
    began = time.perf_counter()
    bench.found["machine"] = {
        "device": torch.cuda.get_device_name(bench.device) if bench.on_gpu else f"CPU, {platform.machine()}",
        "cores": os.cpu_count(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"),
        "shapes": "toy" if bench.shape is DRY else "Movie-Book",
    }  # fmt: skip
    print(", ".join(f"{name}: {value}" for name, value in bench.found["machine"].items()))
    for name in wanted:
        started = time.perf_counter()
        if started - began > 60 * minutes:
            bench.found[name] = {"left out": f"{minutes:g} minutes are spent"}
        else:
            try:
                bench.found[name] = PARTS[name](bench)
            except Exception as error:  # noqa: BLE001 - the other parts are to run
                traceback.print_exc(file=sys.stdout)
                bench.found[name] = {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
            if bench.on_gpu:
                torch.cuda.empty_cache()
        print(f"\n{name} ({time.perf_counter() - started:.1f} s)", flush=True)
        for key, value in bench.found[name].items():
            print(f"  {key:<64} {shown(value)}", flush=True)
        if path is not None:
            path.write_text(json.dumps(bench.found, indent=1))
    return bench.found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="names from the list above, in the order wanted")
    parser.add_argument("--minutes", type=float, default=9.0, help="start no part after so many minutes")
    parser.add_argument("--dry", action="store_true", help="toy shapes, on a CPU where there is no GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write what was found, after every part")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    wanted = given.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"unknown parts {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    if given.device == "cpu" and not given.dry:
        parser.error("there is no GPU here: --dry runs every part at toy shapes")
    bench = Bench(torch.device(given.device), DRY if given.dry else REAL)
    if given.child is not None:
        child(bench, given.child)
        return 0
    found = run(bench, wanted, given.minutes, given.json)
    return 1 if any("failed" in part for part in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
