"""Which trial is exported, and what is said where it cannot be."""

import shutil

import pytest

from llmemf.errors import InputError
from sweeps.export.chosen import choose
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import ranked


def order(made):
    return ranked(SweepState(made.record.folder).records.values())


def test_the_best_trial_of_the_newest_sweep_with_all_its_numbers(finished):
    best = order(finished)[0]
    chosen = choose(finished.storage, None, None)
    assert (chosen.sweep.name, chosen.trial.name, chosen.name) == ("s1", best.name, f"s1-{best.name}")
    assert chosen.metrics["valid"] == best.metrics and len(best.metrics) == 40
    assert chosen.metrics["test"] == SweepState(finished.record.folder).tests[0]["metrics"]
    assert (chosen.checkpoint / "best.safetensors").exists() and chosen.notes({}) == []


def test_another_trial_has_no_test_numbers(finished):
    second = order(finished)[1]
    chosen = choose(finished.storage, "s1", second.name)
    assert chosen.metrics == {"valid": second.metrics}


def test_a_trial_without_weights_is_refused_and_those_with_are_named(finished):
    first, second, third, failed = order(finished)
    with pytest.raises(InputError, match=f"weights of {third.name} were not kept.*kept: ") as caught:
        choose(finished.storage, "s1", third.name)
    assert first.name in str(caught.value) and second.name in str(caught.value)
    with pytest.raises(InputError, match=f"--trial {failed.name}: it is failed"):
        choose(finished.storage, "s1", failed.name)
    with pytest.raises(InputError, match="has no such trial"):
        choose(finished.storage, "s1", "t99")
    with pytest.raises(InputError, match="there is no sweep 's2'"):
        choose(finished.storage, "s2", None)


def test_a_sweep_without_an_ended_trial_has_nothing_to_export(finished, tmp_path):
    record = SweepRecord.load(finished.record.folder)
    record.storage, record.status = str(tmp_path), "planned"
    record.folder.mkdir(parents=True)
    record.save()
    with pytest.raises(InputError, match="nothing to export yet"):
        choose(tmp_path, None, None)


def test_a_storage_that_was_moved_and_a_sweep_that_goes_on(finished, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(finished.storage / "sweeps", moved / "sweeps")
    record = SweepRecord.load(moved / "sweeps" / "s1")
    record.storage, record.status = str(moved), "running"
    record.save()
    chosen = choose(moved, None, None)
    assert chosen.checkpoint.is_relative_to(moved)
    assert any("was running when the model was exported" in note for note in chosen.notes({}))
    assert any("offline encoders (text)" in note for note in chosen.notes({"text": "offline"}))
