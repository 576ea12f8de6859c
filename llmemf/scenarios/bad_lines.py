"""Lines and rows that cannot be used: counted, the first ones kept with their place, refused if they are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from llmemf.errors import InputError
from llmemf.io import file_hash
from llmemf.scenarios.lines import decode, quoted
from llmemf.text_format import percent

NAMED_LINES = 3
EARLY_LINES = 10_000
Row = TypeVar("Row")
Parsed = TypeVar("Parsed")


class BadLine(Exception):
    """A line that cannot be used; the text is the reason, the same for all lines of its kind."""


@dataclass
class LineCounts:
    """What became of the lines of one file.

    Attributes:
        path: the file.
        max_bad: share of the lines that may be unusable.
        lines: lines that are not blank.
        bad: number of unusable lines by reason.
        first_bad: the first of them, with file, line, reason and text.
        mended: number of lines by what had to be put right in them to read them.
        sha256: of the file, once all of it was read.
    """

    path: Path
    max_bad: float = 0.01
    lines: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    first_bad: list[str] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    sha256: str | None = None

    @property
    def num_bad(self) -> int:
        return sum(self.bad.values())

    def parsed(self, rows: Iterable[tuple[int, Row]], parse: Callable[[Row], Parsed]) -> Iterator[tuple[int, Parsed]]:
        """What `parse` makes of numbered lines or rows; those that it refuses by BadLine are counted and left out.

        Raises:
            InputError: most of many lines are bad, so that a wrong file is not read to its end.
        """
        for number, row in rows:
            self.lines += 1
            try:
                yield number, parse(row)
            except BadLine as error:
                self.bad[str(error)] += 1
                if len(self.first_bad) < NAMED_LINES:
                    self.first_bad.append(f"{self.path}:{number}: {error}: {quoted(_shown(row))}")
                if self.lines >= EARLY_LINES and self.num_bad > self.lines * max(0.5, self.max_bad):
                    self._refuse()

    def finish(self) -> None:
        """Check the counts of the whole file.

        Raises:
            InputError: more than `max_bad` of the lines are bad, or none is there.
        """
        if not self.lines:
            raise InputError(f"{self.path} has no line with content")
        if self.num_bad > self.lines * self.max_bad or self.num_bad == self.lines:
            self._refuse()
        self.sha256 = file_hash(self.path)

    def _refuse(self) -> None:
        raise InputError(
            f"{self.num_bad:,} of {self.lines:,} lines cannot be used ({percent(self.num_bad / self.lines, 1)}, allowed "
            f"{percent(self.max_bad, 1)}, --max-bad-lines); the first: {self.first_bad[0]}"
        )


def _shown(row: object) -> str:
    if isinstance(row, bytes):
        return decode(row.strip()[:80])[0]
    return ", ".join(map(str, row.values() if isinstance(row, dict) else row)) if isinstance(row, dict | list) else ""
