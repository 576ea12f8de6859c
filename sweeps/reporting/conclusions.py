"""What follows from a sweep: the statistics that its report shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sweeps.reporting.advice import Advice, advise
from sweeps.reporting.breakdown import Breakdown, Ranked, break_down
from sweeps.reporting.certainty import Certainty, certainty
from sweeps.reporting.history import SweepHistory
from sweeps.reporting.importance import Importances, importances
from sweeps.reporting.spending import Spending, spend
from sweeps.reporting.tracked import Tracked

WAITS = "The importance of settings is computed when the sweep has ended."


@dataclass(frozen=True)
class Conclusions:
    """The statistics of a sweep, each computed when it is first asked for.

    Attributes:
        tracked: its run in MLflow.
        ranked: ranks of its leading trials; None where the breakdown is left out.
        is_live: whether its page is drawn again and again beside running trials: what takes seconds waits for their end.
    """

    history: SweepHistory
    tracked: Tracked
    ranked: Ranked | None
    is_live: bool = False

    @cached_property
    def spending(self) -> Spending:
        return spend([*self.history.trials.values(), *self.history.repeats])

    @cached_property
    def importances(self) -> Importances:
        if self.is_live and self.history.state == "running":
            return Importances(note=WAITS)
        return importances(self.history.valued, self.history.parameters)

    @cached_property
    def certainty(self) -> Certainty:
        return certainty(self.history, self.ranked)

    @cached_property
    def advice(self) -> list[Advice]:
        return advise(self.history, self.importances, self.certainty)

    @cached_property
    def breakdown(self) -> Breakdown | None:
        """Results of the best trial by groups of cases, None where its ranks are not known."""
        best, ranked, cases = self.history.best, self.ranked, int(self.history.fixed.get("valid_cases") or 0)
        if best is None or ranked is None or ranked.scenario is None or best.name not in ranked.ranks:
            return None
        return break_down(best.name, ranked.ranks[best.name], ranked.scenario, valid_cases=cases)

    @property
    def sure(self) -> str:
        """How sure the first place is, in a sentence; "" with one trial."""
        return self.certainty.sentence if len(self.history.valued) > 1 else ""

    @property
    def encoders(self) -> dict[str, str]:
        """Kind of features -> encoder."""
        return self.tracked.encoders or (self.ranked.features if self.ranked else {})

    @property
    def objectives(self) -> list[str]:
        """Training objectives among the trials, as the runs' tag says, or the settings."""
        tag, fixed = self.tracked.tags.get("objective"), self.history.fixed.get("objective")
        return tag.split("+") if tag else [str(fixed)] if fixed else []
