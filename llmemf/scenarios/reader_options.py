"""What a user can set when raw data becomes a scenario: each option once, with its help and its limits.

Commands make their options of the fields; the names in messages are those of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from llmemf.command_line import Checked, Option
from llmemf.errors import InputError

PublishedSplit = Literal["published", "leave_last_out"]
WindowSplit = Literal["latest", "timeline"]
"""See `splits.split_windows`."""
TieBreak = Literal["file", "random", "drop"]
"""Order of items of the same time: the file's, a drawn one, or the file's without the cases that it decides."""
Filter = Literal["core", "once"]
"""See `interaction_filter.enough_interactions`."""
Repeats = Literal["first", "last"]
HistoryRepeats = Literal["keep", "last", "first"]
CandidateDraw = Literal["c2dsr", "distinct_unseen"]
"""See `candidates.stored_candidates`."""


@dataclass(frozen=True)
class CandidateOptions(Checked):
    """How the stored candidates of every case are drawn, see `candidates.stored_candidates`."""

    candidates: Annotated[int, Option("Stored negatives per evaluation case.", least=1)] = 999
    candidate_seed: Annotated[int, Option("Seed of the stored negatives.", least=0)] = 0
    candidate_draw: Annotated[
        CandidateDraw,
        Option(
            "c2dsr: with replacement, the user's own items included, as published; distinct_unseen: distinct items that the "
            "user has not met, as ABXI has it.",
        ),
    ] = "c2dsr"


@dataclass(frozen=True)
class WindowOptions(CandidateOptions):
    """How published windows are read, see `windows.read_windows`."""

    split: Annotated[PublishedSplit, Option("Take the three files as they are, or cut every user's latest window.")] = (
        "published"
    )
    tie_break: Annotated[
        TieBreak,
        Option("Items of the same time: in the file's order, shuffled, or leave out the cases that they decide."),
    ] = "file"
    seed: Annotated[int, Option("Seed of --tie-break random.", least=0)] = 0


@dataclass(frozen=True)
class HistoryOptions(CandidateOptions):
    """How plain histories are read, see `histories.read_histories`."""

    repeats: Annotated[
        HistoryRepeats, Option("Of an item that a history repeats, keep all, the last, or the first.")
    ] = "keep"
    min_length: Annotated[int, Option("Skip users with fewer items.", least=2)] = 4


@dataclass(frozen=True)
class WindowLimits(Checked):
    """What a window may be; `max_days` None or 0 means any time."""

    min_per_domain: Annotated[int, Option("Items of each domain in a window.", least=0)] = 3
    min_length: Annotated[int, Option("Items in a window, at least.", least=2)] = 6
    max_length: Annotated[int, Option("Items in a window, at most.", least=2)] = 15
    max_days: Annotated[
        float | None,
        Option(
            "Days from a window's first item to its last, 0 for no limit (published: Movie-Book 30, Food-Kitchen 365).",
            least=0,
        ),
    ] = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = max(self.min_length, 2 * self.min_per_domain)
        if self.max_length < needed:
            raise InputError(
                f"windows of at most {self.max_length} items cannot hold {needed}: raise --max-length, or lower "
                "--min-length and --min-per-domain"
            )
        object.__setattr__(self, "max_days", self.max_days or None)


@dataclass(frozen=True)
class PreparationOptions(CandidateOptions, WindowLimits):
    """How raw interactions become windows. The defaults follow the published Movie-Book data where it tells them."""

    min_user: Annotated[int, Option("Interactions a user needs, both domains together.", least=1)] = 10
    min_item: Annotated[int, Option("Interactions an item needs, of users of both domains.", least=1)] = 10
    filter: Annotated[Filter, Option("Repeat the filter until both hold for what is left, or count once.")] = "core"
    repeats: Annotated[Repeats, Option("Of a user's interactions with the same item, which one counts.")] = "first"
    split: Annotated[
        WindowSplit,
        Option(
            "latest: every user's latest window is for validation or test, as published; timeline: the latest windows of all "
            "users are.",
        ),
    ] = "latest"
    eval_share: Annotated[float, Option("Of --split timeline: share of the windows for validation, and for test.")] = (
        0.1
    )
    tie_break: Annotated[
        TieBreak,
        Option(
            "Items of the same time (a day before 2023): shuffled, X before Y as published, or that without the cases that "
            "it decides.",
        ),
    ] = "random"
    seed: Annotated[int, Option("Seed of ties and of the split.", least=0)] = 0
    max_bad_lines: Annotated[float, Option("Share of a file's lines that may be unusable.")] = 0.01
    hash_seed: Annotated[int, Option("Another hash of names, should two ever collide.", least=0, most=999)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.eval_share < 0.5:
            raise InputError(f"--eval-share {self.eval_share}: give a share between 0 and 0.5")
        if not 0 <= self.max_bad_lines < 1:
            raise InputError(f"--max-bad-lines {self.max_bad_lines}: give a share from 0 to below 1")
