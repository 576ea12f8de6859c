"""The files of a published scenario (C2DSR): item lists, user list, windows.

A folder holds two item lists, up to three sequence files, a user list, and optionally `items.tsv`:

    Alist.txt, Blist.txt     OLD_INDEX <TAB> ASIN <TAB> LOCAL_ID     (also items_x/items_y, items_a/items_b)
    traindata_new.txt ...    USER <TAB> WINDOW <TAB> ITEM|UNIXTIME|DATE| <TAB> ...   (also train_new, val_new, test_new)
    userlist.txt             REVIEWER <TAB> USER

Items of Y carry global ids.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from llmemf.errors import InputError
from llmemf.scenarios.item_table import read_item_table
from llmemf.scenarios.lines import numbered_lines, once, quoted
from llmemf.scenarios.scenario import ITEM_COLUMNS
from llmemf.scenarios.sequences import Sequences

FILES = {
    "x": ("Alist.txt", "items_x.txt", "items_a.txt"),
    "y": ("Blist.txt", "items_y.txt", "items_b.txt"),
    "train": ("traindata_new.txt", "train_new.txt"),
    "valid": ("validdata_new.txt", "val_new.txt"),
    "test": ("testdata_new.txt", "test_new.txt"),
    "users": ("userlist.txt",),
    "items": ("items.tsv",),
}
NUMBER = re.compile(r"[0-9]{1,9}")
FIELD = re.compile(r"([0-9]{1,9})\|([0-9]{1,11})\|[^|]*\|")


def find_files(folder: Path, split: str) -> dict[str, Path]:
    """The files that are there, by role."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds {FILES['x'][0]} and {FILES['test'][0]}")
    paths = {}
    for role, names in FILES.items():
        present = [folder / name for name in names if (folder / name).is_file()]
        if len(present) > 1:
            raise InputError(f"{folder} holds both {present[0].name} and {present[1].name}; keep one of them")
        if present:
            paths[role] = present[0]
    for role in ("x", "y"):
        if role not in paths:
            raise InputError(
                f"{folder} holds no item list of domain {role.upper()}: expected {' or '.join(FILES[role])}"
            )
    missing = [role for role in ("train", "valid", "test") if role not in paths]
    if split == "published" and missing:
        expected = " or ".join(FILES[missing[0]])
        raise InputError(
            f"{folder} holds no {missing[0]} windows ({expected}): add the file, or use --split leave_last_out"
        )
    if len(missing) == 3:
        raise InputError(f"{folder} holds no windows: expected {', '.join(FILES[role][0] for role in missing)}")
    return paths


def read_item_list(path: Path) -> list[str]:
    """External ids of one domain by local id.

    Raises:
        InputError: a line is broken, or an id is there twice or missing.
    """
    found: dict[int, str] = {}
    line_of_local: dict[int, int] = {}
    line_of_external: dict[str, int] = {}
    for number, text in numbered_lines(path):
        cells = text.split("\t")
        if len(cells) != 3 or not cells[2].strip().isdecimal():
            raise InputError(f"{path}:{number}: expected OLD_INDEX<TAB>ASIN<TAB>LOCAL_ID, got {quoted(text)}")
        local, external = int(cells[2]), cells[1].strip()
        once(line_of_local, local, path, number, f"local id {local}")
        once(line_of_external, external, path, number, f"the external id {external!r}")
        found[local] = external
    if max(found) != len(found) - 1:
        missing = next(local for local in range(len(found)) if local not in found)
        raise InputError(f"{path}: local ids must be 0..{len(found) - 1} for {len(found)} items, {missing} is missing")
    return [found[local] for local in range(len(found))]


def read_user_list(path: Path) -> tuple[np.ndarray, dict[str, int]]:
    """External ids in the order of the file, and the dense id of each user column."""
    external: list[str] = []
    line_of: dict[str, int] = {}
    for number, text in numbered_lines(path):
        cells = [cell.strip() for cell in text.split("\t")]
        if len(cells) != 2 or not cells[0] or not cells[1].isdecimal():
            raise InputError(f"{path}:{number}: expected REVIEWER<TAB>USER, got {quoted(text)}")
        once(line_of, cells[1], path, number, f"user {cells[1]}")
        external.append(cells[0])
    return np.asarray(external, dtype=object), {user: index for index, user in enumerate(line_of)}


def describe_items(external: list[str], path: Path | None) -> pd.DataFrame:
    """The item table in global order: external ids, and what `items.tsv` adds to them."""
    items = pd.DataFrame({column: np.full(len(external), "", dtype=object) for column in ITEM_COLUMNS})
    items["external_id"] = external
    if path is None:
        return items
    table = read_item_table(path)
    for line, item, external_id in zip(table["line"], table["id"], table["external_id"]):
        if not item.isdecimal() or int(item) >= len(external):
            raise InputError(f"{path}:{line}: item id {item} is out of range 0..{len(external) - 1} of the item lists")
        if external_id != external[int(item)]:
            raise InputError(
                f"{path}:{line}: item {item} is {external_id!r} here but {external[int(item)]!r} in the item list; "
                "make both files agree"
            )
    rows = table["id"].astype(int).to_numpy()
    for column in ("title", "description", "image"):
        values = items[column].to_numpy(copy=True)
        values[rows] = table[column].to_numpy()
        items[column] = values
    return items


def read_sequence_file(path: Path, num_items: int, user_index: dict[str, int] | None = None) -> Sequences:
    """Read one sequence file; items stay in the order of the file.

    Args:
        path: the file.
        num_items: items of both domains; ids must be smaller.
        user_index: dense user id of each user column; without it the column itself, a number, is the user id.

    Raises:
        InputError: a line is broken, a user unknown, or an item id out of range: with file and line.
    """
    users: list[int] = []
    lengths: list[int] = []
    items: list[int] = []
    times: list[int] = []
    match = FIELD.fullmatch
    for number, text in numbered_lines(path):
        user, _, rest = text.rstrip("\t ").partition("\t")
        window, _, rest = rest.partition("\t")
        if not NUMBER.fullmatch(user) or not NUMBER.fullmatch(window) or not rest:
            raise InputError(
                f"{path}:{number}: expected USER<TAB>WINDOW<TAB>ITEM|UNIXTIME|DATE|..., got {quoted(text)}"
            )
        fields = rest.split("\t")
        for field in fields:
            found = match(field)
            if found is None:
                raise InputError(f"{path}:{number}: expected ITEM|UNIXTIME|DATE| (seconds), got {quoted(field)}")
            item = int(found[1])
            if item >= num_items:
                raise InputError(
                    f"{path}:{number}: item id {item} is out of range 0..{num_items - 1} of the item lists"
                )
            items.append(item)
            times.append(int(found[2]))
        if user_index is None:
            users.append(int(user))
        elif user in user_index:
            users.append(user_index[user])
        else:
            raise InputError(f"{path}:{number}: user {user} is not in the user list {path.with_name('userlist.txt')}")
        lengths.append(len(fields))
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
    return Sequences(
        np.asarray(users, dtype=np.int32), offsets, np.asarray(items, dtype=np.int32), np.asarray(times, dtype=np.int64)
    )
