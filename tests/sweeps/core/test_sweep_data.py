import dataclasses
import json

import pytest
from sweep_fakes import tiny_scenario

from llmemf.errors import InputError
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.sweep_data import load_data


def test_who_only_reads_makes_no_sample_anew(project_folder, tmp_path):
    """A report of a sweep on the sample of an earlier version must not replace what the sweep was trained on."""
    source = {"reader": "sample", "generated": True, "generator": {"version": 0}}
    folder = dataclasses.replace(tiny_scenario(), source=source).save(tmp_path / "data")
    before = (folder / "manifest.json").read_bytes()
    plan = plan_sweep(Options(scenario="sample", model="popularity", data_root=tmp_path / "data"))
    data = load_data(plan, to_train=False)
    assert data.scenario.fingerprint == json.loads(before)["fingerprint"]
    assert (folder / "manifest.json").read_bytes() == before
    with pytest.raises(InputError, match="unknown scenario"):
        load_data(plan_sweep(Options(scenario="sample", data_root=tmp_path / "none")), to_train=False)
    assert not (tmp_path / "none").exists()
