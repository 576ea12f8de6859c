"""Image files to pixels as open_clip wants them, in worker processes."""

from __future__ import annotations

import io
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from llmemf.features.image_content import eight_bit
from llmemf.features.item_sources import DIGEST, digest_of

PREFETCH = 2
"""Groups that wait ready, per worker."""


@dataclass(frozen=True)
class Decoded:
    """Images of a group of items.

    Attributes:
        places: (B,) which of the group's images were readable, as indices into the group.
        pixels: (B, 3, H, W) float32.
        digests: (G, 32) uint8 SHA-256 of every file of the group, zeros where it is gone.
        problems: index into the group -> why the image is not readable.
    """

    places: np.ndarray
    pixels: torch.Tensor
    digests: np.ndarray
    problems: dict[int, str]


class ImageGroups(torch.utils.data.Dataset):
    """Groups of image files, decoded one group at a time.

    Args:
        groups: paths of the image files of each group.
        transform: PIL image to (3, H, W) float32.
    """

    def __init__(self, groups: Sequence[Sequence[str]], transform: Callable) -> None:
        self.groups, self.transform = groups, transform

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Decoded:
        paths = self.groups[index]
        digests = np.zeros((len(paths), DIGEST), np.uint8)
        places, images, problems = [], [], {}
        for place, path in enumerate(paths):
            try:
                content = Path(path).read_bytes()
                digests[place] = np.frombuffer(digest_of(content), np.uint8)
                images.append(self._decode(content))
                places.append(place)
            except FileNotFoundError:
                problems[place] = "no such file"
            except Exception as error:  # noqa: BLE001 - decoders raise what they like at broken files
                problems[place] = " ".join(str(error).split()).replace(str(path), "") or type(error).__name__
        pixels = torch.stack(images) if images else torch.zeros(0)
        return Decoded(np.array(places, np.int64), pixels, digests, problems)

    def _decode(self, content: bytes) -> torch.Tensor:
        from PIL import Image, UnidentifiedImageError

        with warnings.catch_warnings():
            # Only what PIL refuses counts as a bomb (twice its limit); what it reads is read without a word.
            warnings.simplefilter("ignore")
            try:
                with Image.open(io.BytesIO(content)) as image:
                    return self.transform(eight_bit(image))
            except UnidentifiedImageError:
                raise ValueError("no image file that PIL knows" if content else "the file is empty") from None


def decode(groups: Sequence[Sequence[str]], transform: Callable, workers: int) -> Iterator[Decoded]:
    """Decode groups of images in their order, ahead of the consumer in `workers` processes (0: in this one)."""
    loader = torch.utils.data.DataLoader(
        ImageGroups(groups, transform),
        batch_size=None,
        num_workers=min(workers, len(groups)),
        prefetch_factor=PREFETCH if workers and groups else None,
        worker_init_fn=_ignore_interrupts,
    )
    yield from loader


def _ignore_interrupts(_worker: int) -> None:
    """Leave Ctrl-C to the main process, which ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
