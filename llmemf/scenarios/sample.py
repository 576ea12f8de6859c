"""The embedded sample: a generated two-domain scenario of films and books, the same on every machine.

About 2,000 users, 700 films and 800 books with titles, descriptions and rendered covers. How items and histories come
about, and which signal lies where, is described in `sample_process`. The hidden traits behind them never reach the disk.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmemf.errors import InputError
from llmemf.io import storage_errors
from llmemf.scenarios.candidates import draw_candidates
from llmemf.scenarios.manifest import read_manifest
from llmemf.scenarios.sample_covers import render_cover
from llmemf.scenarios.sample_process import (
    NUM_FILMS,
    NUM_ITEMS,
    NUM_USERS,
    TEST_SLOT,
    VALID_SLOT,
    Windows,
    draw_traits,
    draw_windows,
)
from llmemf.scenarios.sample_texts import write_texts
from llmemf.scenarios.scenario import Scenario, Sequences

NAME = "sample"
GENERATOR = {"version": 1, "seed": 0}
"""What decides the sample's content; the version is raised with every change of it."""

log = logging.getLogger(__name__)


def make_sample(seed: int = 0) -> tuple[Scenario, dict[str, bytes]]:
    """Generate the sample in memory.

    Returns:
        The scenario, and its cover images as JPEG by their path in the item table.
    """
    traits = draw_traits(seed)
    windows = draw_windows(traits, seed)
    rng = np.random.default_rng([seed, 3])
    titles, descriptions = write_texts(traits.theme, traits.second_theme, NUM_FILMS, rng)
    codes = [f"F{item:04d}" if item < NUM_FILMS else f"B{item - NUM_FILMS:04d}" for item in range(NUM_ITEMS)]
    paths = [f"images/{code}.jpg" for code in codes]
    covers = np.random.default_rng([seed, 4])
    images = {path: render_cover(int(traits.style[i]), i < NUM_FILMS, covers) for i, path in enumerate(paths)}
    items = pd.DataFrame({"external_id": codes, "title": titles, "description": descriptions, "image": paths})
    splits: dict[str, Any] = {
        "train": _sequences(windows, windows.slot < VALID_SLOT),
        "valid": _sequences(windows, windows.slot == VALID_SLOT),
        "test": _sequences(windows, windows.slot == TEST_SLOT),
    }
    candidates = {
        name: draw_candidates(splits[name].targets, NUM_FILMS, NUM_ITEMS, seed=seed, split=name)
        for name in ("valid", "test")
    }
    scenario = Scenario(
        name=NAME,
        domains=("movie", "book"),
        num_x=NUM_FILMS,
        items=items,
        user_ids=np.array([f"U{user:04d}" for user in range(NUM_USERS)]),
        candidates=candidates,
        source={"reader": "sample", "generated": True, "generator": GENERATOR | {"seed": seed}},
        **splits,
    )
    return scenario, images


def _sequences(windows: Windows, chosen: np.ndarray) -> Sequences:
    rows = np.flatnonzero(chosen)
    return Sequences.from_rows(
        windows.user[rows],
        [windows.items[row, : windows.length[row]] for row in rows],
        [windows.times[row, : windows.length[row]] for row in rows],
    )


def prepare_sample(data_root: str | Path) -> Scenario:
    """Load the sample below `data_root`, or make it there first: items, covers, windows and offline features.

    A sample that another version of the generator made, or that was damaged, is made again, with a warning.

    Raises:
        InputError: the folder of that name holds something else, or cannot be written.
    """
    # Imported here because readers stay free of the feature encoders; only the sample brings its features along.
    from llmemf.features.offline import write_missing

    folder = Path(data_root) / NAME
    with _held(Path(data_root)):
        scenario = _load_current(folder) if folder.exists() else None
        if scenario is None:
            scenario = _write(Path(data_root))
        write_missing(scenario)
    return scenario


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder while the sample in it is looked at or made: of two commands the second one finds it ready."""
    with ExitStack() as opened:
        # Where no lock can be had (no rights, a network disk without locks), what is ready can still be read.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            opened.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _load_current(folder: Path) -> Scenario | None:
    """The sample in `folder`, or None if it has to be made again."""
    try:
        source = read_manifest(folder).source
    except InputError:
        source = {}
    if source.get("generated") is not True or source.get("reader") != NAME:
        raise InputError(
            f"{folder} is not the generated sample, whose place it takes; move it away or choose another --data-root"
        )
    # Earlier manifests hold a hash of the generator's code beside these.
    if not GENERATOR.items() <= source.get("generator", {}).items():
        log.warning("the sample in %s is of another version of the generator: it is made again", folder)
        return None
    try:
        return Scenario.load(folder)
    except InputError as error:
        log.warning("%s: it is made again", error)
        return None


def _write(data_root: Path) -> Scenario:
    scenario, images = make_sample()
    with tempfile.TemporaryDirectory() as temporary:
        with storage_errors(Path(temporary)):
            (Path(temporary) / "images").mkdir()
            for path, content in images.items():
                (Path(temporary) / path).write_bytes(content)
        return Scenario.load(scenario.save(data_root, overwrite=True, extra=Path(temporary)))
