"""Images from a local folder, found by the items' external ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from llmemf.errors import InputError
from llmemf.features.image_content import BadImage, check_image
from llmemf.features.image_table import FOLDER, LOG, OK, image_name, is_kept, latest_outcomes, write_image_table
from llmemf.io import AppendOnlyLog, write_with
from llmemf.scenarios.scenario import Scenario

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
ABSENT = "no file"


def take_local_images(
    scenario: Scenario,
    folder: str | Path,
    *,
    max_bytes: int,
    max_pixels: int,
    min_side: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Copy the images named by external id from a folder (and its subfolders) into a scenario.

    Where the folder has one subfolder per domain, named as the domains are, items look only into their own.

    Args:
        scenario: saved on disk.
        folder: holds `<external id>.jpg`, `.jpeg`, `.png`, `.webp`, `.gif` or `.bmp`, in any case of letters.
        max_bytes, max_pixels, min_side: see `check_image`.
        on_progress: called with items done and in all.

    Returns:
        the table that was written; its `address` is the path below `folder`.

    Raises:
        InputError: no such folder, nothing in it fits, one id has several files, or the scenario cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--folder {folder}: there is no such folder")
    roots = [folder / domain for domain in scenario.domains]
    roots = roots if all(root.is_dir() for root in roots) else [folder, folder]
    indices = {root: _index(root) for root in dict.fromkeys(roots)}
    wanted = [(item, str(name)) for item, name in enumerate(scenario.items.external_id)]
    found = {}
    for item, name in wanted:
        files = indices[roots[int(item >= scenario.num_x)]].get(name, [])
        if len(files) > 1:
            raise InputError(f"item {name!r} has several images: {files[0]} and {files[1]}; leave one of them")
        if files:
            found[item] = files[0]
    if not found:
        raise InputError(
            f"--folder {folder}: no image in it is named by an external id of scenario {scenario.name!r} "
            f"(such as {wanted[0][1]}.jpg)"
        )
    (scenario.folder / FOLDER).mkdir(exist_ok=True)
    rows = []
    with AppendOnlyLog(scenario.folder / LOG, durable=False, lock=True) as log:
        outcomes = latest_outcomes(log.read())
        for item in range(scenario.num_items):
            record = {"item": item, "path": "", "status": ABSENT, "address": "", "transient": False}
            if item in found:
                record["address"] = str(found[item].relative_to(folder))
                record |= _take(scenario.folder, item, found[item], max_bytes, max_pixels, min_side)
            if outcomes.get(item) != record and (item in found or item in outcomes):
                log.append([record])
            rows.append((item, record["path"], record["status"], record["address"]))
            on_progress(item + 1, scenario.num_items)
        table = pd.DataFrame(rows, columns=["item", "path", "status", "address"])
        write_image_table(scenario, table)
    return table


def _index(root: Path) -> dict[str, list[Path]]:
    """Image files below a folder by their stem."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            files[path.stem].append(path)
    return files


def _take(target: Path, item: int, source: Path, max_bytes: int, max_pixels: int, min_side: int) -> dict:
    """Check one file and copy it; what the log should say of it."""
    try:
        if source.stat().st_size > max_bytes:
            return {"status": "too large"}
        data = source.read_bytes()
        facts = check_image(data, max_pixels=max_pixels, min_side=min_side)
    except OSError as error:
        return {"status": f"cannot be read: {error.strerror or error}"}
    except BadImage as error:
        return {"status": str(error)}
    record = {
        "status": OK,
        "path": image_name(item, facts.suffix),
        "bytes": len(data),
        "width": facts.width,
        "height": facts.height,
    }
    path = target / record["path"]
    if not is_kept(target, record) or path.read_bytes() != data:
        write_with(path, lambda temporary: temporary.write_bytes(data))
    return record
