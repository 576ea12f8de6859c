"""Lines that cannot be used: counted, the first ones kept with their place, refused if they are too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from llmemf.errors import InputError
from llmemf.scenarios.line_blocks import LineFile
from llmemf.scenarios.lines import quoted
from llmemf.text_format import percent

NAMED_LINES = 3
EARLY_LINES = 10_000


class BadLine(Exception):
    """A line that cannot be used; the text is the reason, the same for all lines of its kind."""


@dataclass
class LineCounts:
    """What became of the lines of one file.

    Attributes:
        path: the file.
        lines: lines that are not blank.
        bad: number of unusable lines by reason.
        first_bad: the first of them, with file, line, reason and text.
        mended: number of lines by what had to be put right in them to read them.
        damage: what is wrong with the file's compression, if anything is.
        sha256: of the file, where all of it was read.
    """

    path: Path
    lines: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    first_bad: list[str] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    damage: str | None = None
    sha256: str | None = None

    @property
    def num_bad(self) -> int:
        return sum(self.bad.values())

    def add_bad(self, number: int, reason: str, text: str) -> None:
        """Count one unusable line."""
        self.bad[reason] += 1
        if len(self.first_bad) < NAMED_LINES:
            self.first_bad.append(f"{self.path}:{number}: {reason}: {quoted(text)}")

    def check_early(self, max_share: float) -> None:
        """Raise InputError once most of many lines are bad, so that a wrong file is not read to its end."""
        if self.lines >= EARLY_LINES and self.num_bad > self.lines * max(0.5, max_share):
            self._refuse(max_share)

    def finish(self, file: LineFile, max_share: float) -> None:
        """Take over what became of the file as a whole, and check the counts.

        Raises:
            InputError: too much of the file is bad or cannot be read.
        """
        self.damage, self.sha256 = file.damage, file.sha256
        if file.unread_bytes > max_share * file.size:
            raise InputError(
                f"{self.path}: {file.damage}; {percent(file.unread_bytes / file.size, 1)} of the file cannot be read: get it again"
            )
        self.check(max_share)

    def check(self, max_share: float) -> None:
        """Raise InputError if more than `max_share` of the lines are bad, or none is there."""
        if not self.lines:
            raise InputError(f"{self.path} has no line with content")
        if self.num_bad > self.lines * max_share or self.num_bad == self.lines:
            self._refuse(max_share)

    def _refuse(self, max_share: float) -> None:
        raise InputError(
            f"{self.num_bad:,} of {self.lines:,} lines cannot be used ({percent(self.num_bad / self.lines, 1)}, allowed "
            f"{percent(max_share, 1)}, --max-bad-lines); the first: {self.first_bad[0]}"
        )
