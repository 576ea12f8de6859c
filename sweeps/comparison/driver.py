"""Drive a group to its end: its folder, signals and logs, and what it ends with."""

from __future__ import annotations

import errno
from contextlib import suppress

from rich.console import Console

from llmemf.errors import InputError
from llmemf.io import write_text
from sweeps.cluster.ray_session import quiet
from sweeps.comparison.group import GroupRun
from sweeps.comparison.record import GroupRecord
from sweeps.comparison.step import GroupBackend
from sweeps.core.interrupt import Interrupted, StopRequest
from sweeps.core.storage import check_reachable, locked
from sweeps.core.sweep import ALL_FAILED, COMPLETED, INTERRUPTED, NEEDS_USER, TIME_SPENT


def run_group(
    kind: type[GroupRun],
    record: GroupRecord,
    console: Console,
    *,
    time_budget: float | None = None,
    backend: GroupBackend | None = None,
) -> int:
    """Run or continue a group to its end.

    Args:
        kind: how it is run.
        record: what to run.
        console: where to show it.
        time_budget: seconds after which it stops in order; `--resume` continues it.
        backend: for tests.

    Returns:
        The exit code: 0 completed, 1 no entry has a result, 2 it had to stop, 3 its time budget was spent, 130
        interrupted by the user.

    Raises:
        InputError: something the user can mend: data, storage, tracking, resources, a full disk.
    """
    check_reachable(record)
    make_folder(record)
    with StopRequest(time_budget) as stop, locked(record.folder, record.name), quiet(record) as watch:
        watch.stop = stop.request
        run = kind(record, console, stop, watch, backend or GroupBackend())
        try:
            run.open()
            run.run()
            done = any(result.outcome == "done" for result in run.state.results.values())
            outcome, page = "completed" if done else "failed", run.tracking.page()
            undelivered = run.close(outcome)
            run.show_end(undelivered, page)
            return COMPLETED if done else ALL_FAILED
        except (Interrupted, KeyboardInterrupt):
            reason = stop.reason or "interrupted"
            run.close("interrupted", reason)
            console.print(f"stopped ({reason}); what was saved continues with:")
            console.print(f"  {record.resume_command()}", style="cyan", soft_wrap=True)
            return TIME_SPENT if stop.planned else INTERRUPTED if reason == "interrupted" else NEEDS_USER
        except BaseException as error:
            with suppress(OSError):
                run.close("interrupted", type(error).__name__)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise InputError(
                    f"no space left for {record.folder}: free some, then continue with: {record.resume_command()}"
                ) from error
            raise
        finally:
            run.ray.stop()


def make_folder(record: GroupRecord) -> None:
    """Create the group's folder.

    Raises:
        InputError: that is not possible.
    """
    try:
        record.folder.mkdir(parents=True, exist_ok=True)
        write_text(record.folder / ".write-test", "x")
        (record.folder / ".write-test").unlink()
    except OSError as error:
        raise InputError(
            f"{record.folder} cannot be written ({error.strerror}): free some space or rights, or give another --storage"
        ) from None
