"""Options that the commands share, as types of their parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Scenario = Annotated[str | None, typer.Option(help="A prepared scenario, or one of sweeps/scenarios/.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of a trial at most.")]
SearchSeed = Annotated[int | None, typer.Option(min=0, help="Seed of the searches; those after it are the seeds.")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Trials at once.  [default: as many as fit]")]
CpusPerTrial = Annotated[float | None, typer.Option(help="CPUs of a trial.  [default: 1]")]
GpusPerTrial = Annotated[
    float | None, typer.Option(help="GPUs of a trial, may be a fraction.  [default: 1 where there is one]")
]
DataRoot = Annotated[Path, typer.Option(envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios.")]
TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow: http://HOST:PORT or sqlite:///FILE.db  [default: STORAGE/mlflow.db]")
]
RayAddress = Annotated[str | None, typer.Option(help="A Ray cluster (auto, HOST:PORT).  [default: local]")]
FreshWorkers = Annotated[
    bool | None,
    typer.Option(
        "--fresh-workers/--warm-workers",
        help="A new process per trial, or one that runs trials in turn.  [default: warm]",
    ),
]
TimeBudget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Stop in order after 90m, 2h or 1h30m; --resume continues.")
]
