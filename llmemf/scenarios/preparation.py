"""From raw interactions of two domains to a Scenario: filter, cut windows, split, draw candidates.

Every reader of raw data ends here; what was left out on the way, and why, is told in a `PreparationReport`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmemf.errors import InputError
from llmemf.scenarios.bad_lines import LineCounts
from llmemf.scenarios.candidates import stored_candidates
from llmemf.scenarios.interaction_filter import drop_repeats, enough_interactions
from llmemf.scenarios.interactions import InteractionCollector, Interactions
from llmemf.scenarios.item_texts import ItemText
from llmemf.scenarios.names import check_names
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences
from llmemf.scenarios.splits import TEST, TRAIN, VALID, shorten, split_windows
from llmemf.scenarios.window_cutter import cut_windows
from llmemf.scenarios.windows import tied_across_domains

Describe = Callable[[list[np.ndarray]], Iterable[dict[str, ItemText]]]
"""From the external ids of X and of Y to what is known of them: for each domain by id."""


@dataclass
class PreparationReport:
    """What was read, what was left out and why, and what is left.

    Attributes:
        files: lines of every file that was read.
        read: interactions of X and of Y.
        dropped: interactions of X and of Y by reason, in the order of the steps.
        left: interactions of X and of Y in the scenario.
        facts: further numbers by name (windows, rounds of the filter, items without a title, ...).
    """

    files: list[LineCounts] = field(default_factory=list)
    read: tuple[int, int] = (0, 0)
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    left: tuple[int, int] = (0, 0)
    facts: dict[str, int] = field(default_factory=dict)

    def counts(self, path: Path, options: PreparationOptions) -> LineCounts:
        """Empty counts of a file that is read next."""
        self.files.append(LineCounts(path, options.max_bad_lines))
        return self.files[-1]

    def drop(self, reason: str, counts: Iterable[int]) -> None:
        """Note interactions of X and of Y that were left out."""
        x, y = counts
        self.dropped[reason] = (int(x), int(y))

    def source(self) -> dict[str, Any]:
        """Plain facts for the manifest."""
        return {
            "files": {str(one.path): one.sha256 for one in self.files},
            "bad_lines": {one.path.name: one.num_bad for one in self.files},
            "read": {"x": self.read[0], "y": self.read[1]},
            "dropped": {reason: sum(counts) for reason, counts in self.dropped.items()},
            "counts": self.facts,
        }


def prepare(
    collector: InteractionCollector,
    describe: Describe,
    name: str,
    domains: tuple[str, str],
    options: PreparationOptions,
    report: PreparationReport,
    reader: str,
    tell: Callable[[str], None] | None = None,
) -> Scenario:
    """Filter, cut, split, describe.

    Args:
        collector: holds all raw interactions.
        describe: looks up the items that are left.
        name: name of the new scenario.
        domains: names of X and Y.
        options: see there.
        report: filled in; its `files` are the caller's.
        reader: name of the caller, for the manifest.
        tell: called with what is done next, where it may take long.

    Raises:
        InputError: nothing is left after some step.
    """
    check_names(name, domains)
    if tell is not None:
        tell(f"filtering {sum(collector.read):,} interactions and cutting windows")
    kept = collector.finish()
    report.read = (collector.read[0], collector.read[1])
    for reason, count in collector.dropped.items():
        report.drop(reason, count)
    kept, doubles, repeats = drop_repeats(kept, options.repeats)
    report.drop("same review twice", doubles)
    report.drop(f"item taken again, the {options.repeats} counts", repeats)
    before = kept.by_domain()
    kept, report.facts["filter_rounds"] = enough_interactions(kept, options.min_user, options.min_item, options.filter)
    report.drop("too few interactions", np.subtract(before, kept.by_domain()))

    kept = _in_order(kept.compact(), options)
    before = kept.by_domain()
    windows, kept = _windows(kept, options)
    report.drop("in no window", np.subtract(before, kept.by_domain()))
    last_times = windows.times[windows.last_places]
    parts = split_windows(windows.users, last_times, options.split, options.eval_share, options.seed)
    report.left = kept.by_domain()
    report.facts["windows"] = len(windows)

    tied = np.zeros(len(windows), dtype=bool)
    if options.tie_break == "drop":
        tied = tied_across_domains(windows, kept.num_x) & (parts != TRAIN)
        report.facts["cases_dropped_as_ties"] = int(tied.sum())
    split: dict[str, Any] = {
        part: shorten(windows, np.where((parts == number) & ~tied, windows.lengths, 0))
        for part, number in (("train", TRAIN), ("valid", VALID), ("test", TEST))
    }
    for part in ("valid", "test"):
        if not len(split[part]):
            raise InputError(f"every {part} case is decided by a tie: choose --tie-break random or file")
    num_x = kept.num_x
    external = [kept.item_names[:num_x], kept.item_names[num_x:]]
    texts = [found.get(item, ItemText()) for ids, found in zip(external, describe(external)) for item in ids]
    items = pd.DataFrame(texts, dtype=object)
    items.insert(0, "external_id", kept.item_names)
    for column in ("title", "description", "image"):
        report.facts[f"items_without_{column}"] = int((items[column] == "").sum())
    return Scenario(
        name=name,
        domains=domains,
        num_x=num_x,
        items=items,
        user_ids=kept.user_names,
        candidates=stored_candidates(split, num_x, len(items), options),
        source={"reader": reader, **dataclasses.asdict(options), **report.source()},
        **split,
    )


def _in_order(interactions: Interactions, options: PreparationOptions) -> Interactions:
    """Sorted by user and time; ties as the options want them."""
    in_y = interactions.items >= interactions.num_x
    if options.tie_break == "random":
        # The draw depends on the content alone, not on the order of the lines in the files.
        order = np.lexsort((interactions.items, interactions.users))
        tie = np.empty(len(order))
        tie[order] = np.random.default_rng([options.seed, 0]).random(len(order))
        return interactions.where(np.lexsort((tie, interactions.times, interactions.users)))
    return interactions.where(np.lexsort((in_y, interactions.times, interactions.users)))


def _windows(interactions: Interactions, options: PreparationOptions) -> tuple[Sequences, Interactions]:
    """The windows as sequences, and their interactions, both in ids without gaps."""
    in_y = interactions.items >= interactions.num_x
    starts, ends = cut_windows(interactions.users, in_y, interactions.times, options)
    if not len(starts):
        raise InputError(
            f"{len(interactions):,} interactions of {len(interactions.user_names):,} users hold no window of "
            f"{options.min_length} to {options.max_length} items with {options.min_per_domain} of each domain within "
            f"{options.max_days or 'any number of'} days: raise --max-days or lower --min-per-domain"
        )
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    kept = interactions.where(rows).compact()
    return Sequences(kept.users[offsets[:-1]], offsets.astype(np.int64), kept.items, kept.times), kept
