"""Reader of plain histories: one line per user, oldest item first, and a table of the items.

histories    USER <TAB> ITEM,ITEM,...     (spaces, commas or tabs between the items)
items.tsv    ID <TAB> DOMAIN <TAB> EXTERNAL_ID [<TAB> TITLE <TAB> DESCRIPTION <TAB> IMAGE]     (see `item_table`)
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmemf.errors import InputError, nearest
from llmemf.io import file_hash
from llmemf.scenarios.candidates import stored_candidates
from llmemf.scenarios.item_table import read_item_table
from llmemf.scenarios.lines import numbered_lines, once, quoted
from llmemf.scenarios.names import check_names
from llmemf.scenarios.reader_options import HistoryOptions
from llmemf.scenarios.scenario import ITEM_COLUMNS, SPLITS, Scenario
from llmemf.scenarios.sequences import Sequences
from llmemf.scenarios.splits import leave_last_out

SEPARATOR = re.compile(r"\s*,\s*|\s+")


def read_histories(
    path: str | Path,
    items: str | Path,
    name: str,
    domains: tuple[str, str] | None = None,
    labels: tuple[str, str] | None = None,
    options: HistoryOptions | None = None,
) -> Scenario:
    """Read plain histories and split them leave-last-out.

    Every user's last item is the test target, the one before it the validation target, all before that is training.
    Histories stay whole, however long. There are no times.

    Args:
        path: the histories.
        items: the item table.
        name: name of the new scenario.
        domains: names of X and Y; by default the item table's labels in lower case, X being the first one there.
        labels: what the item table calls X and Y, where that is not their names (upper and lower case are the same).
        options: `repeats` counts before `min_length`, of which 4 leaves everybody two training items.

    Raises:
        InputError: a file is missing or broken, with file and line where there is one.
    """
    path, items, options = Path(path), Path(items), options or HistoryOptions()
    table = read_item_table(items)
    domains, labels = _domains(items, table, domains, labels)
    check_names(name, domains)
    in_x = (table["domain"].str.lower() == labels[0].lower()).to_numpy()
    order = np.concatenate([np.flatnonzero(in_x), np.flatnonzero(~in_x)])
    frame = table.iloc[order].reset_index(drop=True)
    global_id = {item: index for index, item in enumerate(frame["id"])}

    users, rows, facts = _read_rows(path, items, global_id, options)
    if not rows:
        raise InputError(
            f"{path}: no history has {options.min_length} items or more; lower --min-length or check the file"
        )
    splits: dict[str, Any] = dict(zip(SPLITS, leave_last_out(Sequences.from_rows(np.arange(len(rows)), rows))))
    for part, sequences in splits.items():
        if len(sequences) == 0:
            raise InputError(f"{path}: no history is long enough for {part}; 4 items are needed for all three splits")
    num_x = int(in_x.sum())
    return Scenario(
        name=name,
        domains=domains,
        num_x=num_x,
        items=pd.DataFrame(frame[list(ITEM_COLUMNS)]),
        user_ids=np.asarray(users, dtype=object),
        candidates=stored_candidates(splits, num_x, len(frame), options),
        source={
            "reader": "histories",
            "files": {str(file): file_hash(file) for file in (path, items)},
            "split": "leave_last_out",
            "labels": list(labels),
            **dataclasses.asdict(options),
            **facts,
        },
        **splits,
    )


def _read_rows(
    path: Path, items: Path, global_id: dict[str, int], options: HistoryOptions
) -> tuple[list[str], list[list[int]], dict[str, int]]:
    """Users, their global item ids, and counts of what was read, repeated and skipped."""
    users: list[str] = []
    rows: list[list[int]] = []
    seen: dict[str, int] = {}
    interactions = repeated = 0
    for number, text in numbered_lines(path):
        tokens = _tokens(text)
        if len(tokens) < 2 or not all(tokens):
            raise InputError(f"{path}:{number}: expected USER<TAB>ITEM,ITEM,..., got {quoted(text)}")
        user, *history = tokens
        once(seen, user, path, number, f"user {user!r}")
        try:
            row = [global_id[item] for item in history]
        except KeyError as error:
            raise InputError(f"{path}:{number}: item id {error.args[0]!r} is not in {items}") from None
        interactions += len(row)
        distinct = list(dict.fromkeys(row))
        repeated += len(row) - len(distinct)
        if options.repeats == "first":
            row = distinct
        elif options.repeats == "last":
            row = list(dict.fromkeys(reversed(row)))[::-1]
        if len(row) >= options.min_length:
            users.append(user)
            rows.append(row)
    facts = {
        "users_read": len(seen),
        "interactions": interactions,
        "repeated_interactions": repeated,
        "skipped_short_users": len(seen) - len(users),
    }
    return users, rows, facts


def _tokens(text: str) -> list[str]:
    """The user, then the items; an empty token where a separator has nothing beside it."""
    if "\t" not in text:
        return SEPARATOR.split(text.strip())
    user, _, rest = text.partition("\t")
    return [user.strip(), *SEPARATOR.split(rest.strip())]


def _domains(
    path: Path, table: pd.DataFrame, domains: tuple[str, str] | None, labels: tuple[str, str] | None
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Names of X and Y, and their labels in the item table."""
    present: dict[str, tuple[str, int]] = {}
    for label, line in zip(table["domain"], table["line"]):
        present.setdefault(label.lower(), (label, line))
    written = [label for label, _ in present.values()]
    wanted = list(labels or domains or written[:2])
    lower = [label.lower() for label in wanted]
    if len(set(lower)) != 2:
        only = f"{path} has items of {written} only"
        raise InputError(f"two different domains are needed, got {','.join(wanted)!r}: {only}")
    for found, (label, line) in present.items():
        if found not in lower:
            raise InputError(
                f"{path}:{line}: domain {label!r} is none of {','.join(wanted)}: {nearest(found, lower)} (name the "
                "table's own labels with --labels)"
            )
    for label in wanted:
        if label.lower() not in present:
            raise InputError(f"domain {label!r} is empty: {path} lists no item of it; both domains need items")
    return domains or (lower[0], lower[1]), (wanted[0], wanted[1])
