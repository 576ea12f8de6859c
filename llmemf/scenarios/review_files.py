"""Reader of Amazon review files: who reviewed what and when, of the releases of 2014, 2018 and 2023.

| release | user, item, time | file |
|---|---|---|
| 2014, 2018 | reviewerID, asin, unixReviewTime (seconds) | `*.json.gz`, JSON lines or lines of Python literals |
| 2023 | user_id, parent_asin, timestamp (milliseconds) | `*.jsonl.gz` |
| any | the same columns | `*.parquet` |
| ratings only | 2014: user, item, rating, time; 2018: item, user, rating, time; 2023: with a header | `*.csv`, `*.csv.gz` |

What a file is, its content says. Blocks of JSON lines go through pyarrow's parser, which reads the few fields alone; a
block that it refuses is read line by line in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from llmemf.errors import InputError
from llmemf.scenarios.bad_lines import BadLine, LineCounts
from llmemf.scenarios.lines import LineBlock, Progress, decode, line_blocks
from llmemf.scenarios.loose_records import (
    ITEM_KEYS,
    LATEST_TIME,
    MILLISECONDS_FROM,
    MISSING,
    flat_literal,
    identifier,
    parse_record,
    unix_seconds,
)
from llmemf.scenarios.table_rows import ROLES, chosen_cells, csv_rows, is_parquet, open_parquet, parquet_rows
from llmemf.text_format import percent

USER_KEYS = ("reviewerID", "user_id")
TIME_KEYS = ("unixReviewTime", "timestamp")
JSON_OPTIONS = pa_json.ParseOptions(
    explicit_schema=pa.schema(
        [(key, pa.string()) for key in (*USER_KEYS, *ITEM_KEYS)] + [(key, pa.int64()) for key in TIME_KEYS]
    ),
    unexpected_field_behavior="ignore",
)
ASIN = re.compile(r"[0-9A-Z]{10}")
SNIFFED_ROWS = 200
ROWS = 50_000
"""Reviews that are handed on at once, where they are read one by one."""

Single = tuple[str, str, int]
"""User, item and time of one review."""


class ReviewColumns(NamedTuple):
    """Some reviews in the order of the file.

    Attributes:
        users, items: strings.
        times: uint32 Unix seconds.
    """

    users: pa.Array
    items: pa.Array
    times: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Single]) -> ReviewColumns:
        users, items, times = zip(*rows) if rows else ((), (), ())
        return cls(pa.array(users, pa.string()), pa.array(items, pa.string()), np.asarray(times, np.uint32))


def read_reviews(counts: LineCounts, progress: Progress | None = None) -> Iterator[ReviewColumns]:
    """Yield the reviews of a file, some thousand at a time.

    Args:
        counts: names the file; filled while reading, final when the reviews are exhausted.
        progress: see `lines`.

    Raises:
        InputError: the file cannot be read, or too many of its lines cannot be used.
    """
    if is_parquet(counts.path):
        yield from _in_columns(_parquet_reviews(counts, progress))
    elif _holds_records(next(line_blocks(counts.path))):
        for block in line_blocks(counts.path, progress):
            columns = _whole(block)
            if columns is None:
                yield from _in_columns(counts.parsed(block.lines(), lambda line: _single(line, counts)))
            else:
                counts.lines += len(columns.times)
                yield columns
    else:
        yield from _in_columns(_ratings(counts, progress))
    counts.finish()


def _in_columns(rows: Iterator[tuple[int, Single]]) -> Iterator[ReviewColumns]:
    while some := [row for _, row in islice(rows, ROWS)]:
        yield ReviewColumns.of(some)


def _holds_records(block: LineBlock) -> bool:
    lines = [line.lstrip()[:1] for _, line in islice(block.lines(), SNIFFED_ROWS)]
    return sum(first in b"{[" for first in lines) > len(lines) / 2


def _whole(block: LineBlock) -> ReviewColumns | None:
    """The reviews of a block that holds one usual record per line, None if any line is odd."""
    try:
        table = pa_json.read_json(
            pa.BufferReader(block.data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            parse_options=JSON_OPTIONS,
        )
        users, items, times = (
            pc.coalesce(*(table[key] for key in keys)).combine_chunks() for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS)
        )
        # The parser is content with two records in a line, or one in two lines, and leaves out blank lines.
        if len(times) != block.num_lines and len(times) != sum(1 for _ in block.lines()):
            return None
        users, items = pc.utf8_trim_whitespace(users), pc.utf8_trim_whitespace(items)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    missing = pa.array(MISSING)
    if (
        not len(times)
        or times.null_count
        or any(column.null_count or pc.any(pc.is_in(column, value_set=missing)).as_py() for column in (users, items))
    ):
        return None
    seconds = times.to_numpy()
    seconds = np.where(seconds >= MILLISECONDS_FROM, seconds // 1000, seconds)
    if seconds.min() <= 0 or seconds.max() >= LATEST_TIME:
        return None
    return ReviewColumns(users, items, seconds.astype(np.uint32))


def _single(line: bytes, counts: LineCounts) -> Single:
    text, wrong_bytes = decode(line)
    fields = flat_literal(text)
    if fields and "parent_asin" not in fields:
        # A Python literal that is as it should be; of all others the parser decides.
        user, item, time = (fields.get(key, "") for key in ("reviewerID", "asin", "unixReviewTime"))
        names = [value[1:-1].strip() for value in (user, item) if value[:1] in ("'", '"') and "\\" not in value]
        if len(names) == 2 and "" not in names and time.isdecimal():
            seconds = unix_seconds(int(time))
            counts.mended.update([wrong_bytes] if wrong_bytes else [])
            return names[0], names[1], seconds
    record, mended = parse_record(line)
    single = _fields(record)
    counts.mended.update(mended)
    return single


def _fields(record: dict) -> Single:
    user, item = identifier(record, USER_KEYS, "no user"), identifier(record, ITEM_KEYS, "no item")
    for key in TIME_KEYS:
        if (value := record.get(key)) is not None and value not in MISSING:
            return user, item, unix_seconds(value)
    written = record.get("reviewTime")
    if not isinstance(written, str) or written.strip() in MISSING:
        raise BadLine("no time")
    try:
        return user, item, unix_seconds(datetime.strptime(written.strip(), "%m %d, %Y").replace(tzinfo=UTC))
    except ValueError:
        raise BadLine("time is neither a number nor a date") from None


def _parquet_reviews(counts: LineCounts, progress: Progress | None) -> Iterator[tuple[int, Single]]:
    """The reviews of a table whose columns are called as the fields of the records."""
    header = open_parquet(counts.path).schema_arrow.names
    groups = [[key for key in keys if key in header] for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS)]
    if not all(groups):
        wanted = " and ".join(" or ".join(keys) for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS))
        raise InputError(f"{counts.path}: a table of reviews needs the columns {wanted}; it has {', '.join(header)}")
    return counts.parsed(parquet_rows(counts.path, {key: key for key in chain(*groups)}, progress), _fields)


def _ratings(counts: LineCounts, progress: Progress | None) -> Iterator[tuple[int, Single]]:
    """The reviews of a file of ratings: by the names of its header, or by what its columns hold."""
    path, roles = counts.path, ("user", "item", "time")
    sniffed = [row for _, row in islice(csv_rows(path), SNIFFED_ROWS)]
    header = [cell.strip().lower() for cell in sniffed[0]]
    named = {role: [header.index(name) for name in ROLES[role] if name in header] for role in roles}
    if all(named.values()):
        places, first_row = {role: found[0] for role, found in named.items()}, 1
    else:
        rows, header, first_row = [row for row in sniffed if len(row) == 4], [""] * 4, 0
        if not rows:
            raise InputError(
                f"{path}: neither a review release nor ratings: expected JSON lines, or user,item,rating,time, got "
                f"{','.join(sniffed[0])[:60]!r}"
            )
        # Items are ASINs of ten characters, users are longer; the columns of 2014 and 2018 are swapped.
        asins = [sum(ASIN.fullmatch(row[column].strip()) is not None for row in rows) / len(rows) for column in (0, 1)]
        if abs(asins[0] - asins[1]) < 0.5:
            raise InputError(
                f"{path}: which column is the user and which the item cannot be told (no header, {percent(asins[0])} and "
                f"{percent(asins[1])} ASINs): put the line user,item,rating,timestamp on top, in the file's order"
            )
        item = 0 if asins[0] > asins[1] else 1
        places = {"user": 1 - item, "item": item, "time": 3}

    def parse(row: list[str]) -> Single:
        cells = chosen_cells(row, len(header), places)
        user, item = identifier(cells, ("user",), "no user"), identifier(cells, ("item",), "no item")
        return user, item, unix_seconds(cells["time"])

    return counts.parsed(islice(csv_rows(path, counts, progress), first_row, None), parse)
