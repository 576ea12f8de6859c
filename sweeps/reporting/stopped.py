"""Did stopping help? The section of the report."""

from __future__ import annotations

from llmemf import text_format
from llmemf.pages.page import Part, Section
from sweeps.reporting.conclusions import Conclusions
from sweeps.search.stopping import LEAST, Stopping, stopping

SHOWN = 5
"""Stopped trials that the page lists."""
FATES = (
    "Columns: reduction factor; *: as in this sweep. If all trials had reached each rung together; in the sweep a trial meets "
    "only those before it."
)
HEADINGS = ["trial", "chance", "stopped after", "value", "expected end", "gains of"]


def stopping_section(conclusions: Conclusions) -> Section | None:
    """The places of the winner at each rung, what each reduction factor and grace period would have done to it, and the most
    promising of the stopped trials; None while the sweep runs, and where no trial was stopped.
    """
    history, own = conclusions.history, conclusions.history.record
    found = None if history.state == "running" else stopping(history.records, history.rungs, own.reduction_factor)
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
    places = [
        [f"{place.epoch}", f"{place.rank} of {place.trials}", f"{place.stopped_before or '-'}"]
        for place in found.places
    ]
    winner, grid = found.winner.name, ("table", fates, ["grace period", *map(str, factors)])
    columns = [
        (f"{winner} among the trials at each rung", [("table", places, ["after epoch", "rank", "stopped before"])]),
        (f"Would {winner} have been kept?", [grid, ("text", FATES, "quiet hint")]),
    ]
    parts: list[Part] = [("text", found.sentence), ("beside", columns, "two")]
    if stopped:
        parts += [("heading", f"Was a stopped trial better than {winner}?"), ("table", stopped, HEADINGS)]
    parts.append(("text", _remark(found), "quiet hint"))
    return Section("Did stopping help?", parts, "stopping", "Stopping")


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
