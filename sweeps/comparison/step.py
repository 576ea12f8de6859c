"""One sweep of a group, and the Ray that one after the other runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sweeps.cluster.ray_session import OBJECT_STORE_EXTRA, start_ray, stop_ray
from sweeps.comparison.seeds import TestEvaluation
from sweeps.core.interrupt import StopRequest
from sweeps.core.plan import Plan
from sweeps.core.results import write_results
from sweeps.core.sweep import COMPLETED, INTERRUPTED, Result, Sweep, TrialBackend
from sweeps.core.sweep_data import SweepData
from sweeps.state import leaderboard
from sweeps.state.trial_records import TrialRecord, best_of


@dataclass
class GroupBackend(TrialBackend):
    """What tests put in the place of the trial floor.

    Attributes:
        train: runs the trials of a step without Ray.
        rank: instead of `evaluate_on_test`.
    """

    train: Callable[[Sweep], None] | None = None
    rank: Callable[[Path, SweepData], TestEvaluation] | None = None


class Step(Sweep):
    """One sweep of a group: shown in its frame, below its run in MLflow, and without a test of its own.

    Args:
        title: of the live table.
        tags: of the sweep's run.
        look: gives the test metrics of ended trials from their weights; None where the step looks at none.
        on_stuck: what to do where Ray does not answer, with the reason.
    """

    def __init__(
        self,
        plan: Plan,
        console: Console,
        backend: GroupBackend,
        *,
        title: str,
        tags: dict[str, str],
        look: Callable[[list[TrialRecord], dict[str, Path]], dict[str, dict[str, float]]] | None,
        on_stuck: Callable[[str], None],
    ) -> None:
        super().__init__(plan, console, backend)
        self._title, self._tags, self._look, self._on_stuck = title, tags, look, on_stuck

    def open(self, data: SweepData, parallel: int) -> None:
        super().open(data, parallel)
        self.display.title = self._title
        self.tracking.log_parent(tags=self._tags, step=0, time=0)

    def leave_stuck(self, reason: str) -> None:
        self.leave(reason)
        self._on_stuck(reason)

    def finish(self, stop: StopRequest) -> Result:
        """Write the leaderboard, look at the test split where that is asked for, and close the runs."""
        tracking = self.tracking
        self.close_trials(tracking)
        records = list(self.state.records.values())
        best = best_of(records)
        outcome = "interrupted" if stop.reason else "completed" if best else "failed"
        test: dict[str, float] = {}
        if best and self._look and outcome == "completed":
            found = self._look(records, self.retention.weights())
            for record in records:
                if record.name in found:
                    tracking.writer.write(
                        "metrics", record.name, values=found[record.name], step=record.best_epoch, time=record.updated
                    )
            test = found.get(best.name, {})
        paths = write_results(self.plan, self.data, records, best, test)
        tags = {"mlflow.note.content": leaderboard.shortened((self.folder / "leaderboard.md").read_text())}
        summary = {"objective": best.objective, **best.metrics} if best else {}
        time = best.updated if best else 0
        tracking.log_parent(metrics=summary, tags=tags, paths=paths, step=len(records), time=time)
        tracking.close(outcome)
        self.tracking = None
        self.finalize(outcome, stop.reason)
        return Result(COMPLETED if outcome == "completed" else INTERRUPTED, records, test)


class SharedRay:
    """One Ray for many sweeps, as long as what they share with their trials fits into its object store.

    Attributes:
        parallel: trials at once in the running session, 0 where none runs.
    """

    def __init__(self) -> None:
        self.parallel = 0
        self._room = self._held = 0

    def start(self, plan: Plan, data: SweepData) -> int:
        """A running session with room for this data; returns how many trials run at once.

        Raises:
            InputError: no cluster answers, it is not fit for this sweep, or not even one trial fits.
        """
        needed = data.shared_bytes()
        # The last sweep's data is let go only after the next one's has come.
        if not self.parallel or self._held + needed > self._room:
            self.stop()
            self.parallel, notices = start_ray(plan.record, needed)
            plan.notices += notices
            self._room = needed + OBJECT_STORE_EXTRA // 2
        self._held = needed
        return self.parallel

    def stop(self) -> None:
        self.parallel = 0
        stop_ray()
