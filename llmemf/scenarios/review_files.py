"""Reader of Amazon review files: who reviewed what and when, of the releases of 2014, 2018 and 2023.

| release | user, item, time | file |
|---|---|---|
| 2014, 2018 | reviewerID, asin, unixReviewTime (seconds) | `*.json.gz`, JSON lines or lines of Python literals |
| 2023 | user_id, parent_asin, timestamp (milliseconds) | `*.jsonl.gz` |
| any | the same columns | `*.parquet` |
| ratings only | 2014: user, item, rating, time; 2018: item, user, rating, time; 2023: with a header | `*.csv`, `*.csv.gz` |

What a file is, its content says. Blocks of lines go through pyarrow's parsers, which read the few fields alone; a block
that they refuse is read line by line in Python.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json

from llmemf.errors import InputError
from llmemf.scenarios.bad_lines import BadLine, LineCounts
from llmemf.scenarios.lines import LineBlock, Progress, decode, line_blocks
from llmemf.scenarios.loose_records import (
    ITEM_KEYS,
    LATEST_TIME,
    MILLISECONDS_FROM,
    MISSING,
    NO_TIME,
    flat_literal,
    identifier,
    parse_record,
    unix_seconds,
)
from llmemf.scenarios.table_rows import ROLES, chosen_cells, is_parquet, open_parquet, parquet_rows
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
    else:
        sniffed = next(line_blocks(counts.path))
        is_json = _holds_records(sniffed)
        has_header, whole, single = (False, _whole, _single) if is_json else _ratings(sniffed, counts.path)
        for block in line_blocks(counts.path, progress):
            if has_header and block.first_line == 1:
                block = LineBlock(block.data.partition(b"\n")[2], 2, block.num_lines - 1)
            columns = whole(block)
            if columns is None:
                yield from _in_columns(counts.parsed(block.lines(), partial(single, counts=counts)))
            else:
                counts.lines += len(columns.times)
                yield columns
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
        return _checked(
            block, *(pc.coalesce(*(table[key] for key in keys)) for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS))
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None


def _checked(block: LineBlock, *columns: pa.ChunkedArray) -> ReviewColumns | None:
    """Users, items and times of a block, None if one of them lacks a value or a time is out of range."""
    users, items, times = (column.combine_chunks() for column in columns)
    # The parsers are content with two records in a line, or one in two lines, and leave out blank lines.
    if not len(times) or (len(times) != block.num_lines and len(times) != sum(1 for _ in block.lines())):
        return None
    users, items = pc.utf8_trim_whitespace(users), pc.utf8_trim_whitespace(items)
    missing = pa.array(MISSING)
    if times.null_count or any(
        column.null_count or pc.any(pc.is_in(column, value_set=missing)).as_py() for column in (users, items)
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
        raise BadLine(NO_TIME) from None


def _parquet_reviews(counts: LineCounts, progress: Progress | None) -> Iterator[tuple[int, Single]]:
    """The reviews of a table whose columns are called as the fields of the records."""
    header = open_parquet(counts.path).schema_arrow.names
    groups = [[key for key in keys if key in header] for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS)]
    if not all(groups):
        wanted = " and ".join(" or ".join(keys) for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS))
        raise InputError(f"{counts.path}: a table of reviews needs the columns {wanted}; it has {', '.join(header)}")
    return counts.parsed(parquet_rows(counts.path, {key: key for key in chain(*groups)}, progress), _fields)


def _ratings(sniffed: LineBlock, path: Path) -> tuple[bool, Callable, Callable]:
    """Whether ratings have a header, and how a block and a line of them are read: by the names of a header, or by what the columns hold."""
    try:
        rows = list(csv.reader((decode(line)[0] for _, line in islice(sniffed.lines(), SNIFFED_ROWS)), strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: neither records nor comma-separated ratings ({error})") from None
    header = [cell.strip().lower() for cell in rows[0]]
    named = [[header.index(name) for name in ROLES[role] if name in header] for role in ("user", "item", "time")]
    has_header = all(named)
    places = [found[0] for found in named] if has_header else _places(rows, path)
    width = len(header) if has_header else 4
    names = [str(column) for column in range(width)]
    wanted = [names[place] for place in places]
    reading = pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=1 << 30)
    conversion = pa_csv.ConvertOptions(
        include_columns=wanted,
        column_types=dict(zip(wanted, (pa.string(), pa.string(), pa.int64()))),
        strings_can_be_null=False,
        null_values=[],
    )

    def whole(block: LineBlock) -> ReviewColumns | None:
        try:
            table = pa_csv.read_csv(pa.BufferReader(block.data), read_options=reading, convert_options=conversion)
            return _checked(block, *table.columns)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None

    def single(line: bytes, counts: LineCounts) -> Single:
        text, wrong_bytes = decode(line)
        try:
            row = next(csv.reader([text.strip()], strict=True))
        except (csv.Error, StopIteration):
            raise BadLine("not comma-separated") from None
        cells = chosen_cells(row, width, dict(zip(("user", "item", "time"), places)))
        user, item = identifier(cells, ("user",), "no user"), identifier(cells, ("item",), "no item")
        seconds = unix_seconds(cells["time"])
        counts.mended.update([wrong_bytes] if wrong_bytes else [])
        return user, item, seconds

    return has_header, whole, single


def _places(rows: list[list[str]], path: Path) -> list[int]:
    """Where user, item and time stand in ratings without a header.

    Items are ASINs of ten characters, users are longer; the columns of 2014 and 2018 are swapped.
    """
    fours = [row for row in rows if len(row) == 4]
    if not fours:
        raise InputError(
            f"{path}: neither a review release nor ratings: expected JSON lines, or user,item,rating,time, got "
            f"{','.join(rows[0])[:60]!r}"
        )
    asins = [sum(ASIN.fullmatch(row[column].strip()) is not None for row in fours) / len(fours) for column in (0, 1)]
    if abs(asins[0] - asins[1]) < 0.5:
        raise InputError(
            f"{path}: which column is the user and which the item cannot be told (no header, {percent(asins[0])} and "
            f"{percent(asins[1])} ASINs): put the line user,item,rating,timestamp on top, in the file's order"
        )
    return [1, 0, 3] if asins[0] > asins[1] else [0, 1, 3]
