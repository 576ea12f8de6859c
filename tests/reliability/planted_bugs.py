"""Mistakes that others made, planted one at a time: the net has to catch each of them.

Each is a function that patches the product (or the small trainer) through pytest's `monkeypatch`. `PLANTED` says where the net
looks for it: in a grid, in a search with successive halving, among the files of `llmemf train`, or with two drivers at once.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from small_sweep import SmallTrainer

import llmemf.append_only_log
import llmemf.checkpoint
import llmemf.io
from sweeps.core import callback, results, storage
from sweeps.search.asha import ResumableASHA
from sweeps.search.search import SweepSearch
from sweeps.state import checkpoints, event_log, sweep_record
from sweeps.state.metrics import epoch_result
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_writer import MlflowWriter
from sweeps.tracking.owned_runs import RunOwner
from sweeps.tracking.runs import Tracking


def lines_are_not_flushed(patch: Any) -> None:
    patch.setattr(event_log, "AppendOnlyLog", partial(llmemf.append_only_log.AppendOnlyLog, durable=False))


def nothing_is_flushed_before_a_rename(patch: Any) -> None:
    patch.setattr(llmemf.io, "sync", lambda path: None)


def names_are_not_flushed(patch: Any) -> None:
    real = llmemf.io.sync
    patch.setattr(llmemf.io, "sync", lambda path: None if path.is_dir() else real(path))


def the_leaderboard_is_written_in_place(patch: Any) -> None:
    patch.setattr(results, "write_text", lambda path, text: path.write_text(text))


def the_record_is_written_in_place(patch: Any) -> None:
    patch.setattr(sweep_record, "write_text", lambda path, text: path.write_text(text))


def a_checkpoint_is_written_under_its_final_name(patch: Any) -> None:
    def save(trainer: Any, folder: Path, report: dict[str, Any]) -> None:
        target = folder / f"epoch-{report['epoch']:04d}"
        target.mkdir(parents=True, exist_ok=True)
        (target / checkpoints.REPORT).write_text(checkpoints.json.dumps(report))
        trainer.save(target)
        for old in checkpoints.stored(folder)[checkpoints.NUM_KEPT :]:
            shutil.rmtree(old)

    patch.setattr(checkpoints, "save", save)


def the_oldest_checkpoint_is_taken_for_the_newest(patch: Any) -> None:
    real = checkpoints.stored
    patch.setattr(checkpoints, "stored", lambda folder: real(folder)[::-1])


def a_checkpoint_is_removed_before_the_next_is_there(patch: Any) -> None:
    real = checkpoints.save

    def save(trainer: Any, folder: Path, report: dict[str, Any]) -> None:
        for old in checkpoints.stored(folder):
            shutil.rmtree(old)
        real(trainer, folder, report)

    patch.setattr(checkpoints, "save", save)


def states_are_removed_before_the_end_is_logged(patch: Any) -> None:
    real = checkpoints.save

    def save(trainer: Any, folder: Path, report: dict[str, Any]) -> None:
        real(trainer, folder, report)
        if report["epoch"] == report["epochs"]:
            checkpoints.keep_weights(folder)

    patch.setattr(checkpoints, "save", save)


def a_torn_line_is_not_cut(patch: Any) -> None:
    patch.setattr(llmemf.append_only_log, "_cut_torn_line", lambda file: None)


def the_random_state_is_forgotten(patch: Any) -> None:
    real = SmallTrainer.load

    def load(self: SmallTrainer, folder: Path) -> None:
        real(self, folder)
        self.random = random.Random(self.point)

    patch.setattr(SmallTrainer, "load", load)


def a_repeated_epoch_is_accepted(patch: Any) -> None:
    def add(self: SweepState, record: Any, result: dict[str, Any], *, stopped: bool) -> dict[str, Any]:
        result = epoch_result(result)
        end = "completed" if result["epoch"] >= record.epochs else "pruned" if stopped else ""
        return self._write("epoch", trial=record.number, result=result, end=end, seconds=0.0)

    patch.setattr(SweepState, "add", add)


def the_server_is_told_before_the_log(patch: Any) -> None:
    real = callback.SweepCallback.on_trial_result

    def on_trial_result(self: Any, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        from small_sweep import deliver

        self.tracking.log_epoch(self._record(trial), epoch_result(result), int(time.time() * 1e3) + 7)
        deliver(self.tracking.writer)
        quiet = self.tracking.log_epoch
        self.tracking.log_epoch = lambda *_: None
        real(self, iteration, trials, trial, result, **info)
        self.tracking.log_epoch = quiet

    patch.setattr(callback.SweepCallback, "on_trial_result", on_trial_result)


def runs_are_made_anew_on_every_start(patch: Any) -> None:
    patch.setattr(RunOwner, "find", lambda self, client, experiment, trial=None: [])


def all_trials_write_into_one_run(patch: Any) -> None:
    real = MlflowWriter._create
    patch.setattr(
        MlflowWriter, "_create", lambda self, write: next(iter(self.runs.values()), None) or real(self, write)
    )


def what_the_server_misses_is_not_written_again(patch: Any) -> None:
    patch.setattr(Tracking, "_catch_up", lambda self, state: self._started.update(self._found))


def unfinished_trials_are_forgotten(patch: Any) -> None:
    patch.setattr(SweepState, "unfinished", lambda self: [])


def the_test_is_forgotten_and_made_again(patch: Any) -> None:
    apply = SweepState._apply
    patch.setattr(SweepState, "_apply", lambda self, event: event["event"] == "tested" or apply(self, event))


def the_rungs_are_forgotten(patch: Any) -> None:
    real = ResumableASHA.__init__
    patch.setattr(ResumableASHA, "__init__", lambda self, records, **options: real(self, [], **options))


def the_study_forgets_what_it_learned(patch: Any) -> None:
    patch.setattr(SweepSearch, "_remember", lambda self, record: None)


def the_optimiser_is_not_part_of_a_checkpoint(patch: Any) -> None:
    patch.setattr(torch.optim.Optimizer, "load_state_dict", lambda self, state: None)


def weights_are_renamed_before_they_are_flushed(patch: Any) -> None:
    @contextmanager
    def unflushed(path: Path) -> Iterator[Path]:
        temporary = path.with_name(f".{path.name}.1.tmp")
        yield temporary
        temporary.replace(path)

    patch.setattr(llmemf.checkpoint, "atomic_file", unflushed)


def the_record_of_a_checkpoint_is_written_first(patch: Any) -> None:
    """Hashes of files that are not there yet, and none of those that are."""
    patch.setattr(
        llmemf.checkpoint, "_valid_hashes", lambda folder, written: {name: [digest] for name, digest in written.items()}
    )


def nobody_holds_the_folder(patch: Any) -> None:
    patch.setattr(storage, "locked", lambda folder, name: nullcontext())


GRID, SEARCH, TRAIN, DRIVERS = "grid", "search", "train", "drivers"
PLANTED: dict[Callable[[Any], None], str] = {
    lines_are_not_flushed: GRID,
    nothing_is_flushed_before_a_rename: GRID,
    names_are_not_flushed: GRID,
    the_leaderboard_is_written_in_place: GRID,
    the_record_is_written_in_place: GRID,
    a_checkpoint_is_written_under_its_final_name: GRID,
    the_oldest_checkpoint_is_taken_for_the_newest: GRID,
    a_checkpoint_is_removed_before_the_next_is_there: GRID,
    states_are_removed_before_the_end_is_logged: GRID,
    a_torn_line_is_not_cut: GRID,
    the_random_state_is_forgotten: GRID,
    a_repeated_epoch_is_accepted: GRID,
    the_server_is_told_before_the_log: GRID,
    runs_are_made_anew_on_every_start: GRID,
    all_trials_write_into_one_run: GRID,
    what_the_server_misses_is_not_written_again: GRID,
    unfinished_trials_are_forgotten: GRID,
    the_test_is_forgotten_and_made_again: GRID,
    the_rungs_are_forgotten: SEARCH,
    the_study_forgets_what_it_learned: SEARCH,
    the_optimiser_is_not_part_of_a_checkpoint: TRAIN,
    weights_are_renamed_before_they_are_flushed: TRAIN,
    the_record_of_a_checkpoint_is_written_first: TRAIN,
    nobody_holds_the_folder: DRIVERS,
}
