"""Sweeps of many trials: search, scheduling, tracking, studies and reports.

from sweeps import Options, run_sweep

results = run_sweep(Options(scenario="sample", trials=4))
results.trials                 # a data frame
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmemf.errors import InputError
    from sweeps.core.options import Options
    from sweeps.groups.new_group import GroupOptions
    from sweeps.interface import (
        GroupResults,
        SweepResults,
        ablation,
        compare,
        load_group,
        load_sweep,
        rerun,
        run_sweep,
        study,
    )

__all__ = [
    "GroupOptions",
    "GroupResults",
    "InputError",
    "Options",
    "SweepResults",
    "ablation",
    "compare",
    "load_group",
    "load_sweep",
    "rerun",
    "run_sweep",
    "study",
]


def __getattr__(name: str) -> Any:
    """Load the interface with its first use: the commands import this package, too, and should not wait for it."""
    if name in __all__:
        places = {"InputError": "llmemf.errors", "Options": "sweeps.core.plan", "GroupOptions": "sweeps.groups.plan"}
        return getattr(import_module(places.get(name, "sweeps.interface")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
