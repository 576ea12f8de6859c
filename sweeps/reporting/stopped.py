"""Did stopping help? The section of the report, in words and cells."""

from __future__ import annotations

from typing import Any

from llmemf import text_format
from sweeps.reporting.history import SweepHistory
from sweeps.search.stopping import LEAST, Stopping, stopping

SHOWN = 5
"""Stopped trials that the page lists."""
HEADINGS = ["trial", "chance", "stopped after", "value", "expected end", "gains of"]


def stopping_section(history: SweepHistory) -> dict[str, Any] | None:
    """The places of the winner at each rung, what each reduction factor and grace period would have done to it, and the most
    promising of the stopped trials; None while the sweep runs, and where no trial was stopped.
    """
    found, own = None, history.record
    if history.state != "running":
        found = stopping(history.records, history.rungs, own.reduction_factor)
    if found is None:
        return None
    graces, factors = (sorted(set(values)) for values in zip(*found.fates, strict=True))
    here = own.grace_period, own.reduction_factor
    fates = [
        [str(grace), *(_fate(found.fates[grace, factor]) + " *" * ((grace, factor) == here) for factor in factors)]
        for grace in graces
    ]
    stopped = [
        [
            end.record.name,
            text_format.chance(end.chance),
            str(end.record.epoch),
            f"{end.record.values[-1]:.4f}",
            f"{end.expected:.4f}",
            str(end.finished),
        ]
        for end in found.stopped[:SHOWN]
    ]
    return {
        "sentence": found.sentence,
        "winner": found.winner.name,
        "places": [
            [f"{place.epoch}", f"{place.rank} of {place.trials}", f"{place.stopped_before or '-'}"]
            for place in found.places
        ],
        "factors": list(map(str, factors)),
        "fates": fates,
        "stopped": (HEADINGS, stopped),
        "remark": _remark(found),
    }


def _fate(epoch: int | None) -> str:
    return "not known" if epoch is None else f"stopped after epoch {epoch}" if epoch else "kept"


def _remark(found: Stopping) -> str:
    """How the chances were computed, and of which trials nothing is known."""
    said = []
    if found.stopped:
        better = sum(end.chance for end in found.stopped)
        said.append(
            "Expected end: the value and the mean of what so many trials gained after the same epoch that were trained to their end. "
            f"Chance: to end above {found.winner.name}, by the spread of these gains (t distribution); settings play no part in it. Of "
            f"{text_format.plural(len(found.stopped), 'stopped trial')} {better:.1f} are expected to pass."
        )
    if found.unknown:
        names = ", ".join(record.name for record in found.unknown[:5]) + " ..." * (len(found.unknown) > 5)
        said.append(
            f"Fewer than {LEAST} trials went on to their end after the last epoch of {names}: nothing can be said."
        )
    return " ".join(said)
