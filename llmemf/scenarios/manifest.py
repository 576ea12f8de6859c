"""What a prepared scenario says of itself: `manifest.json` in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from llmemf.errors import InputError
from llmemf.io import json_hash, read_json_model

FORMAT = 1
MANIFEST = "manifest.json"
REMEDY = "import the scenario again"


class Manifest(BaseModel):
    """What `manifest.json` of a scenario says."""

    model_config = ConfigDict(frozen=True)

    format: int
    name: str
    domains: tuple[str, str]
    num_x: int
    num_items: int
    num_users: int
    sequences: dict[str, int]
    source: dict[str, Any]
    hashes: dict[str, str]
    fingerprint: str


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared scenario.

    Raises:
        InputError: there is none, or it is damaged or of another format.
    """
    try:
        return read_json_model(folder / MANIFEST, Manifest, REMEDY, version=FORMAT)
    except FileNotFoundError:
        raise InputError(f"{folder} holds no scenario ({MANIFEST} is missing)") from None


def fingerprint_of(domains: Iterable[str], hashes: dict[str, str]) -> str:
    """SHA-256 over domain names and part hashes."""
    return json_hash([list(domains), hashes])
