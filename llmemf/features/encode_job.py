"""A run of CLIP over the items of a scenario: its content, its identity, its shards, and its matrix at the end.

The identity holds all that decides about the rows apart from the items' contents (model, weights, precision, pooling,
source of the text). Shards carry it, so that rows of different origin are never mixed, and it stands in the manifest of
the finished matrix.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from llmemf.errors import InputError
from llmemf.features.clip import PADDING_MULTIPLE, Clip
from llmemf.features.imported import check_encoder
from llmemf.features.item_sources import Source
from llmemf.features.matrix import CLIP, FeatureMatrix
from llmemf.features.shards import ShardStore, contents_hash
from llmemf.scenarios.scenario import Scenario

SHARD_SIZE = 2048
BATCH_SIZE = {"cpu": 32, "cuda": 512}
POOLING = "fewest pieces of equal length, each normalised, mean, normalised"
METHODS = {
    "text": "CLIP text encoder (open_clip), frozen, rows of length 1",
    "image": "CLIP image encoder (open_clip), frozen, rows of length 1",
}
VERSIONS = ("torch", "open_clip", "device")
"""Facts that keep shards apart, but whose change does not make a finished matrix out of date."""


@dataclass(frozen=True)
class Job:
    """One kind of content of one scenario on its way to one matrix; can be sent to other machines.

    Attributes:
        scenario: its items and its folder.
        encoder: name under which the matrix is found.
        source: the items' content.
        store: where the shards go, and the identity that they carry.
        batch_size: images, or pieces of text, that the model gets at once.
        workers: processes that decode or tokenise; 0 does it in the process of the model.
    """

    scenario: Scenario
    encoder: str
    source: Source
    store: ShardStore
    batch_size: int
    workers: int

    @property
    def name(self) -> str:
        return f"{self.source.kind}.{self.encoder}"

    def difference(self) -> list[str] | None:
        """What differs between the finished matrix and what this job would make; None if there is no such matrix."""
        folder = self.store.folder.with_name(self.name)
        if not (folder / "manifest.json").exists():
            return None
        details = FeatureMatrix.load(folder).details
        identity = self.store.identity
        changed = [key for key in identity if key not in VERSIONS and details.get(key) != identity[key]]
        if details.get("source_sha256") != self.source_hash():
            changed.append("source_sha256")
        return changed

    def source_hash(self) -> str:
        """SHA-256 over the content of all items."""
        return contents_hash(self.source.digests(range(self.scenario.num_items)))

    def with_content(self, numbers: Sequence[int]) -> int:
        """How many items of these shards have something to encode."""
        return sum(bool(self.source.contents[item]) for number in numbers for item in self.store.items(number))

    def finish(self, *, overwrite: bool = False) -> FeatureMatrix:
        """Make the matrix of all shards, write it below the scenario's folder, and remove the shards.

        Raises:
            InputError: a shard is missing, no item has a row, or the matrix cannot be written.
        """
        shards = [self.store.read(number) for number in range(self.store.count)]
        if None in shards:
            raise InputError(
                f"shard {shards.index(None)} of {self.name} is not in {self.store.folder}: with a cluster, the data root "
                "must be storage that all its machines share; run the same command again"
            )
        parts = [shard for shard in shards if shard is not None]
        problems = {item: why for part in parts for item, why in part.problems.items()}
        has = np.concatenate([part.has for part in parts])
        if not has.any():
            first = f"; first: {self._problem(*next(iter(problems.items())))}" if problems else ""
            raise InputError(f"scenario {self.scenario.name!r}: none of its {self.source.kind}s can be encoded{first}")
        rows = np.zeros((len(has), max(part.rows.shape[1] for part in parts)), np.float32)
        rows[has] = np.concatenate([part.rows[part.has] for part in parts if part.has.any()])
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(part.counts)
        details = {"method": METHODS[self.source.kind], "family": CLIP} | self.store.identity | self.source.facts
        details |= {"batch_size": self.batch_size, "shard_size": self.store.size}
        details["source_sha256"] = contents_hash(np.concatenate([part.digests for part in parts]))
        details |= counts
        if self.source.kind == "image":
            details["items_with_unreadable_image"] = len(problems)
            details["unreadable_images"] = [self._problem(item, why) for item, why in problems.items()]
        matrix = FeatureMatrix(self.source.kind, self.encoder, rows, has, self.scenario.items_hash(), details)
        matrix.save(self.scenario, overwrite=overwrite)
        self.store.remove()
        return matrix

    def _problem(self, item: int, why: str) -> str:
        path = os.path.relpath(self.source.contents[item], self.store.folder.parents[1])
        return f"item {item} ({self.scenario.items.external_id[item]}), {path}: {why}"


def make_job(
    scenario: Scenario,
    source: Source,
    clip: Clip,
    *,
    encoder: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    shard_size: int = SHARD_SIZE,
) -> Job:
    """Put together what is needed to encode one kind of content.

    Args:
        scenario: saved on disk.
        source: what to encode.
        clip: the model that will do it; on other machines one with the same facts.
        encoder: name of the features, `clip-<model>` by default; that of text gets its source (`-title`) behind it.
        batch_size: None takes 32 on a CPU and 512 on a GPU.
        workers: None takes all cores but one, 16 at most.
        shard_size: items per shard.

    Raises:
        InputError: an unusable name, or a scenario that is not saved.
    """
    name = encoder_name(clip.settings.model, source, encoder)
    device = torch.device(clip.settings.device).type
    store = ShardStore(
        folder=(scenario.location / "features" / f".{source.kind}.{name}.shards").resolve(),
        identity=identity(clip, source),
        num_items=scenario.num_items,
        size=shard_size,
    )
    return Job(
        scenario,
        name,
        source,
        store,
        batch_size or BATCH_SIZE[device],
        min(16, max(1, (os.cpu_count() or 1) - 1)) if workers is None else workers,
    )


def encoder_name(model: str, source: Source, encoder: str | None = None) -> str:
    """`clip-ViT-B-32` for images, `clip-ViT-B-32-title+llm` for text: sources stay apart and lie side by side."""
    if encoder is not None:
        check_encoder(encoder)
    if model.startswith("local-dir:"):
        model = Path(model.removeprefix("local-dir:")).resolve().name
    base = encoder or "clip-" + re.sub(r"[^A-Za-z0-9_-]+", "-", model.removeprefix("hf-hub:")).strip("-")
    return f"{base}-{source.facts['source']}" if source.kind == "text" else base


def identity(clip: Clip, source: Source) -> dict:
    """All that decides about the rows, apart from the items' contents."""
    facts = dict(clip.facts)
    preprocess, context_length = facts.pop("preprocess"), facts.pop("context_length")
    facts |= {
        "kind": source.kind,
        "precision": clip.settings.precision,
        "device": torch.device(clip.settings.device).type,
        "source": source.facts["source"],
    }
    if source.kind == "image":
        return facts | {"preprocess": preprocess}
    padding = f"longest of the batch, multiple of {PADDING_MULTIPLE}" if clip.shortens else "full context"
    return facts | {"context_length": context_length, "pooling": POOLING, "padding": padding}
