"""What a user can set when images are fetched or taken from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from llmemf.command_line import Checked, Option


@dataclass(frozen=True)
class ImageLimits(Checked):
    """What a file of an image may be; `min_side`, since shops send one pixel where they have no image."""

    max_megabytes: Annotated[float, Option("Refuse larger files.", least=0.001)] = 10.0
    max_megapixels: Annotated[float, Option("Refuse images of more pixels, undecoded.", least=0.001)] = 40.0
    min_side: Annotated[int, Option("Refuse images with a shorter side, pixels.", least=1)] = 8

    @property
    def max_bytes(self) -> int:
        return int(self.max_megabytes * 1e6)


@dataclass(frozen=True)
class FetchSettings(ImageLimits):
    """Limits of a run; a try includes its redirects."""

    concurrency: Annotated[int, Option("Requests at once.", least=1, most=512)] = 16
    tries: Annotated[int, Option("Per address, for failures that may pass.", least=1)] = 4
    timeout: Annotated[float, Option("Seconds for one try in all.", least=0.1)] = 30.0
    allow_private: Annotated[bool, Option("Fetch from private, loopback and link-local addresses too.")] = False
    retry_failed: Annotated[bool, Option("Try all failures again, not only those that may pass.")] = False
