"""The options of a sweep's command line, and which of them a stored sweep has once and for all."""

from __future__ import annotations

import datetime
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmemf.errors import InputError
from sweeps.cluster.resources import default_gpus
from sweeps.state.sweep_record import storage_folder
from sweeps.tracking.addresses import absolute_uri

IMMUTABLE_OPTIONS = (
    "model",
    "search",
    "trials",
    "grid_points",
    "epochs",
    "scheduler",
    "grace_period",
    "reduction_factor",
    "seed",
    "warm_start",
)
"""Options that a stored sweep has once and for all."""
FLAGS = {"from_sweep": "--from", "assignments": "--set"}
"""Options whose flag is not their own name."""


@dataclass
class Options:
    """The command line of a sweep; None means that the scenario file decides."""

    scenario: str | None = None
    model: str | None = None
    search: str | None = None
    trials: int | None = None
    grid_points: int | None = None
    epochs: int | None = None
    scheduler: str | None = None
    grace_period: int | None = None
    reduction_factor: float | None = None
    concurrency: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    confirm: float | None = None
    seed: int | None = None
    warm_start: str | None = None
    points: Path | None = None
    like: str | None = None
    name: str | None = None
    data_root: Path | None = None
    tracking_uri: str | None = None
    storage: Path = Path("mlruns")
    ray_address: str | None = None
    keep: int | None = None
    fresh_workers: bool | None = None
    retry_failed: bool = False
    assignments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Paths may be given as texts, with `~`.

        Raises:
            InputError: a text stands where a list is expected.
        """
        for key in ("assignments", "models", "rows", "vary"):
            if isinstance(value := getattr(self, key, None), str):
                raise InputError(f"{key} = {value!r}: give a list, [{value!r}]")
        for key in ("points", "data_root", "storage"):
            if getattr(self, key) is not None:
                path = Path(getattr(self, key))
                with suppress(RuntimeError):  # the home of a user who does not exist: a folder may be called so
                    path = path.expanduser()
                setattr(self, key, path)

    @property
    def root(self) -> Path:
        """The folder of the prepared scenarios, absolute."""
        return (self.data_root or Path("data")).resolve()

    def places(self, now: datetime.datetime) -> dict[str, Any]:
        """Fields of a new record: what was asked for, where it goes, on which resources, and when it was planned.

        Raises:
            InputError: no folder can be where it should go.
        """
        storage = storage_folder(self.storage)
        return {
            "requested": self.scenario,
            "data_root": str(self.root),
            "storage": str(storage),
            "tracking_uri": absolute_uri(self.tracking_uri, storage),
            "cpus_per_trial": 1 if self.cpus_per_trial is None else self.cpus_per_trial,
            "gpus_per_trial": default_gpus() if self.gpus_per_trial is None else self.gpus_per_trial,
            "concurrency": self.concurrency,
            "ray_address": self.ray_address,
            "fresh_workers": bool(self.fresh_workers),
            "created": now.isoformat(timespec="microseconds"),
        }


def flag(key: str) -> str:
    """An option as it is typed."""
    return FLAGS.get(key, f"--{key.replace('_', '-')}")
