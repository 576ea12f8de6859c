"""Reruns: the best trials of a sweep again over seeds; validation chooses one of them, and only then that one is tested.

The rows are trials. Each is trained over seeds other than the sweep's own, so that the luck of the search does not count.
"""

from __future__ import annotations

import datetime

from llmemf.errors import InputError
from sweeps.core.options import Options
from sweeps.core.resume import plan_resume
from sweeps.core.settings import RESOURCES, space_keys
from sweeps.groups.group import Group, Row
from sweeps.groups.new_group import GroupOptions, check_completed, config_of_trial, new_group
from sweeps.state.sweep_record import find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked
from sweeps.tracking.addresses import absolute_uri

DEFAULT_TOP = 3


def plan(options: GroupOptions, now: datetime.datetime) -> Group:
    """Plan a new rerun of a completed sweep: the named one, or the newest.

    Raises:
        InputError: any mistake in options, in one sentence.
    """
    storage = options.storage.resolve()
    sweep = find_sweep(storage, "rerun", name=options.sweep)
    check_completed(sweep)
    if "seed" in space_keys(sweep.space):
        raise InputError(f"sweep {sweep.name!r} is one configuration over seeds already: name a sweep that searched")
    whole, state = plan_resume(Options(name=sweep.name, storage=storage)), SweepState.load(sweep)
    top = DEFAULT_TOP if options.top is None else options.top
    best = [record for record in ranked(state.records.values()) if record.outcome in ("completed", "pruned")][:top]
    rows = [
        Row(
            name=record.name,
            title=record.name,
            model=sweep.model,
            overrides=config_of_trial(whole, record),
            varied=record.varied,
            objective=record.objective,
        )
        for record in best
    ]
    given = {key: getattr(options, key) for key in RESOURCES if getattr(options, key) is not None}
    given |= {"data_root": str(options.root)} if options.data_root else {}
    given |= {"tracking_uri": absolute_uri(options.tracking_uri, storage)} if options.tracking_uri else {}
    same = ("scenario", "requested", "fingerprint", "data_root", "tracking_uri", *RESOURCES)
    fields = {
        **{key: getattr(sweep, key) for key in same},
        "name": options.name or f"{sweep.name}-rerun",
        "test": "winner",
        "origin": f"the best trials of sweep {sweep.name}",
        "facts": {"sweep": sweep.name, "earlier_looks": len(state.tests)},
    }
    return new_group(options, now, kind="rerun", rows=rows, seed=sweep.seed, **fields | given)
