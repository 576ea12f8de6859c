"""An exported model as a version of a registered model in MLflow, served by MLflow's own tools.

The version brings its code along (the package `llmemf`, without sweeps) and no pickle: `served_model.py` is run as it
stands. It hangs below the run of the trial that it comes from.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llmemf
from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.export.folder import CARD, ExportedModel
from sweeps.export.chosen import Chosen
from sweeps.state.home import is_elsewhere
from sweeps.tracking.addresses import one_line
from sweeps.tracking.mlflow_runs import mlflow_client
from sweeps.tracking.owned_runs import RunOwner

REQUIREMENTS = ("torch", "numpy", "pandas", "pyarrow", "pydantic", "PyYAML", "safetensors", "scipy")
"""What `llmemf` needs to answer; MLflow adds itself."""
DESCRIPTION = 5000
"""Characters of a card that MLflow shows."""


def registered_name(scenario: str) -> str:
    """The registered model of a scenario; each export is a version of it."""
    return f"llmemf-{scenario}"


def register(
    folder: Path, chosen: Chosen, *, name: str | None = None, tracking_uri: str | None = None
) -> tuple[str, str]:
    """Register an exported folder.

    Args:
        folder: what `export_checkpoint` wrote.
        chosen: the trial that it comes from.
        name: of the registered model; one per scenario by default.
        tracking_uri: where to; by default where the sweep's runs are.

    Returns:
        name and version.

    Raises:
        InputError: MLflow does not answer, or refuses; or the sweep was copied or moved and not taken over.
    """
    if is_elsewhere(chosen.sweep):
        raise InputError(
            f"the model lies in {folder}, but its sweep was copied or moved from {chosen.sweep.home}: continue it here with "
            f"{command_line('sweep', '--resume', '--name', chosen.sweep.name, storage=chosen.sweep.storage)}, then export "
            "it again with --overwrite, or leave it out with --no-register"
        )
    name = name or registered_name(chosen.sweep.scenario)
    uri = tracking_uri or chosen.sweep.tracking_uri
    model = ExportedModel.load(folder, device="cpu")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model"
        save_for_mlflow(folder, model, path)
        try:
            return name, _upload(path, folder, model, chosen, name, mlflow_client(uri))
        except Exception as error:
            raise InputError(
                f"the model lies in {folder}, but could not be registered at {uri} ({one_line(error)}): mend that and "
                "export it again with --overwrite, or leave it out with --no-register"
            ) from error


def save_for_mlflow(folder: Path, model: ExportedModel, target: Path) -> None:
    """Write a folder that `mlflow models serve` understands, with the exported one inside."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import pyfunc

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # MLflow warns of `Any` and sets its own filter for it; the model itself checks a request, and says more than a type.
    with warnings.catch_warnings(record=True):
        pyfunc.save_model(
            target,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"model": str(folder)},
            code_paths=[str(Path(llmemf.__file__).parent)],
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            input_example=[example(model)],
        )


def example(model: ExportedModel) -> dict[str, Any]:
    """A request that the model can answer: the first items of both domains whose ids a command line takes, too."""
    ids = model.items.external_id
    in_both = set(ids[ids.duplicated()])
    names = [
        [f"{domain}:{name}" if name in in_both else name for name in own]
        for domain, own in zip(model.domains, (ids[: model.num_x], ids[model.num_x :]))
    ]
    x, y = ([name for name in own if not re.search(r"[,\n]", name)] or own for own in names)
    return {"history": [x[0], y[0], *x[1:2]], "domain": model.domains[1], "k": min(3, len(names[1]) - 1) or 1}


def _upload(path: Path, folder: Path, model: ExportedModel, chosen: Chosen, name: str, client: Any) -> str:
    manifest, sweep = model.manifest, chosen.sweep
    experiment = client.get_experiment_by_name(sweep.scenario)
    if experiment is None:
        raise LookupError(f"there is no experiment {sweep.scenario!r}")
    run = next(iter(RunOwner.of(sweep).find(client, experiment.experiment_id, chosen.trial.name)), None)
    tags = {key: manifest[key] for key in ("scenario", "system", "fingerprint")}
    tags |= {**RunOwner.of(sweep).tags, "trial": chosen.trial.name}
    if run is None:
        raise LookupError(f"there is no run of {chosen.trial.name}; `sweeps/grid.py --resume` writes what MLflow lacks")
    run_id = run.info.run_id
    params = {key: str(value) for key, value in model.config.to_dict().items()}
    logged = client.create_logged_model(
        experiment.experiment_id,
        name=chosen.name,
        source_run_id=run_id,
        tags=tags,
        params=params,
        model_type="recommender",
    )
    client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"Recommenders of scenario {manifest['scenario']}.")
    version = client.create_model_version(
        name,
        source=logged.artifact_location,
        run_id=run_id,
        tags=tags,
        description=(folder / CARD).read_text()[:DESCRIPTION],
        model_id=logged.model_id,
    )
    return str(version.version)
