"""Run a planned sweep as a command: the data, Ray, MLflow, and what is said when it stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from sweeps.cluster.ray_session import quiet, start_ray, stop_ray
from sweeps.core.console import print_stopped
from sweeps.core.exits import INTERRUPTED, TIME_SPENT, Result
from sweeps.core.interrupt import Interrupted, StopRequest
from sweeps.core.plan import Plan
from sweeps.core.storage import check_reachable, held, is_storage_fault, stopped_by_storage
from sweeps.core.summary import print_places, print_start
from sweeps.core.sweep import ReportWriter, Sweep, TrialBackend
from sweeps.core.sweep_data import is_prepared, load_data
from sweeps.state.sweep_record import RECORD
from sweeps.tracking.mlflow_runs import mlflow_client


def run_sweep(
    plan: Plan,
    console: Console,
    *,
    time_budget: float | None = None,
    backend: TrialBackend | None = None,
    report: ReportWriter | None = None,
) -> Result:
    """Run or continue a sweep to its end.

    Args:
        plan: what to run.
        console: where to show it.
        time_budget: seconds after which it stops in order; `--resume` continues it.
        backend: for tests.
        report: writes its page at the end.

    Raises:
        InputError: something the user can mend: data, storage, tracking, resources, a full disk.
    """
    record, backend = plan.record, backend or TrialBackend()
    check_reachable(record)
    print_places(record, console)
    console.print()
    with (
        held(record.folder, record.name, record.folder / RECORD),
        StopRequest(time_budget) as stop,
        quiet(record) as watch,
    ):
        watch.stop = stop.request
        if backend.client is None:  # beside the data and Ray, which take as long
            backend = replace(backend, client=started(partial(mlflow_client, record.tracking_uri)))
        try:
            sweep = Sweep(plan, console, backend, report=report)
            data = backend.data
            if data is None:
                with console.status(f"loading {record.scenario}" + ("" if is_prepared(plan) else " (made once)")):
                    data = load_data(plan)
            stop.check()
            parallel = 0
            if sweep.search.has_work():
                with console.status("starting Ray"):
                    parallel, notices = start_ray(plan.record, data.shared_bytes())
                    plan.notices += notices
            # Ray and MLflow set their own handlers for signals and logs when they start.
            stop.listen()
            watch.listen()
            stop.check()
            print_start(plan, data, parallel, console, sweep.state, sweep.search.outside)
            sweep.open(data, parallel)
            watch.listen()
            try:
                if parallel:
                    sweep.train(parallel, stop)
                    stop_ray()
                return sweep.finish(stop)
            except BaseException as error:
                sweep.leave(stop.reason or type(error).__name__)
                raise
        except (Interrupted, KeyboardInterrupt):
            print_stopped(console, "stopped", record.folder / RECORD, plan.resume_command())
            return Result(TIME_SPENT if stop.planned else INTERRUPTED, [], {})
        except OSError as error:
            if is_storage_fault(error):
                raise stopped_by_storage(error, plan.resume_command()) from error
            raise
        finally:
            stop_ray()


def started(make: Callable[[], Any]) -> Callable[[], Any]:
    """Begin to make something in a thread; the function that comes back waits for it, and raises what went wrong."""
    made: Future[Any] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # noqa: BLE001  it goes on in the thread that waits
            made.set_exception(error)

    threading.Thread(target=work, name="started", daemon=True).start()
    return made.result
