"""Reader of the published windows: each is one stretch of a user's history (`window_files` has the layout).

The last two items of a published window are the last X and the last Y item, pulled out of the order in time; a stable
sort on the seconds restores it. Times have the granularity of a day, so that Y comes last whenever both share the day:
see `tie_break`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from llmemf.errors import InputError
from llmemf.io import file_hash
from llmemf.scenarios.candidates import stored_candidates
from llmemf.scenarios.names import check_names
from llmemf.scenarios.reader_options import WindowOptions
from llmemf.scenarios.scenario import SPLITS, Scenario
from llmemf.scenarios.sequences import Sequences
from llmemf.scenarios.splits import leave_last_out, shorten
from llmemf.scenarios.window_files import describe_items, find_files, read_item_list, read_sequence_file, read_user_list


def read_windows(
    folder: str | Path,
    name: str,
    domains: tuple[str, str] = ("x", "y"),
    options: WindowOptions | None = None,
) -> Scenario:
    """Read a folder of published windows.

    `split`: `published` takes the three files as they are. `leave_last_out` takes the windows of all files that exist
    and cuts every user's latest one: its last item is the test target, the one before it the validation target; what
    precedes these two, and the user's earlier windows, are training.

    `tie_break`, of items of the same time: `file` keeps the order of the file (the literal protocol), `random` shuffles
    them, `drop` keeps the order of the file but leaves out the cases whose target shares its time with an item of the
    other domain, because there the file's layout alone decides the target's domain.

    Args:
        folder: where the files are.
        name: name of the new scenario.
        domains: names of X and Y.
        options: see there.

    Raises:
        InputError: a file is missing or broken, with file and line where there is one.
    """
    folder, options = Path(folder), options or WindowOptions()
    check_names(name, domains)
    paths = find_files(folder, options.split)
    external = [read_item_list(paths[key]) for key in ("x", "y")]
    num_x, num_items = len(external[0]), len(external[0]) + len(external[1])
    items = describe_items(external[0] + external[1], paths.get("items"))

    user_ids, user_index = read_user_list(paths["users"]) if "users" in paths else (None, None)
    raw = {part: read_sequence_file(paths[part], num_items, user_index) for part in SPLITS if part in paths}
    if user_ids is None:
        numbers = np.unique(np.concatenate([sequences.users for sequences in raw.values()]))
        raw = {
            part: dataclasses.replace(sequences, users=np.searchsorted(numbers, sequences.users).astype(np.int32))
            for part, sequences in raw.items()
        }
        user_ids = numbers.astype(str).astype(object)
    generator = np.random.default_rng(options.seed) if options.tie_break == "random" else None
    ordered = {part: in_time_order(sequences, generator) for part, sequences in raw.items()}
    counts = {"windows": sum(map(len, ordered.values())), "interactions": sum(len(s.items) for s in ordered.values())}

    drop_ties = options.tie_break == "drop"
    if options.split == "published":
        parts, dropped = _published(ordered, num_x, drop_ties)
    else:
        parts, dropped = _leave_last_out(_join(list(ordered.values())), num_x, drop_ties)
    splits: dict[str, Any] = dict(zip(SPLITS, parts))
    for part, sequences in splits.items():
        if len(sequences) == 0:
            raise InputError(
                f"{folder}: no window is left for {part} ({_in_words(dropped)}); check the files and --split"
            )
    return Scenario(
        name=name,
        domains=domains,
        num_x=num_x,
        items=items,
        user_ids=user_ids,
        candidates=stored_candidates(splits, num_x, num_items, options),
        source={
            "reader": "windows",
            "folder": str(folder),
            "files": {path.name: file_hash(path) for path in paths.values()},
            **dataclasses.asdict(options),
            **counts,
            "dropped": dropped,
        },
        **splits,
    )


def in_time_order(sequences: Sequences, generator: np.random.Generator | None = None) -> Sequences:
    """Sort every sequence by time; ties keep their order, or are shuffled if there is a generator."""
    row = sequences.rows
    tie = np.arange(len(row)) if generator is None else generator.random(len(row))
    order = np.lexsort((tie, sequences.times, row))
    return Sequences(sequences.users, sequences.offsets, sequences.items[order], sequences.times[order])


def tied_across_domains(sequences: Sequences, num_x: int, from_end: int = 1) -> np.ndarray:
    """(S,) bool: does the item `from_end` places from the end share its time with an item of the other domain?

    The sequences are in time order; rows shorter than `from_end` give False.
    """
    row = sequences.rows
    is_new = np.ones(len(row), dtype=bool)
    is_new[1:] = (row[1:] != row[:-1]) | (sequences.times[1:] != sequences.times[:-1])
    group = np.cumsum(is_new) - 1
    share_of_y = np.bincount(group, weights=sequences.items >= num_x) / np.bincount(group)
    mixed = (share_of_y > 0) & (share_of_y < 1)
    long_enough = sequences.lengths >= from_end
    result = np.zeros(len(sequences), dtype=bool)
    result[long_enough] = mixed[group[sequences.offsets[1:][long_enough] - from_end]]
    return result


def _published(ordered: dict[str, Sequences], num_x: int, drop_ties: bool) -> tuple[list[Sequences], dict[str, int]]:
    """The three files as they are, less what cannot be used; and the counts of that."""
    parts: list[Sequences] = []
    dropped: dict[str, int] = {}
    for part, sequences in ordered.items():
        short, tied = sequences.lengths < 2, np.zeros(len(sequences), bool)
        if drop_ties and part != "train":
            tied = tied_across_domains(sequences, num_x)
        dropped[f"{part}_short"] = int(short.sum())
        dropped[f"{part}_ties"] = int((tied & ~short).sum())
        parts.append(shorten(sequences, np.where(tied, 0, sequences.lengths)))
    return parts, dropped


def _leave_last_out(windows: Sequences, num_x: int, drop_ties: bool) -> tuple[list[Sequences], dict[str, int]]:
    """Cut every user's latest window; and the counts of what cannot be used."""
    last_time = windows.times[windows.last_places]
    order = np.lexsort((np.arange(len(windows)), last_time, windows.users))
    users = windows.users[order]
    is_latest = np.concatenate([users[1:] != users[:-1], [True]])
    cut = np.zeros(len(windows), dtype=bool)
    cut[order[is_latest]] = True

    nothing = np.zeros(len(windows), dtype=bool)
    tied_test = tied_across_domains(windows, num_x, 1) if drop_ties else nothing
    tied_valid = tied_across_domains(windows, num_x, 2) if drop_ties else nothing
    lengths = windows.lengths
    dropped = {
        "train_short": int((lengths - 2 * cut < 2).sum()),
        "valid_short": int((cut & (lengths < 3)).sum()),
        "test_short": int((cut & (lengths < 2)).sum()),
        "valid_ties": int((cut & (lengths >= 3) & tied_valid).sum()),
        "test_ties": int((cut & (lengths >= 2) & tied_test).sum()),
    }
    return list(leave_last_out(windows, cut, ~tied_valid, ~tied_test)), dropped


def _join(parts: list[Sequences]) -> Sequences:
    """One after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Sequences(
        np.concatenate([part.users for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.times for part in parts]),
    )


def _in_words(dropped: dict[str, int]) -> str:
    """The counts that are not zero."""
    return ", ".join(f"{count} dropped as {reason}" for reason, count in dropped.items() if count) or "none was read"
