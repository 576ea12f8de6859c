"""How raw interactions become windows: what a user can set, with its limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmemf.errors import InputError
from llmemf.scenarios.choices import CandidateDraw, Filter, Repeats, TieBreak, WindowSplit, check_choice


@dataclass(frozen=True)
class WindowLimits:
    """What a window may be: items of each domain, items in all, and days from the first to the last of them.

    `max_days` None means any time.
    """

    min_per_domain: int = 3
    min_length: int = 6
    max_length: int = 15
    max_days: float | None = 30

    def __post_init__(self) -> None:
        if self.min_per_domain < 0:
            raise InputError(f"{self.min_per_domain} items of each domain: give 0 or more (--min-per-domain)")
        if self.min_length < 2:
            raise InputError(f"windows of {self.min_length} item(s): at least 2 are needed (--min-length)")
        needed = max(self.min_length, 2 * self.min_per_domain)
        if self.max_length < needed:
            raise InputError(
                f"windows of at most {self.max_length} items cannot hold {needed}: raise --max-length, or lower "
                "--min-length and --min-per-domain"
            )
        if self.max_days is not None and not self.max_days > 0:
            raise InputError(f"windows of at most {self.max_days} days: give a positive number, or 0 for no limit")


@dataclass(frozen=True)
class PreparationOptions:
    """How raw interactions become windows. The defaults follow the published Movie-Book data where it tells them."""

    min_user: int = 10
    """Interactions that a user needs, both domains together."""
    min_item: int = 10
    """Interactions that an item needs, of users active in both domains."""
    filter: Filter = "core"
    """Repeat the filter until both minimums are met by what is left, or count a single time."""
    repeats: Repeats = "first"
    """Which interaction of a user with the same item stays."""
    limits: WindowLimits = field(default_factory=WindowLimits)
    split: WindowSplit = "latest"
    """See `window_split`."""
    eval_share: float = 0.1
    """Share of the windows for validation, and as much for test, of `timeline`."""
    tie_break: TieBreak = "random"
    """Order of interactions of one second (or day, in the releases before 2023): drawn, or X before Y and otherwise
    as in the file. `drop` is `file` without the cases whose target shares its time with the other domain."""
    seed: int = 0
    """Seed of ties and of the split."""
    candidates: int = 999
    """Stored negatives per evaluation case."""
    candidate_seed: int = 0
    """Seed of the stored negatives."""
    candidate_draw: CandidateDraw = "c2dsr"
    """How they are drawn, see `candidates.stored_candidates`."""
    max_bad_lines: float = 0.01
    """Share of a file's lines that may be unusable."""
    hash_seed: int = 0
    """Another hash of names, should two ever collide."""

    def __post_init__(self) -> None:
        check_choice(self.filter, Filter, "--filter")
        check_choice(self.repeats, Repeats, "--repeats")
        check_choice(self.split, WindowSplit, "--split")
        check_choice(self.tie_break, TieBreak, "--tie-break")
        check_choice(self.candidate_draw, CandidateDraw, "--candidate-draw")
        if not 0 < self.eval_share < 0.5:
            raise InputError(f"--eval-share {self.eval_share}: give a share between 0 and 0.5")
        if not 0 <= self.max_bad_lines < 1:
            raise InputError(f"--max-bad-lines {self.max_bad_lines}: give a share from 0 to below 1")
        if not 0 <= self.hash_seed < 1000:
            raise InputError(f"--hash-seed {self.hash_seed}: give a number from 0 to 999")
