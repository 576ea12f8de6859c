"""CLIP encoding against a plain open_clip loop over the same items, and against the model alone.

    python benchmarks/encode.py [--images FOLDER] [--count 128] [--model ViT-B-32] [--device cpu] [--workers 1]
                                [--json out.json]

The weights are random: they change no time. Three ways run in turn, `--repeats` times each:

- plain: one process; decode and transform a batch with open_clip's transform, encode it, next batch; texts are padded to
  the whole context, as open_clip's tokenizer does;
- ours: `llmemf.features.encoding.encode_shards`, with shards written to disk;
- model: the same batches, decoded before the clock starts: no way of reading images can be faster.

ours / plain, items per second, is to be at least 1 on a CPU; by processor time says the same on a machine that others use
too. How busy the device is kept: seconds of model over seconds of ours.
"""

from __future__ import annotations

import argparse
import logging
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from figures import write
from PIL import Image
from rich.console import Console
from rich.table import Table

from llmemf.features.clip import Clip, ClipSettings, hash_weights
from llmemf.features.encode_job import BATCH_SIZE, Job, make_job
from llmemf.features.encoding import encode_shards
from llmemf.features.item_sources import image_source, text_source
from llmemf.features.text_pieces import PieceTokenizer
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

SIDE = 500
"""Pixels of the made-up photos: about what a shop's product images have."""


def random_clip(model: str, device: str, precision: str) -> Clip:
    """A model of open_clip with random weights."""
    import open_clip

    torch.manual_seed(0)
    # It warns of random weights, which are meant here.
    logging.disable(logging.WARNING)
    module, _, preprocess = open_clip.create_model_and_transforms(model, device=device)
    module.eval().requires_grad_(False)
    tokenizer = PieceTokenizer(open_clip.get_tokenizer(model), module.context_length)
    facts = {
        "weights_sha256": hash_weights(module),
        "context_length": module.context_length,
        "preprocess": dict(module.visual.preprocess_cfg),
    }
    return Clip(ClipSettings(model, "random", device, precision), module, preprocess, tokenizer, facts)


def make_scenario(root: Path, count: int, images: Path | None) -> Scenario:
    """Items with titles of four to twelve words and a photo each: those of a folder over and over, or made-up ones."""
    rng = np.random.default_rng(0)
    (root / "photos").mkdir()
    found = sorted(images.rglob("*.jpg")) if images else []
    if images and not found:
        sys.exit(f"error: {images} holds no .jpg: name a folder of photos with --images, or leave it out")
    paths = []
    for number in range(count):
        path = root / "photos" / f"{number}.jpg"
        if found:
            path.write_bytes(found[number % len(found)].read_bytes())
        else:
            coarse = rng.integers(0, 255, (25, 25, 3), np.uint8)
            Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    words = ["kettle", "steel", "garden", "novel", "deluxe", "with", "handle", "of", "the", "blue", "large", "edition"]
    split = Sequences.from_rows([0], [[0, count // 2]])
    scenario = Scenario(
        name="benchmark",
        domains=("x", "y"),
        num_x=count // 2,
        items=pd.DataFrame(
            {
                "external_id": [str(number) for number in range(count)],
                "title": [" ".join(rng.choice(words, rng.integers(4, 13))) for _ in range(count)],
                "description": "",
                "image": paths,
            }
        ),
        user_ids=np.array(["u"]),
        train=split,
        valid=split,
        test=split,
        candidates={name: np.array([[count // 2 + 1]], np.int32) for name in ("valid", "test")},
    )
    return Scenario.load(scenario.save(root))


def plain(job: Job, clip: Clip) -> None:
    """What open_clip's documentation shows, in batches."""
    tokenizer = clip.tokenizer.tokenizer
    for at in range(0, len(job.source.contents), job.batch_size):
        part = job.source.contents[at : at + job.batch_size]
        if job.source.kind == "text":
            clip.encode_text(tokenizer(list(part))).cpu()
        else:
            clip.encode_image(torch.stack([clip.preprocess(Image.open(path)) for path in part])).cpu()


def prepared(job: Job, clip: Clip) -> list[torch.Tensor]:
    """The batches of the plain loop, ready on the device."""
    batches = []
    for at in range(0, len(job.source.contents), job.batch_size):
        part = job.source.contents[at : at + job.batch_size]
        if job.source.kind == "text":
            batch = clip.tokenizer.tokenizer(list(part))
        else:
            batch = torch.stack([clip.preprocess(Image.open(path)) for path in part])
        batches.append(batch.to(clip.settings.device))
    return batches


def seconds(run, device: str) -> tuple[float, float]:
    """Seconds on the clock, and seconds of all processors in this process and its workers."""
    start, used = time.perf_counter(), processor_seconds()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, processor_seconds() - used


def processor_seconds() -> float:
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def measure(job: Job, clip: Clip, repeats: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each way, in turn, on the clock and of processors; a first round warms up."""
    device = clip.settings.device
    batches = prepared(job, clip)
    run = clip.encode_text if job.source.kind == "text" else clip.encode_image
    ways = {
        "plain": lambda: plain(job, clip),
        "ours": lambda: list(encode_shards(job, clip, range(job.store.count))),
        "model": lambda: [run(batch).cpu() for batch in batches],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            spent = seconds(way, device)
            if repeat:
                times[name].append(spent)
    return {name: tuple(map(statistics.median, zip(*spent))) for name, spent in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of .jpg photos (made-up ones by default)")
    parser.add_argument("--count", type=int, default=128, help="items")
    parser.add_argument("--kind", choices=("image", "text", "both"), default="both")
    parser.add_argument("--model", default="ViT-B-32", help="model of open_clip")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default=None, help="fp32 on cpu, fp16 on cuda by default")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--workers", type=int, default=1, help="processes that decode, for ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    kind = torch.device(arguments.device).type
    clip = random_clip(arguments.model, arguments.device, arguments.precision or ("fp32" if kind == "cpu" else "fp16"))
    heads = ("plain items/s", "ours items/s", "model items/s", "ours / plain", "by processor time", "device busy")
    table, found = Table("", *heads, box=None), {}
    with tempfile.TemporaryDirectory() as folder:
        scenario = make_scenario(Path(folder), arguments.count, arguments.images)
        for name, source in (("images", image_source(scenario)), ("titles", text_source(scenario, "title"))):
            if arguments.kind not in (source.kind, "both"):
                continue
            batch = arguments.batch_size or BATCH_SIZE[kind]
            job = make_job(scenario, source, clip, batch_size=batch, workers=arguments.workers)
            times = measure(job, clip, arguments.repeats)
            rates = [f"{arguments.count / times[way][0]:,.1f}" for way in ("plain", "ours", "model")]
            gains = [f"{plain_ / ours:.2f}" for plain_, ours in zip(times["plain"], times["ours"])]
            busy = f"{min(1.0, times['model'][0] / times['ours'][0]):.0%}" if name == "images" else "-"
            table.add_row(name, *rates, *gains, busy)
            for way in ("plain", "model"):
                found[f"{name}, {way} / ours"] = times[way][0] / times["ours"][0]
    threads = f"{torch.get_num_threads()} threads" if kind == "cpu" else torch.cuda.get_device_name(arguments.device)
    print(f"{arguments.model}, {arguments.count} items, {clip.settings.precision} on {arguments.device} ({threads})")
    Console().print(table)
    write(found, arguments.json)


if __name__ == "__main__":
    main()
