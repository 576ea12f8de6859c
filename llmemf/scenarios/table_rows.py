"""Rows of a CSV or Parquet table by the roles of their columns, one after the other, in bounded memory.

CSV has a header, is UTF-8 (also gzipped), and is separated by commas, tabs or semicolons, whichever its header holds
most of; cells in double quotes may hold separators and line ends.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet

from llmemf.errors import InputError
from llmemf.scenarios.bad_lines import BadLine, LineCounts
from llmemf.scenarios.lines import LONGEST_LINE, Progress, decode, line_blocks

ROLES = {
    "user": ("user", "user_id", "userid", "reviewerid", "customer", "customer_id"),
    "item": ("item", "item_id", "itemid", "external_id", "parent_asin", "asin", "sku", "product_id", "productid", "id"),
    "time": (
        "time",
        "timestamp",
        "unixtime",
        "unixreviewtime",
        "datetime",
        "date",
        "order_date",
        "ordered_at",
        "created_at",
    ),
    "domain": ("domain", "shop"),
    "title": ("title", "name"),
    "description": ("description",),
    "categories": ("categories", "category"),
    "image": ("image", "image_url", "image_address"),
}
"""Role of a column, and what it is usually called (upper and lower case, and blanks, hyphens and underscores are the same)."""
BATCH_ROWS = 10_000
Parsed = TypeVar("Parsed")
END = "\0end of the table\0"
"""Put behind the last row: where a quote was not closed, it stands inside a cell."""


class TableRows:
    """A table whose columns have been found.

    Attributes:
        path: the file.
        header: names of all columns in lower case.
        present: roles that the table has.
    """

    def __init__(
        self, path: Path, needed: tuple[str, ...], optional: tuple[str, ...], columns: Mapping[str, str]
    ) -> None:
        """Look at the header; a role takes the column that `columns` names for it, or else one of a usual name.

        Raises:
            InputError: the file cannot be read, or a needed column is missing.
        """
        self.path = path
        self._is_parquet = is_parquet(path)
        found = open_parquet(path).schema_arrow.names if self._is_parquet else next(csv_rows(path))[1]
        self._column_of: dict[str, int] = {}
        self.header = [str(cell).strip().lower() for cell in found]
        usual = [re.sub("[ -]+", "_", name) for name in self.header]
        for role in (*needed, *optional):
            names = (*([columns[role].lower()] if role in columns else []), *ROLES[role])
            place = next((row.index(name) for name in names for row in (self.header, usual) if name in row), None)
            if place is not None:
                self._column_of[role] = place
            elif role in needed:
                raise InputError(
                    f"{path}: no column for the {role} (looked for {', '.join(names)}); it has {', '.join(self.header)}; "
                    f"name it with --columns {role}=COLUMN"
                )
        self.present = tuple(self._column_of)

    def read(
        self, counts: LineCounts, parse: Callable[[dict[str, Any]], Parsed], progress: Progress | None = None
    ) -> Iterator[tuple[int, Parsed]]:
        """Yield the number of every row (CSV: of its last line, Parquet: from 1) and what was made of its cells.

        Args:
            counts: rows are counted here, also those of a wrong width or that cannot be parsed.
            parse: takes a row's cells by role; raises BadLine where they are unusable.
            progress: see `lines`.

        Raises:
            InputError: the file cannot be read, or too many rows are bad.
        """
        if self._is_parquet:
            yield from counts.parsed(parquet_rows(self.path, self._column_of, progress), parse)
        else:
            rows = islice(csv_rows(self.path, counts, progress), 1, None)
            yield from counts.parsed(rows, lambda row: parse(chosen_cells(row, len(self.header), self._column_of)))
        counts.finish()


def chosen_cells(row: list[str], width: int, column_of: Mapping[str, int]) -> dict[str, Any]:
    """The cells of a row by the roles of their columns.

    Raises:
        BadLine: it has more or fewer cells than the table has columns.
    """
    if len(row) != width:
        raise BadLine(f"not {width} cells")
    return {role: row[place] for role, place in column_of.items()}


def csv_rows(
    path: Path, counts: LineCounts | None = None, progress: Progress | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, its header first, each with the number of its last line.

    Args:
        counts: lines that are not UTF-8 are counted here.

    Raises:
        InputError: the file cannot be read, or a quote in it is not closed.
    """

    def lines() -> Iterator[str]:
        for block in line_blocks(path, progress):
            for line in block.data.splitlines(keepends=True):
                text, wrong_bytes = decode(line)
                if wrong_bytes and counts is not None:
                    counts.mended[wrong_bytes] += 1
                yield text
        yield END

    all_lines, head = lines(), [""]
    while not head[-1].strip():
        head.append(next(all_lines))
    csv.field_size_limit(LONGEST_LINE)
    separator = max((",", "\t", ";"), key=head[-1].count)
    reader = csv.reader(chain(head[1:], all_lines), delimiter=separator)
    row: list[str] = []
    last_line = 0
    try:
        for row in reader:
            if row and row[-1].endswith(END):
                break
            if row:
                yield reader.line_num, row
            last_line = reader.line_num
    except csv.Error as error:
        raise InputError(f"{path}:{last_line + 1}: {error}: is a quote not closed?") from None
    if row != [END]:
        number = reader.line_num - 1
        if number > last_line + 1:
            raise InputError(f"{path}:{last_line + 1}: a quote is not closed before the end of the file")
        yield number, [*row[:-1], row[-1].removesuffix(END).rstrip("\r\n")]


def parquet_rows(
    path: Path, column_of: Mapping[str, int | str], progress: Progress | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet table, numbered from 1: some of its columns, by name or place, under other names."""
    header = open_parquet(path).schema_arrow.names
    names = [header[place] if isinstance(place, int) else place for place in column_of.values()]
    for first, batch in parquet_batches(path, names, progress):
        cells = [batch[name].to_pylist() for name in names]
        for number, row in enumerate(zip(*cells), start=first):
            yield number, dict(zip(column_of, row))


def parquet_batches(
    path: Path, columns: Sequence[str], progress: Progress | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Some thousand rows at a time of some columns, and the number from 1 of the first of them.

    Raises:
        InputError: the file is damaged; with the row.
    """
    file = open_parquet(path)
    total, size = file.metadata.num_rows, path.stat().st_size
    number = 1
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns))):
            yield number, batch
            number += len(batch)
            if progress is not None:
                progress(path, size * (number - 1) // max(total, 1), size)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: row {number}: {error}") from error


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def open_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    """A Parquet file by its columns.

    Raises:
        InputError: it is none, or damaged.
    """
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file ({error})") from error
