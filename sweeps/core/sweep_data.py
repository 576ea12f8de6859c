"""The scenario and features of a sweep, loaded once for all its trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmemf.errors import InputError
from sweeps.core.plan import Plan
from sweeps.core.settings import SAMPLE
from sweeps.state.sweep_record import SweepRecord

if TYPE_CHECKING:
    from llmemf.batches import TrialData
    from llmemf.features.matrix import FeatureMatrix
    from llmemf.scenarios.scenario import Scenario


@dataclass
class SweepData:
    """The scenario and features of a sweep.

    Attributes:
        features: kind -> matrix.
        trial_data: what trials see; it holds no test data.
    """

    scenario: Scenario
    features: dict[str, FeatureMatrix]
    trial_data: TrialData

    def shared_bytes(self) -> int:
        """Upper bound of what trials share through Ray's object store."""
        matrices = sum(4 * matrix.rows.size for matrix in self.features.values() if not matrix.packed)
        parts = sum(
            getattr(self.scenario.split(name), part).nbytes
            for name in ("train", "valid")
            for part in ("items", "times")
        )
        return matrices + parts + self.scenario.candidates["valid"].nbytes

    def tags(self) -> dict[str, str]:
        """Hashes and encoder names that go into every run."""
        hashes = self.scenario.hashes()
        tags = {
            "fingerprint": self.scenario.fingerprint,
            "candidates_valid": hashes["candidates_valid"],
            "candidates_test": hashes["candidates_test"],
        }
        for kind, matrix in self.features.items():
            tags[f"{kind}_encoder"] = matrix.encoder
            tags[f"{kind}_features"] = matrix.hash()
        return tags


def load_scenario(name: str, data_root: str) -> Scenario:
    """A prepared scenario; the sample is made first where it does not exist.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if name == SAMPLE:
        from llmemf.scenarios.sample import prepare_sample

        return prepare_sample(data_root)
    from llmemf.scenarios.scenario import find_scenario

    return find_scenario(name, data_root)


def check_device(plan: Plan) -> None:
    """Refuse a device that trials will not have; a cluster's machines are not asked.

    Raises:
        InputError: this machine lacks it, or a trial would use a GPU that it does not reserve.
    """
    from llmemf.models.recommender import pick_device

    for device in sorted({config.device for config in plan.configs}):
        if not plan.record.ray_address:
            pick_device(device)
        if device.startswith("cuda") and not plan.record.gpus_per_trial:
            raise InputError(
                f"device = {device} with --gpus-per-trial 0: trials would crowd a GPU that none of them reserves; give "
                "--gpus-per-trial 1 (or a share such as 0.5), or device = cpu"
            )


def load_data(plan: Plan, *, to_train: bool = True) -> SweepData:
    """Load the scenario and the features that some trial needs.

    Args:
        to_train: check the device as well, and make the sample where there is none or one of another version; else what
            is there is read and nothing is written.

    Raises:
        InputError: data is missing, damaged, or not what the sweep was started with; or the device is not there.
    """
    from llmemf.batches import TrialData
    from llmemf.features.finding import find_features
    from llmemf.scenarios.scenario import find_scenario

    record = plan.record
    if to_train:
        check_device(plan)
    load = load_scenario if to_train else find_scenario
    scenario = load(record.scenario, record.data_root)
    check_unchanged(record, scenario)
    features = {}
    for kind in sorted(plan.needs):
        encoder = getattr(plan.configs[0], f"{kind}_encoder", "auto")
        features[kind] = find_features(scenario, kind, encoder)
    return SweepData(scenario, features, TrialData.build(scenario, **features))


def check_unchanged(record: SweepRecord, scenario: Scenario) -> None:
    """Refuse a scenario that is no longer the one of a sweep.

    Raises:
        InputError: it has changed.
    """
    if record.fingerprint and record.fingerprint != scenario.fingerprint:
        raise InputError(
            f"scenario {scenario.name!r} has changed since sweep {record.name!r} was started (fingerprint "
            f"{scenario.fingerprint[:8]}, was {record.fingerprint[:8]}): bring the old data back, or start a new sweep"
        )


def is_prepared(plan: Plan) -> bool:
    """Whether the scenario of a plan lies below the data root."""
    return (Path(plan.record.data_root) / plan.record.scenario / "manifest.json").exists()
