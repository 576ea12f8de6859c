"""The files of groups: of this version, and of the former one, in which each kind had a format of its own."""

from pathlib import Path

import pytest
import yaml
from group_fakes import Floor, go, make_sweep, no_server, plan, resume

from llmemf.errors import InputError
from sweeps.groups.encoders import Encoders
from sweeps.groups.group import Group
from sweeps.groups.new_group import GroupOptions
from sweeps.groups.plan import plan_group
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.tracking import mlflow_writer

SHARED = (
    "name", "requested", "scenario", "seeds", "seed", "data_root", "storage", "tracking_uri", "cpus_per_trial",
    "gpus_per_trial", "concurrency", "ray_address", "fresh_workers", "fingerprint", "created", "status",
)  # fmt: skip
SEARCHES = ("search", "scheduler", "grace_period", "reduction_factor", "assignments", "fixed")
OFFLINE = Encoders(text="offline", image="offline", problems={"llm": "no LLM text"})


@pytest.fixture(autouse=True)
def here(project_folder):
    return make_sweep("s1", {0.003: 0.4, 0.01: 0.6})


def made(kind):
    """A group that ran to its end."""
    if kind == "comparison":
        group = plan(kind, scenario="sample", name="g1", models=["popularity", "sasrec"], trials_per_model=2, seeds=2)
    elif kind == "ablation":
        group = plan(kind, scenario="sample", name="g1", rows=["ids", "text", "text_llm"], seeds=2)
        group.facts["encoders"] = OFFLINE.model_dump()
    else:
        group = plan(kind, sweep="s1", name="g1", top=2, seeds=2)
    code, text = go(group, Floor())
    assert code == 0, text
    return group


def former(group):
    """What the former version wrote of a group."""
    keys = SHARED if group.kind == "rerun" else (*SHARED, *SEARCHES)
    content = {key: getattr(group, key) for key in keys}
    gone = {"cuda_graphs": "auto"}
    if group.kind != "rerun":
        content["fixed"] = {**content["fixed"], **gone}
    if group.kind == "comparison":
        return {**content, "models": group.names, "trials_per_model": group.trials}
    if group.kind == "ablation":
        content |= {"rows": group.names, "tune": None, "origin": group.origin, "space": {}, "constraints": []}
        return {**content, "own": {}, "encoders": group.facts["encoders"], "full": group.reference}
    return {
        **content,
        "sweep": "s1",
        "model": "llm_emf",
        "trials": group.names,
        "asked": 2,
        "configurations": {row.name: {**row.overrides, **gone} for row in group.rows},
        "shown": {row.name: row.varied for row in group.rows},
        "objectives": {row.name: row.objective for row in group.rows},
        "earlier_looks": 0,
        "winner": group.winner,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "key"), [("comparison", "model"), ("ablation", "row"), ("rerun", "trial")])
def test_a_group_of_the_former_version_is_continued_and_repeats_nothing(kind, key):
    group = made(kind)
    tables = {
        path.name: path.read_bytes() for path in group.folder.glob(f"{kind}.*") if path.suffix not in (".yaml", ".log")
    }
    (group.folder / f"{kind}.yaml").write_text(yaml.safe_dump(former(group), sort_keys=False))
    events = group.folder / "journal.jsonl"
    events.write_text(events.read_text().replace('"row":', f'"{key}":'))
    again = resume(kind)
    floor = Floor()
    code, text = go(again, floor)
    assert code == 0 and not floor.trained and not floor.tests, text
    assert {name: (group.folder / name).read_bytes() for name in tables} == tables
    assert len(tables) == (3 if kind == "rerun" else 4)
    assert Group.load(kind, group.folder) == again, "written in the format of this version"


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "comparison.yaml").write_text("kind: comparison\nnme: c1\n")
    with pytest.raises(InputError, match=r"comparison\.yaml.*'nme'"):
        Group.load("comparison", tmp_path)


@pytest.mark.slow
def test_writes_that_mlflow_missed_in_a_step_are_delivered_by_the_next_driver_once(monkeypatch):
    monkeypatch.setattr(mlflow_writer, "FINAL_ATTEMPTS", 1)
    server = no_server()
    server.set_terminated.side_effect = ConnectionError("no answer")
    group = plan("comparison", scenario="sample", name="g1", models=["sasrec"], trials_per_model=2, seeds=2)
    code, text = go(group, Floor(), server=server)
    assert code == 0 and text.count("not delivered") == 3, "the search, the seeds and the group"
    assert SweepState(group.sweep_folder("sasrec", "seeds")).undelivered == 3, "two trials and the sweep"
    names = []
    for _ in range(2):
        server, floor = no_server(), Floor()
        code, text = go(resume("comparison"), floor, server=server)
        assert code == 0 and not floor.trained and not floor.tests and "not delivered" not in text
        names.append({call.kwargs["run_name"] for call in server.create_run.call_args_list})
    assert {"g1--sasrec", "g1--sasrec--seeds"} < names[0] and names[1] == {"comparison g1"}


@pytest.mark.slow
def test_a_group_that_was_moved_takes_its_sweeps_along(project_folder):
    group = plan("comparison", scenario="sample", name="g1", models=["sasrec"], trials_per_model=1, seeds=1)
    assert go(group, Floor(), server=no_server())[0] == 0
    (project_folder / "mlruns").rename(project_folder / "m2")
    with pytest.raises(InputError, match="--name g1"):
        resume("comparison", storage=Path("m2"))
    for first in (True, False):
        server, floor = no_server(), Floor()
        moved = resume("comparison", name="g1", storage=Path("m2"), tracking_uri="sqlite:///new.db")
        code, text = go(moved, floor, server=server)
        assert code == 0 and not floor.trained and not floor.tests
        made = {call.kwargs["run_name"] for call in server.create_run.call_args_list}
        assert ("moved from" in text) is first
        assert made >= {"comparison g1", "g1--sasrec", "g1--sasrec--seeds"} if first else made == {"comparison g1"}
    sweeps = [SweepRecord.load(moved.sweep_folder("sasrec", step)) for step in ("search", "seeds")]
    for record in [Group.load("comparison", moved.folder), *sweeps]:
        assert record.home == str(record.folder) and record.tracking_uri == f"sqlite:///{project_folder}/new.db"


def test_continue_says_which_options_have_no_effect(project_folder):
    options = {"scenario": "sample", "name": "g1", "models": ["sasrec"], "trials_per_model": 1, "seeds": 1}
    group = plan("comparison", **options)
    group.folder.mkdir(parents=True)
    group.save()
    again = plan_group("comparison", GroupOptions(**options), start_or_continue=True)
    assert again.notices == []
    changed = GroupOptions(**options | {"seeds": 3, "models": ["sasrec", "mifn"]})
    (notice,) = plan_group("comparison", changed, start_or_continue=True).notices
    assert "--seeds" in notice and "--models" in notice and "--trials-per-model" not in notice
