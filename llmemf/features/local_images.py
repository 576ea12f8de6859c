"""Images from a local folder, found by the items' external ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from llmemf.errors import InputError
from llmemf.features.image_content import SUFFIXES, NoImage, check_image
from llmemf.features.image_limits import ImageLimits
from llmemf.features.image_table import ImageStore
from llmemf.scenarios.scenario import Scenario

NO_FILE = "no file"


def take_local_images(
    scenario: Scenario,
    folder: str | Path,
    limits: ImageLimits,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Copy the images named by external id from a folder (and its subfolders) into a scenario.

    Where the folder has one subfolder per domain, named as the domains are, items are looked for only in their own.

    Args:
        scenario: saved on disk.
        folder: holds `<external id>.jpg`, `.jpeg`, `.png`, `.webp`, `.gif` or `.bmp`, in upper or lower case.
        limits: of a file; what exceeds them is refused.
        on_progress: called with items done and in all.

    Returns:
        the table that was written; its `address` is the path below `folder`.

    Raises:
        InputError: no such folder, no file in it fits, one id has several files, or the scenario cannot be written.
    """
    folder = Path(folder)
    found = _find(scenario, folder)
    addresses = [str(found[item].relative_to(folder)) if item in found else "" for item in range(scenario.num_items)]
    with ImageStore(scenario) as store:
        for item, address in enumerate(addresses):
            try:
                if item in found:
                    data = _read(found[item], limits.max_bytes)
                    store.keep([item], address, data, check_image(data, limits))
                elif item in store.outcomes:
                    store.note([item], address, NO_FILE)
            except NoImage as error:
                store.note([item], address, str(error))
            on_progress(item + 1, scenario.num_items)
        return store.write_table(addresses, no_address=NO_FILE)


def _find(scenario: Scenario, folder: Path) -> dict[int, Path]:
    """The image file of every item that has one.

    Raises:
        InputError: as `take_local_images`.
    """
    if not folder.is_dir():
        raise InputError(f"--folder {folder}: there is no such folder")
    roots = [folder / domain for domain in scenario.domains]
    if not all(root.is_dir() for root in roots):
        roots = [folder, folder]
    files: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for root in set(roots):
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in (*SUFFIXES.values(), ".jpeg") and path.is_file():
                files[root, path.stem].append(path)
    names = [str(name) for name in scenario.items.external_id]
    found = {}
    for item, name in enumerate(names):
        named = files.get((roots[int(item >= scenario.num_x)], name), [])
        if len(named) > 1:
            raise InputError(f"item {name!r} has several images: {named[0]} and {named[1]}; leave one of them")
        if named:
            found[item] = named[0]
    if not found:
        raise InputError(
            f"--folder {folder}: no image in it is named by an external id of scenario {scenario.name!r} "
            f"(such as {names[0]}.jpg)"
        )
    return found


def _read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file.

    Raises:
        NoImage: it is too large or cannot be read.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise NoImage("too large")
        return path.read_bytes()
    except OSError as error:
        raise NoImage(f"cannot be read: {error.strerror or error}") from None
