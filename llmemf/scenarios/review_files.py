"""Reader of Amazon review files: who reviewed what and when, of the releases of 2014, 2018 and 2023.

| release | user, item, time | file |
|---|---|---|
| 2014, 2018 | reviewerID, asin, unixReviewTime (seconds) | `*.json.gz`, JSON lines or lines of Python literals |
| 2023 | user_id, parent_asin, timestamp (milliseconds) | `*.jsonl.gz` |
| any | the same columns | `*.parquet` |
| ratings only | 2014: user, item, rating, time; 2018: item, user, rating, time; 2023: with a header | `*.csv`, `*.csv.gz` |

What a file is, its content says. Blocks of lines go through pyarrow's parsers, which read the three fields alone; a
block that they refuse is halved until the odd lines stand alone, and these are read one by one in Python.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json

from llmemf.errors import InputError
from llmemf.io import file_hash
from llmemf.scenarios.bad_lines import BadLine, LineCounts
from llmemf.scenarios.line_blocks import LineBlock, LineFile, Progress, count_lines
from llmemf.scenarios.loose_records import ITEM_KEYS, LITERAL, MISSING, decode, flat_literal, identifier, parse_record
from llmemf.scenarios.table_rows import is_parquet, open_parquet, parquet_batches
from llmemf.text_format import percent

USER_KEYS = ("reviewerID", "user_id")
TIME_KEYS = ("unixReviewTime", "timestamp")
CSV_NAMES = {
    "user": ("user", "user_id", "reviewerid", "userid"),
    "item": ("parent_asin", "item", "asin", "item_id", "itemid", "productid"),
    "time": ("timestamp", "time", "unixreviewtime"),
}
MILLISECONDS_FROM = 100_000_000_000
"""Times from here on are milliseconds: as seconds they would lie in the year 5138, as milliseconds in 1973."""
LATEST_TIME = 4_102_444_800
"""Start of the year 2100 in Unix seconds; later times, and those before 1970, are mistakes."""
ALONE = 32
"""A refused block of this many lines or fewer is read line by line."""
ASIN = re.compile(r"[0-9A-Z]{10}")
SNIFFED_LINES = 200


Single = tuple[str, str, int, list[str]]
"""User, item and time of one review, and what had to be mended in its line."""
Row = TypeVar("Row")


class ReviewColumns(NamedTuple):
    """Some reviews in the order of the file.

    Attributes:
        users, items: strings.
        times: uint32 Unix seconds.
    """

    users: pa.Array
    items: pa.Array
    times: np.ndarray


def read_reviews(
    path: str | Path, counts: LineCounts, max_bad: float = 0.01, progress: Progress | None = None
) -> Iterator[ReviewColumns]:
    """Yield the reviews of a file, some thousand at a time.

    Args:
        path: the file.
        counts: filled while reading, final when the reviews are exhausted.
        max_bad: share of the lines that may be unusable.
        progress: see `line_blocks`.

    Raises:
        InputError: the file cannot be read, or too many of its lines cannot be used.
    """
    if is_parquet(Path(path)):
        yield from _parquet_reviews(Path(path), counts, max_bad, progress)
        return
    file = LineFile(path, progress)
    layout: RecordLayout | CsvLayout | None = None
    for block in file.blocks():
        data, first_line, num_lines = block
        if layout is None:
            layout, header_lines = _sniff(data, Path(path))
            for _ in range(header_lines):
                _, _, data = data.partition(b"\n")
            first_line, num_lines = first_line + header_lines, num_lines - header_lines
        yield from _parse(LineBlock(data, first_line, num_lines), layout, counts)
        counts.check_early(max_bad)
    counts.finish(file, max_bad)


def _parquet_reviews(
    path: Path, counts: LineCounts, max_bad: float, progress: Progress | None
) -> Iterator[ReviewColumns]:
    """The reviews of a table whose columns are called as the fields of the records."""
    header = open_parquet(path).schema_arrow.names
    columns = [[key for key in keys if key in header] for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS)]
    if not all(columns):
        wanted = " and ".join(" or ".join(keys) for keys in (USER_KEYS, ITEM_KEYS, TIME_KEYS))
        raise InputError(f"{path}: a table of reviews needs the columns {wanted}; it has {', '.join(header)}")
    (user, *_), items, (time, *_) = columns
    for first, batch in parquet_batches(path, [user, *items, time], progress):
        table = pa.Table.from_batches([batch])
        if pa.types.is_timestamp(table[time].type):
            in_seconds = table[time].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
            table = table.set_column(table.column_names.index(time), time, in_seconds)
        counts.lines += len(table)
        whole = None
        if pa.types.is_integer(table[time].type) and all(pa.types.is_string(table[key].type) for key in (user, *items)):
            whole = _checked(table[user], pc.coalesce(*(table[key] for key in items)), table[time])
        yield whole or _one_by_one(
            enumerate(table.to_pylist(), start=first),
            _fields,
            lambda record: ", ".join(map(str, record.values())),
            counts,
        )
        counts.check_early(max_bad)
    counts.check(max_bad)
    counts.sha256 = file_hash(path)


def _one_by_one(
    rows: Iterable[tuple[int, Row]], parse: Callable[[Row], Single], shown: Callable[[Row], str], counts: LineCounts
) -> ReviewColumns:
    """Numbered lines or records, each parsed alone; the bad ones are counted and left out."""
    users, items, times = [], [], []
    for number, row in rows:
        try:
            user, item, time, mended = parse(row)
        except BadLine as error:
            counts.add_bad(number, str(error), shown(row))
            continue
        users.append(user)
        items.append(item)
        times.append(time)
        counts.mended.update(mended)
    return ReviewColumns(pa.array(users, pa.string()), pa.array(items, pa.string()), np.asarray(times, dtype=np.uint32))


def _fields(record: dict, mended: list[str] | None = None) -> Single:
    user, item = identifier(record, USER_KEYS, "no user"), identifier(record, ITEM_KEYS, "no item")
    return user, item, _time_of(record), mended or []


def seconds(time: int) -> int:
    """Unix seconds of a time in seconds or milliseconds.

    Raises:
        BadLine: it lies before 1970 or after 2099.
    """
    time = time // 1000 if time >= MILLISECONDS_FROM else time
    if not 0 < time < LATEST_TIME:
        raise BadLine("time out of range 1970..2099")
    return time


def _parse(block: LineBlock, layout: RecordLayout | CsvLayout, counts: LineCounts) -> Iterator[ReviewColumns]:
    data, first_line, num_lines = block
    columns = layout.whole(data)
    # The parsers are content with two records in a line, or one in two lines, and leave out blank lines.
    if columns is not None and (len(columns.times) == num_lines or len(columns.times) == _num_records(data)):
        counts.lines += len(columns.times)
        yield columns
    elif num_lines > ALONE and layout.can_halve and 0 < (middle := data.find(b"\n", len(data) // 2) + 1) < len(data):
        above = count_lines(data[:middle])
        yield from _parse(LineBlock(data[:middle], first_line, above), layout, counts)
        yield from _parse(LineBlock(data[middle:], first_line + above, num_lines - above), layout, counts)
    else:
        yield _line_by_line(data, first_line, layout, counts)


def _line_by_line(data: bytes, first_line: int, layout: RecordLayout | CsvLayout, counts: LineCounts) -> ReviewColumns:
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=first_line) if line.strip()]
    counts.lines += len(lines)
    return _one_by_one(lines, layout.single, lambda line: decode(line.strip()[:80])[0], counts)


def _sniff(data: bytes, path: Path) -> tuple[RecordLayout | CsvLayout, int]:
    """The layout of a file by its first block, and how many header lines it has."""
    lines = [line for line in data[: 1 << 20].split(b"\n")[:SNIFFED_LINES] if line.strip()]
    if sum(line.lstrip()[:1] in b"{[" for line in lines) > len(lines) / 2:
        for line in lines:
            try:
                record, _ = parse_record(line)
            except BadLine:
                continue
            literal = LITERAL.match(decode(line)[0]) is not None
            return RecordLayout(can_halve=not literal, of_2023="user_id" in record), 0
        return RecordLayout(can_halve=False, of_2023=False), 0
    return _sniff_csv([decode(line)[0] for line in lines], path)


def _sniff_csv(lines: list[str], path: Path) -> tuple[CsvLayout, int]:
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: neither records nor comma-separated ratings ({error})") from None
    header = [cell.strip().lower() for cell in rows[0]]
    found = {
        role: header.index(name)
        for role, names in CSV_NAMES.items()
        if (name := next(filter(header.count, names), None))
    }
    if found.keys() == CSV_NAMES.keys():
        return CsvLayout(len(header), **found), 1
    rows = [row for row in rows if len(row) == 4]
    if not rows:
        raise InputError(
            f"{path}: neither a review release nor ratings: expected JSON lines, or user,item,rating,time, got "
            f"{lines[0][:60]!r}"
        )
    # Items are ASINs of ten characters, users are longer; the columns of 2014 and 2018 are swapped.
    asins = [sum(ASIN.fullmatch(row[column].strip()) is not None for row in rows) / len(rows) for column in (0, 1)]
    if abs(asins[0] - asins[1]) < 0.5:
        raise InputError(
            f"{path}: which column is the user and which the item cannot be told (no header, {percent(asins[0])} and "
            f"{percent(asins[1])} ASINs): put the line user,item,rating,timestamp on top, in the file's order"
        )
    item = 0 if asins[0] > asins[1] else 1
    return CsvLayout(4, user=1 - item, item=item, time=3), 0


class RecordLayout:
    """Lines of records: `whole` parses all of them at once, None if any is odd, `single` one line, or raises BadLine.

    `can_halve` is False for Python literals, which pyarrow cannot parse, so that `whole` never succeeds.
    """

    def __init__(self, *, can_halve: bool, of_2023: bool) -> None:
        self.can_halve = can_halve
        user, time = ("user_id", "timestamp") if of_2023 else ("reviewerID", "unixReviewTime")
        self._user, self._time = user, time
        # parent_asin is asked for in every release: where one has it, it is the item, as for single lines.
        fields = [(user, pa.string()), ("asin", pa.string()), ("parent_asin", pa.string()), (time, pa.int64())]
        self._options = pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")

    def whole(self, data: bytes) -> ReviewColumns | None:
        if not self.can_halve:
            return None
        try:
            table = pa_json.read_json(
                pa.BufferReader(data),
                read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=self._options,
            )
            items = pc.coalesce(table["parent_asin"], table["asin"])
            return _checked(table[self._user], items, table[self._time])
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None

    def single(self, line: bytes) -> Single:
        if not self.can_halve and (usual := self._usual_literal(line)) is not None:
            return usual
        return _fields(*parse_record(line))

    def _usual_literal(self, line: bytes) -> Single | None:
        """The fields of a Python literal that is as it should be, None if its parsing should decide."""
        text, wrong_bytes = decode(line)
        values = flat_literal(text)
        if values is None or "parent_asin" in values:
            return None
        user, item, time = (values.get(key, "") for key in (self._user, "asin", self._time))
        names = [value[1:-1].strip() for value in (user, item) if value[:1] in ("'", '"') and "\\" not in value]
        if len(names) < 2 or "" in names or not time.isdecimal():
            return None
        return names[0], names[1], seconds(int(time)), [wrong_bytes] if wrong_bytes else []


class CsvLayout:
    """Comma-separated ratings, parsed as `RecordLayout` does: the number of columns and where user, item and time stand."""

    can_halve = True

    def __init__(self, width: int, user: int, item: int, time: int) -> None:
        self._width, self._user, self._item, self._time = width, user, item, time
        names = [str(column) for column in range(width)]
        wanted = [names[column] for column in (user, item, time)]
        self._read = pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=1 << 30)
        self._convert = pa_csv.ConvertOptions(
            include_columns=wanted,
            column_types={wanted[0]: pa.string(), wanted[1]: pa.string(), wanted[2]: pa.int64()},
            strings_can_be_null=False,
            null_values=[],
        )

    def whole(self, data: bytes) -> ReviewColumns | None:
        try:
            table = pa_csv.read_csv(pa.BufferReader(data), read_options=self._read, convert_options=self._convert)
            return _checked(*table.columns)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None

    def single(self, line: bytes) -> Single:
        text, wrong_bytes = decode(line)
        try:
            row = next(csv.reader([text.strip()], strict=True))
        except (csv.Error, StopIteration):
            raise BadLine("not comma-separated") from None
        if len(row) != self._width:
            raise BadLine(f"not {self._width} cells")
        record = dict(zip(("user", "item", "time"), (row[self._user], row[self._item], row[self._time])))
        user, item = identifier(record, ("user",), "no user"), identifier(record, ("item",), "no item")
        return user, item, seconds(_whole_number(record["time"])), [wrong_bytes] if wrong_bytes else []


def _checked(users: pa.ChunkedArray, items: pa.ChunkedArray, times: pa.ChunkedArray) -> ReviewColumns | None:
    """The columns, None if one of them lacks a value or a time is out of range."""
    if users.null_count or items.null_count or times.null_count or not len(times):
        return None
    users, items = (pc.utf8_trim_whitespace(column.combine_chunks()) for column in (users, items))
    if any(pc.any(pc.is_in(column, value_set=pa.array(MISSING))).as_py() for column in (users, items)):
        return None
    values = times.to_numpy()
    values = np.where(values >= MILLISECONDS_FROM, values // 1000, values)
    if values.min() <= 0 or values.max() >= LATEST_TIME:
        return None
    return ReviewColumns(users, items, values.astype(np.uint32))


def _num_records(data: bytes) -> int:
    """Lines that are not blank."""
    return sum(1 for line in data.split(b"\n") if line.strip())


def _time_of(record: dict) -> int:
    for key in TIME_KEYS:
        if (value := record.get(key)) is not None and value not in MISSING:
            return seconds(_whole_number(value))
    written = record.get("reviewTime")
    if isinstance(written, str) and written.strip() not in MISSING:
        try:
            return seconds(int(datetime.strptime(written.strip(), "%m %d, %Y").replace(tzinfo=UTC).timestamp()))
        except ValueError:
            raise BadLine("time is no number") from None
    raise BadLine("no time")


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadLine("time is no number")
    try:
        return int(value)
    except (ValueError, OverflowError):
        try:
            return int(float(value))
        except (ValueError, OverflowError):
            raise BadLine("time is no number") from None
