"""Which trial of a sweep is exported, and how it becomes a folder that is checked before anybody relies on it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmemf.checkpoint import read_checkpoint
from llmemf.config import build_config
from llmemf.errors import InputError, nearest
from llmemf.export.evaluation import compare_with_logged, evaluate_export
from llmemf.export.folder import ExportedModel, export_checkpoint
from llmemf.features.finding import find_features
from llmemf.models import model_class
from llmemf.scenarios.scenario import find_scenario
from sweeps.core.descriptions import caveats_of
from sweeps.core.results import code_version
from sweeps.core.sweep_data import check_unchanged
from sweeps.state import checkpoints
from sweeps.state.sweep_record import SweepRecord, find_sweep
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of

TOLERATED = 0.01
"""Validation numbers of another device may differ by so much; more means that the folder is not the model."""


@dataclass(frozen=True)
class Chosen:
    """A trial of a sweep with kept weights.

    Attributes:
        sweep: what the sweep was started with.
        trial: the record of the trial.
        checkpoint: the folder of its weights.
        metrics: logged numbers by split: `valid` of its best epoch, `test` where the sweep tested.
        tests: how often the sweep was tested.
    """

    sweep: SweepRecord
    trial: TrialRecord
    checkpoint: Path
    metrics: dict[str, dict[str, float]]
    tests: int

    @property
    def name(self) -> str:
        return f"{self.sweep.name}-{self.trial.name}"

    @property
    def facts(self) -> dict[str, str]:
        """Where the model comes from, for its card."""
        facts = {"sweep": self.sweep.name, "trial": self.trial.name}
        if self.trial.objective is not None:
            facts["objective"] = (
                f"{self.trial.objective:.4f} ({self.config['monitor']}, the sweep's choice is on validation)"
            )
        facts["best epoch"] = f"{self.trial.best_epoch} of {self.trial.epoch} ({self.trial.outcome})"
        return facts

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the trial."""
        return read_checkpoint(self.checkpoint)["config"]

    def notes(self, encoders: dict[str, str]) -> list[str]:
        """What a reader of the numbers must know.

        Args:
            encoders: name of the encoder of each kind of features.
        """
        objectives = [str(self.config["objective"])] if "objective" in self.config else []
        notes = caveats_of(
            self.sweep.scenario, self.config, objectives, encoders, self.tests if "test" in self.metrics else 0
        )
        if self.config["valid_cases"]:
            notes.append(f"Validation numbers are of a sample of {self.config['valid_cases']} cases.")
        if not self.sweep.is_searched:
            notes.append(
                f"The sweep was {self.sweep.status} when the model was exported: best of the trials that had ended."
            )
        return notes


def choose(storage: Path, sweep: str | None, trial: str | None) -> Chosen:
    """A trial of a stored sweep.

    Args:
        storage: folder that the sweeps wrote to.
        sweep: its name; the newest without one.
        trial: its name (`t07`); the best of those that have ended without one.

    Raises:
        InputError: there is no such sweep or trial, or its weights were not kept.
    """
    record = find_sweep(storage, name=sweep)
    state = SweepState.load(record)
    ended = [item for item in state.records.values() if item.outcome in ("completed", "pruned")]
    if trial is None:
        found = best_of(ended)
        if found is None:
            raise InputError(
                f"no trial of sweep {record.name!r} has ended with a value: there is nothing to export yet"
            )
    else:
        by_name = {item.name: item for item in state.records.values()}
        if trial not in by_name:
            raise InputError(f"--trial {trial}: sweep {record.name!r} has no such trial: {nearest(trial, by_name)}")
        found = by_name[trial]
        if found not in ended:
            raise InputError(f"--trial {trial}: it is {found.outcome}; a trial that has ended well is needed")
    metrics = {"valid": dict(found.metrics)}
    tested = [test["metrics"] for test in state.tests if test["trial"] == found.number]
    if tested:
        metrics["test"] = dict(tested[-1])
    return Chosen(record, found, _weights(record.folder, state, found), metrics, len(state.tests))


def _weights(folder: Path, state: SweepState, trial: TrialRecord) -> Path:
    kept = {
        item.name: checkpoints.weights(folder, item.number)
        for item in state.records.values()
        if item.outcome != "failed"
    }
    if path := kept[trial.name]:
        return path
    others = [name for name, path in kept.items() if path]
    raise InputError(
        f"the weights of {trial.name} were not kept (--keep says how many trials keep theirs); kept: "
        f"{', '.join(others) or 'none'}; `llmemf train` with its settings makes them again"
    )


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
    check_unchanged(chosen.sweep, scenario)
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
