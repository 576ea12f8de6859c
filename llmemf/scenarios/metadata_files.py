"""Reader of Amazon metadata files: what the items are that are wanted; all other lines are passed over unparsed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from llmemf.errors import InputError
from llmemf.io import file_hash
from llmemf.scenarios.bad_lines import BadLine, LineCounts
from llmemf.scenarios.item_texts import ItemText, item_text
from llmemf.scenarios.line_blocks import LineFile, Progress
from llmemf.scenarios.loose_records import ITEM_KEYS, decode, identifier, parse_record
from llmemf.scenarios.table_rows import is_parquet, open_parquet, parquet_batches

ASIN = re.compile(rb"""asin["']\s*:\s*["']?\s*([^"'\\,}\s]+)""")


def read_metadata(
    path: str | Path,
    wanted: Iterable[str],
    counts: LineCounts,
    max_bad: float = 0.01,
    progress: Progress | None = None,
) -> dict[str, ItemText]:
    """Read the items of `wanted` external ids from one metadata file.

    A line is parsed if it names a wanted item, or if no item can be found in it (then it is a bad line, most likely).
    Several records of an item complete each other, the first counts.

    Args:
        path: the file, of any release.
        wanted: external ids.
        counts: filled while reading.
        max_bad: share of the lines that may be unusable.
        progress: see `line_blocks`.

    Raises:
        InputError: the file cannot be read, or too many of its lines cannot be used.
    """
    wanted = set(wanted)
    if is_parquet(Path(path)):
        return _parquet_metadata(Path(path), wanted, counts, max_bad, progress)
    wanted_bytes = {name.encode() for name in wanted}
    found: dict[str, ItemText] = {}
    file = LineFile(path, progress)
    for block in file.blocks():
        for number, line in enumerate(block.data.split(b"\n"), start=block.first_line):
            named = ASIN.findall(line)
            if named and wanted_bytes.isdisjoint(named):
                counts.lines += 1
                continue
            if not line.strip():
                continue
            counts.lines += 1
            try:
                record, mended = parse_record(line)
                name = identifier(record, ITEM_KEYS, "no item")
            except BadLine as error:
                counts.add_bad(number, str(error), decode(line.strip()[:80])[0])
                continue
            counts.mended.update(mended)
            if name in wanted:
                found[name] = found[name].completed_by(item_text(record)) if name in found else item_text(record)
        counts.check_early(max_bad)
    counts.finish(file, max_bad)
    return found


def _parquet_metadata(
    path: Path, wanted: set[str], counts: LineCounts, max_bad: float, progress: Progress | None
) -> dict[str, ItemText]:
    """The wanted items of a table whose columns are called as the fields of the records; nested cells are lists and records."""
    header = open_parquet(path).schema_arrow.names
    if not any(key in header for key in ITEM_KEYS):
        raise InputError(
            f"{path}: a table of items needs the column {' or '.join(ITEM_KEYS)}; it has {', '.join(header)}"
        )
    found: dict[str, ItemText] = {}
    for first, batch in parquet_batches(path, header, progress):
        counts.lines += len(batch)
        ids = [batch[key].to_pylist() for key in ITEM_KEYS if key in header]
        for place, row in enumerate(zip(*ids)):
            try:
                name = identifier(dict(zip(filter(header.__contains__, ITEM_KEYS), row)), ITEM_KEYS, "no item")
            except BadLine as error:
                counts.add_bad(first + place, str(error), ", ".join(map(str, row)))
                continue
            if name in wanted:
                text = item_text(batch.slice(place, 1).to_pylist()[0])
                found[name] = found[name].completed_by(text) if name in found else text
        counts.check_early(max_bad)
    counts.check(max_bad)
    counts.sha256 = file_hash(path)
    return found
