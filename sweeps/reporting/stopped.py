"""Did stopping help? The section of the report, in words and cells."""

from __future__ import annotations

from dataclasses import dataclass

from llmemf import text_format
from sweeps.reporting.history import SweepHistory
from sweeps.search.stopping import LEAST, Stopping, stopping

SHOWN = 5
"""Stopped trials that the page lists."""
HEADINGS = ["trial", "chance", "stopped after", "value", "expected end", "gains of"]


@dataclass(frozen=True)
class StoppingSection:
    """What the page shows of `Stopping`.

    Attributes:
        places: of the winner at each rung: epoch, rank, how many were stopped before.
        factors, fates: reduction factors, and per grace period what each would have done to the winner.
        stopped: the most promising of the stopped trials; empty where nothing can be said, of which `remark` has the reason.
    """

    sentence: str
    winner: str
    places: list[list[str]]
    factors: list[str]
    fates: list[list[str]]
    stopped: list[list[str]]
    remark: str
    headings: list[str]


def stopping_section(history: SweepHistory) -> StoppingSection | None:
    """None while the sweep runs, and where no trial was stopped."""
    found = None
    if history.state != "running":
        found = stopping(history.records, history.rungs, history.record.reduction_factor)
    if found is None:
        return None
    factors = sorted({factor for _, factor in found.fates})
    graces = sorted({grace for grace, _ in found.fates})
    own = history.record
    return StoppingSection(
        sentence=found.sentence,
        winner=found.winner.name,
        places=[
            [f"{place.epoch}", f"{place.rank} of {place.trials}", f"{place.stopped_before or '-'}"]
            for place in found.places
        ],
        factors=[str(factor) for factor in factors],
        fates=[
            [
                str(grace),
                *(
                    _fate(found.fates[grace, factor])
                    + " *" * ((grace, factor) == (own.grace_period, own.reduction_factor))
                    for factor in factors
                ),
            ]
            for grace in graces
        ],
        stopped=[
            [
                end.record.name,
                text_format.chance(end.chance),
                str(end.record.epoch),
                f"{end.record.values[-1]:.4f}",
                f"{end.expected:.4f}",
                str(end.finished),
            ]
            for end in found.stopped[:SHOWN]
        ],
        remark=_remark(found),
        headings=HEADINGS,
    )


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
