"""Rows of a CSV or Parquet table by the roles of their columns, one after the other, in bounded memory.

CSV has a header, is UTF-8 (also gzipped), and is separated by commas, tabs or semicolons, whichever its header holds
most of; cells in double quotes may hold separators and line ends.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet

from llmemf.errors import InputError
from llmemf.scenarios.bad_lines import BadLine, LineCounts
from llmemf.scenarios.line_blocks import LONGEST_LINE, LineFile, Progress
from llmemf.scenarios.loose_records import decode

ROLES = {
    "user": ("user", "user_id", "userid", "customer", "customer_id"),
    "item": ("item", "item_id", "itemid", "external_id", "parent_asin", "asin", "sku", "product_id", "id"),
    "time": ("time", "timestamp", "unixtime", "datetime", "date", "order_date", "ordered_at", "created_at"),
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
        if self._is_parquet:
            header = open_parquet(path).schema_arrow.names
        else:
            header, self._separator = self._csv_header()
        self._width = len(header)
        self._column_of: dict[str, int] = {}
        self.header = [str(cell).strip().lower() for cell in header]
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
        self,
        counts: LineCounts,
        max_bad: float,
        parse: Callable[[dict[str, object]], Parsed],
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Parsed]]:
        """Yield the number of every row (CSV: of its last line, Parquet: from 1) and what was made of its cells.

        Args:
            counts: rows are counted here, also those of a wrong width or that cannot be parsed.
            max_bad: share of bad rows; checked on the way and at the end.
            parse: takes a row's cells by role; raises BadLine where they are unusable.
            progress: see `line_blocks`.

        Raises:
            InputError: the file cannot be read, or too many rows are bad.
        """
        source = self._parquet_rows(progress) if self._is_parquet else self._csv_rows(counts, max_bad, progress)
        row: list[str] | dict[str, object]
        for number, row in source:
            counts.lines += 1
            try:
                if isinstance(row, list):
                    if len(row) != self._width:
                        raise BadLine(f"not {self._width} cells")
                    row = {role: row[place] for role, place in self._column_of.items()}
                yield number, parse(row)
            except BadLine as error:
                cells = row if isinstance(row, list) else row.values()
                counts.add_bad(number, str(error), ", ".join(map(str, cells)))
            if counts.lines % BATCH_ROWS == 0:
                counts.check_early(max_bad)
        if self._is_parquet:
            counts.check(max_bad)

    def _csv_header(self) -> tuple[list[str], str]:
        for block in LineFile(self.path).blocks():
            first = decode(next(line for line in block.data.split(b"\n") if line.strip()))[0]
            separator = max((",", "\t", ";"), key=first.count)
            return next(csv.reader([first], delimiter=separator)), separator
        raise InputError(f"{self.path} is empty")

    def _csv_rows(
        self, counts: LineCounts, max_bad: float, progress: Progress | None
    ) -> Iterator[tuple[int, list[str]]]:
        file = LineFile(self.path, progress)

        def lines() -> Iterator[str]:
            for block in file.blocks():
                for line in block.data.splitlines(keepends=True):
                    text, wrong_bytes = decode(line)
                    if wrong_bytes:
                        counts.mended[wrong_bytes] += 1
                    yield text
            yield END

        csv.field_size_limit(LONGEST_LINE)
        reader = csv.reader(lines(), delimiter=self._separator)
        header_seen = False
        last_line = 0
        row: list[str] = []
        try:
            for row in reader:
                if row and row[-1].endswith(END):
                    break
                if row and header_seen:
                    yield reader.line_num, row
                header_seen = header_seen or bool(row)
                last_line = reader.line_num
        except csv.Error as error:
            raise InputError(f"{self.path}:{last_line + 1}: {error}: is a quote not closed?") from None
        if row != [END]:
            number = reader.line_num - 1
            if number > last_line + 1:
                raise InputError(f"{self.path}:{last_line + 1}: a quote is not closed before the end of the file")
            yield number, [*row[:-1], row[-1].removesuffix(END).rstrip("\r\n")]
        counts.finish(file, max_bad)

    def _parquet_rows(self, progress: Progress | None) -> Iterator[tuple[int, dict[str, object]]]:
        header = open_parquet(self.path).schema_arrow.names
        names = [header[place] for place in self._column_of.values()]
        for first, batch in parquet_batches(self.path, names, progress):
            cells = [batch[name].to_pylist() for name in names]
            for number, row in enumerate(zip(*cells), start=first):
                yield number, dict(zip(self._column_of, row))


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
