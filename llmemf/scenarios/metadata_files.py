"""Reader of Amazon metadata files: what the items are that are wanted; all other lines are passed over unparsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llmemf.errors import InputError
from llmemf.scenarios.bad_lines import LineCounts
from llmemf.scenarios.item_texts import ItemText, item_text
from llmemf.scenarios.lines import LineBlock, Progress, line_blocks
from llmemf.scenarios.loose_records import ITEM_KEYS, identifier, parse_record
from llmemf.scenarios.table_rows import is_parquet, open_parquet, parquet_batches

ASIN = re.compile(rb"""asin["']\s*:\s*["']?\s*([^"'\\,}\s]+)""")


def read_metadata(counts: LineCounts, wanted: Iterable[str], progress: Progress | None = None) -> dict[str, ItemText]:
    """Read the items of `wanted` external ids from one metadata file of any release.

    A line is parsed if it names a wanted item, or if no item can be found in it (then it is a bad line, most likely).
    Several records of an item complete each other, the first counts.

    Args:
        counts: names the file; filled while reading.
        wanted: external ids.
        progress: see `lines`.

    Raises:
        InputError: the file cannot be read, or too many of its lines cannot be used.
    """
    wanted = set(wanted)
    records = _parquet_records if is_parquet(counts.path) else _line_records
    found: dict[str, ItemText] = {}
    for name, record in records(counts, wanted, progress):
        found[name] = found.get(name, ItemText()).completed_by(item_text(record))
    counts.finish()
    return found


def _line_records(counts: LineCounts, wanted: set[str], progress: Progress | None) -> Iterator[tuple[str, dict]]:
    wanted_bytes = {name.encode() for name in wanted}

    def of_interest(block: LineBlock) -> Iterator[tuple[int, bytes]]:
        for number, line in block.lines():
            named = ASIN.findall(line)
            if named and wanted_bytes.isdisjoint(named):
                counts.lines += 1
            else:
                yield number, line

    def parse(line: bytes) -> tuple[str, dict]:
        record, mended = parse_record(line)
        name = identifier(record, ITEM_KEYS, "no item")
        counts.mended.update(mended)
        return name, record

    for block in line_blocks(counts.path, progress):
        for _, (name, record) in counts.parsed(of_interest(block), parse):
            if name in wanted:
                yield name, record


def _parquet_records(counts: LineCounts, wanted: set[str], progress: Progress | None) -> Iterator[tuple[str, dict]]:
    """Of a table whose columns are called as the fields of the records; nested cells are lists and records."""
    header = open_parquet(counts.path).schema_arrow.names
    keys = [key for key in ITEM_KEYS if key in header]
    if not keys:
        raise InputError(
            f"{counts.path}: a table of items needs the column {' or '.join(ITEM_KEYS)}; it has {', '.join(header)}"
        )
    for first, batch in parquet_batches(counts.path, header, progress):
        ids = enumerate(batch.select(keys).to_pylist(), start=first)
        for number, name in counts.parsed(ids, lambda row: identifier(row, ITEM_KEYS, "no item")):
            if name in wanted:
                yield name, batch.slice(number - first, 1).to_pylist()[0]
