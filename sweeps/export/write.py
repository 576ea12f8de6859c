"""A chosen trial as a folder, checked against the numbers that were logged before anybody relies on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.export.evaluation import compare_with_logged, evaluate_export
from llmemf.export.folder import ExportedModel, export_checkpoint
from llmemf.features.matrix import find_features
from llmemf.models import model_class
from llmemf.scenarios.scenario import find_scenario
from sweeps.core.results import code_version
from sweeps.export.chosen import Chosen

TOLERATED = 0.01
"""Validation numbers of another device may differ by so much; more means that the folder is not the model."""


def write_model(
    chosen: Chosen, target: Path, *, data_root: Path | None = None, overwrite: bool = False
) -> tuple[ExportedModel, str]:
    """Write the folder, load it again as a stranger would, and score it on the validation split.

    Args:
        data_root: folder of the prepared scenarios, where it is no longer the sweep's.

    Returns:
        the loaded model, and in a sentence how its numbers compare with the logged ones.

    Raises:
        InputError: the data is not there or not the same, the folder exists or cannot be written, or what was written does
            not reproduce the logged numbers (it is removed then).
    """
    scenario = find_scenario(chosen.sweep.scenario, data_root or chosen.sweep.data_root)
    values = chosen.config
    config = build_config(model_class(values["model"]).config_class, values, where=str(chosen.checkpoint))
    kinds = sorted(model_class(config.model).needs(config))
    features = {kind: find_features(scenario, kind, getattr(config, f"{kind}_encoder")) for kind in kinds}
    export_checkpoint(
        chosen.checkpoint,
        scenario,
        features,
        target,
        metrics=chosen.metrics,
        source={**chosen.facts, "code": code_version()},
        notes=chosen.notes({kind: matrix.encoder for kind, matrix in features.items()}),
        overwrite=overwrite,
    )
    model = ExportedModel.load(target)
    comparison = compare_with_logged(model, evaluate_export(model, scenario, "valid"), "valid")
    if comparison is None:
        return (
            model,
            "not possible: the logged validation numbers are of a sample of cases, or of another epoch per domain",
        )
    if comparison.largest > TOLERATED:
        shutil.rmtree(target)
        raise InputError(
            f"the exported model does not reproduce the validation numbers of {chosen.trial.name}: {comparison}; nothing was kept"
        )
    return model, f"{comparison} (validation)"
