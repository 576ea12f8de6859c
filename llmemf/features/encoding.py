"""Items of a scenario to rows of a feature matrix, by a frozen CLIP model, shard by shard.

Text: a text longer than the encoder's context is cut into pieces (`text_pieces`); its row is the mean of the pieces'
vectors of length 1, brought to length 1 again. A text of one piece has exactly the vector that open_clip gives.
Images: the vector that open_clip gives, length 1. Items without content, or with an image that cannot be read, have a
zero row and are False in `has`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from llmemf.errors import InputError
from llmemf.features.clip import PADDING_MULTIPLE, Clip
from llmemf.features.encode_job import Job, identity
from llmemf.features.image_decoding import PREFETCH, decode
from llmemf.features.item_sources import DIGEST
from llmemf.features.shards import Shard
from llmemf.features.text_pieces import PieceTokenizer, padded

DECODED_GROUP = 8
"""Images that a worker process decodes and hands over at once."""

Progress = Callable[[int], None]
"""Called with the number of items that have just been encoded."""


def encode_shards(
    job: Job, clip: Clip, numbers: Sequence[int], progress: Progress = lambda items: None
) -> Iterator[int]:
    """Encode these shards with a loaded model, write each as soon as it is complete, and yield its number.

    Raises:
        InputError: the model is not the one that the job was made for, rows are not finite, or a shard cannot be
            written.
    """
    if (made := identity(clip, job.source)) != job.store.identity:
        differs = sorted(key for key in made if made[key] != job.store.identity.get(key))
        raise InputError(f"the model loaded on {os.uname().nodename} is another one: {', '.join(differs)} differ")
    encode = _encode_texts if job.source.kind == "text" else _encode_images
    for number, shard in encode(job, clip, numbers, progress):
        finite = np.isfinite(shard.rows).all(axis=1)
        if not finite.all():
            item = job.store.items(number)[int((~finite).argmax())]
            raise InputError(
                f"item {item} of {job.name}: its row is not finite in {clip.settings.precision}; use --precision fp32"
            )
        job.store.write(number, shard)
        yield number


def _encode_texts(job: Job, clip: Clip, numbers: Sequence[int], progress: Progress) -> Iterator[tuple[int, Shard]]:
    shards = [[job.source.contents[item] for item in job.store.items(number)] for number in numbers]
    loader = torch.utils.data.DataLoader(
        _TokenisedTexts(shards, clip.tokenizer), batch_size=None, num_workers=min(job.workers, len(shards))
    )
    for number, pieces in zip(numbers, loader):
        items = job.store.items(number)
        owners = np.repeat(np.arange(len(items)), [len(some) for some in pieces])
        flat = [piece for some in pieces for piece in some]
        order = np.argsort([len(piece) for piece in flat], kind="stable")
        # An item of several pieces counts with its last one.
        is_last = np.append(owners[1:] != owners[:-1], True)
        vectors = []
        for start in range(0, len(flat), job.batch_size):
            batch = order[start : start + job.batch_size]
            multiple = PADDING_MULTIPLE if clip.shortens else None
            ids = padded([flat[place] for place in batch], clip.tokenizer.context_length, multiple)
            vectors.append(clip.encode_text(ids))
            progress(int(is_last[batch].sum()))
        rows, has = _mean_rows(vectors, owners, order, len(items))
        empty = sum(bool(job.source.contents[item]) and not some for item, some in zip(items, pieces))
        counts = {
            "pieces": len(flat),
            "items_in_several_pieces": sum(len(some) > 1 for some in pieces),
            "tokens": sum(map(len, flat)),
            "items_with_text_but_no_token": empty,
        }
        progress(empty)
        yield number, Shard(rows, has, job.source.digests(items), {}, counts)


class _TokenisedTexts(torch.utils.data.Dataset):
    """Shards of texts, each text as the token ids of its pieces."""

    def __init__(self, shards: list[list[str]], tokenizer: PieceTokenizer) -> None:
        self.shards, self.tokenizer = shards, tokenizer

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> list[list[list[int]]]:
        return [self.tokenizer(text) if text else [] for text in self.shards[index]]


def _mean_rows(
    vectors: list[torch.Tensor], owners: np.ndarray, order: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the pieces of every item, (count, D) float32 of length 1, and which items have any."""
    has = np.zeros(count, bool)
    if not vectors:
        return np.zeros((count, 0), np.float32), has
    pieces = torch.empty_like(joined := torch.cat(vectors).cpu())
    pieces[torch.from_numpy(order)] = joined
    rows = torch.zeros(count, pieces.shape[1])
    items, starts, sizes = np.unique(owners, return_index=True, return_counts=True)
    has[items] = True
    single = sizes == 1
    rows[torch.from_numpy(items[single])] = pieces[torch.from_numpy(starts[single])]
    for item, start, size in zip(items[~single], starts[~single], sizes[~single]):
        rows[item] = torch.nn.functional.normalize(pieces[start : start + size].mean(0), dim=0)
    return rows.numpy(), has


def _encode_images(job: Job, clip: Clip, numbers: Sequence[int], progress: Progress) -> Iterator[tuple[int, Shard]]:
    size = min(DECODED_GROUP, job.batch_size)
    named = [[item for item in job.store.items(number) if job.source.contents[item]] for number in numbers]
    groups = [[items[at : at + size] for at in range(0, len(items), size)] for items in named]
    paths = [[job.source.contents[item] for item in group] for some in groups for group in some]
    decoded = decode(paths, clip.preprocess, _fitting_workers(job.workers, size, clip))
    for number, some in zip(numbers, groups):
        items = job.store.items(number)
        digests, readable = np.zeros((len(items), DIGEST), np.uint8), []
        problems: dict[int, str] = {}
        waiting, vectors = [], []
        for group in some:
            part = next(decoded)
            digests[np.array(group) - items.start] = part.digests
            problems |= {group[place]: why for place, why in part.problems.items()}
            readable += [group[place] for place in part.places]
            waiting += [part.pixels] if len(part.places) else []
            while sum(map(len, waiting)) >= job.batch_size:
                pixels = torch.cat(waiting)
                vectors.append(_encode_batch(clip, pixels[: job.batch_size]))
                waiting = [rest] if len(rest := pixels[job.batch_size :]) else []
            progress(len(group))
        if waiting:
            vectors.append(_encode_batch(clip, torch.cat(waiting)))
        has = np.zeros(len(items), bool)
        has[np.array(readable, np.int64) - items.start] = True
        found = torch.cat(vectors).cpu().numpy() if vectors else np.zeros((0, 0), np.float32)
        rows = np.zeros((len(items), found.shape[1]), np.float32)
        rows[has] = found
        yield number, Shard(rows, has, digests, problems)


def _encode_batch(clip: Clip, pixels: torch.Tensor) -> torch.Tensor:
    if torch.device(clip.settings.device).type == "cuda":
        # From pinned memory the copy runs beside the decoding of the next images.
        pixels = pixels.pin_memory().to(clip.settings.device, non_blocking=True)
    return clip.encode_image(pixels)


def _fitting_workers(workers: int, group: int, clip: Clip) -> int:
    """Fewer workers where the shared memory (64 MB in a container by default) is too small for what they decode."""
    side = clip.facts["preprocess"]["size"]
    pixels = side * side if isinstance(side, int) else side[0] * side[1]
    shared = Path("/dev/shm")
    if not workers or not shared.exists():
        return workers
    return min(workers, shutil.disk_usage(shared).free // (2 * (PREFETCH + 1) * group * pixels * 3 * 4))
