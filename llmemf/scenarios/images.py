"""Item images on their way into a prepared scenario."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np

from llmemf.errors import InputError
from llmemf.scenarios.scenario import Scenario


def is_address(image: str) -> bool:
    """Does an image cell hold an address on the web rather than a path?"""
    return image.lower().startswith(("http://", "https://"))


def check_inside(image: str, place: str) -> None:
    """Refuse an image cell that names a file outside the folder of its table: a scenario must not copy other files.

    Args:
        image: the cell; addresses and empty cells are fine.
        place: where it stands, for the message.

    Raises:
        InputError: the path is absolute, or leads out of the folder.
    """
    if is_address(image):
        return
    if Path(image).is_absolute() or Path(os.path.normpath(image)).parts[:1] == (os.pardir,):
        raise InputError(
            f"{place}: the image {image!r} lies outside the folder of the item table: give a path inside that folder, an "
            "address (https://...), or nothing"
        )


def save_with_images(
    scenario: Scenario, data_root: str | Path, image_folder: str | Path, *, overwrite: bool = False
) -> Scenario:
    """Save a scenario together with a copy of the images that its item table names, and give it as it was saved.

    Args:
        scenario: its `image` column holds paths relative to `image_folder`, empty where there is none; on disk they
            become `images/<global id><suffix>`. Addresses (http, https) stay as they are: nothing is fetched.
        data_root: folder that holds the prepared scenarios.
        image_folder: where the images are.
        overwrite: replace a scenario of the same name.

    Raises:
        InputError: a named image lies outside the folder or does not exist, or the scenario cannot be saved.
    """
    folder = Path(image_folder).resolve()
    written = scenario.items["image"].to_numpy(dtype=object)
    named = [index for index, image in enumerate(written) if image and not is_address(image)]
    for index in named:
        check_inside(written[index], f"item {scenario.items['external_id'].iloc[index]!r}")
    missing = [index for index in named if not (folder / written[index]).is_file()]
    if missing:
        first = missing[0]
        raise InputError(
            f"{len(missing)} of {len(named)} images named by the item table do not exist, the first is {written[first]!r} "
            f"of item {scenario.items['external_id'].iloc[first]!r} (below {folder}): add them, or empty their cells"
        )
    if not named:
        return dataclasses.replace(scenario, folder=scenario.save(data_root, overwrite=overwrite))
    stored = np.array([image if is_address(image) else "" for image in written], dtype=object)
    with tempfile.TemporaryDirectory() as staging:
        # Links suffice here: saving copies what they point to.
        (Path(staging) / "images").mkdir()
        for index in named:
            stored[index] = f"images/{index}{Path(written[index]).suffix.lower()}"
            (Path(staging) / stored[index]).symlink_to(folder / written[index])
        saved = dataclasses.replace(scenario, items=scenario.items.assign(image=stored))
        return dataclasses.replace(saved, folder=saved.save(data_root, overwrite=overwrite, extra=Path(staging)))
