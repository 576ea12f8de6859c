"""The optional table that tells what the items are: `items.tsv`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from llmemf.errors import InputError
from llmemf.scenarios.images import check_inside
from llmemf.scenarios.lines import numbered_lines, once, quoted
from llmemf.scenarios.scenario import ITEM_COLUMNS

COLUMNS = ("id", "domain", *ITEM_COLUMNS)
ALIASES = {"item_id": "id", "asin": "external_id"}


def read_item_table(path: Path) -> pd.DataFrame:
    """Read tab-separated items: id, domain, external id, title, description, image.

    A first line that begins with `id` or `item_id` is a header; it may name the columns in any order (`asin` stands
    for the external id) and have further ones, which are left out. Without a header the order is the one above. Empty
    cells, and missing cells at the end of a line, are unknown. Quotes are ordinary characters. Items without an
    external id carry their id.

    Returns:
        columns `id`, `domain` and `ITEM_COLUMNS`, all strings, empty where the file says nothing, and `line`, the number of
        the row's line.

    Raises:
        InputError: the file cannot be read, lacks a column, has a broken line, names an id twice (of one domain also an
            external id), or an image outside its folder.
    """
    rows: list[list[str | int]] = []
    line_of_id: dict[str, int] = {}
    line_of_external_id: dict[tuple[str, str], int] = {}
    header: list[str] = []
    for number, text in numbered_lines(path):
        cells = [cell.strip() for cell in text.split("\t")]
        if not header:
            named = [ALIASES.get(cell.lower(), cell.lower()) for cell in cells]
            header = named if named[0] == "id" else list(COLUMNS)
            missing = [column for column in ("id", "domain") if column not in header]
            if missing:
                raise InputError(
                    f"{path}:{number}: the header lacks the column {missing[0]!r}, it has {', '.join(named)}"
                )
            if len(set(header)) < len(header):
                raise InputError(f"{path}:{number}: the header names a column twice: {', '.join(named)}")
            if header is named:
                continue
        if len(cells) > len(header):
            raise InputError(
                f"{path}:{number}: expected at most {len(header)} tab-separated cells ({', '.join(header)}), "
                f"got {len(cells)}"
            )
        row = dict(zip(header, cells))
        if not row["id"] or not row.get("domain"):
            raise InputError(f"{path}:{number}: expected ID<TAB>DOMAIN<TAB>EXTERNAL_ID..., got {quoted(text)}")
        once(line_of_id, row["id"], path, number, f"item id {row['id']!r}")
        external = row["external_id"] = row.get("external_id") or row["id"]
        what = f"the external id {external!r} of domain {row['domain']!r}"
        once(line_of_external_id, (row["domain"].lower(), external), path, number, what)
        check_inside(row.get("image", ""), f"{path}:{number}")
        rows.append([*(row.get(column, "") for column in COLUMNS), number])
    if not rows:
        raise InputError(f"{path} lists no item")
    return pd.DataFrame(rows, columns=[*COLUMNS, "line"], dtype=object)
