"""One Ray for the sweeps of a group, one after the other."""

from __future__ import annotations

from sweeps.cluster.ray_session import OBJECT_STORE_EXTRA, start_ray, stop_ray
from sweeps.core.plan import Plan
from sweeps.core.sweep_data import SweepData


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
