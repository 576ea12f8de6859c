"""The report of a sweep as a page: its head; the sections below are those of `sections`."""

from __future__ import annotations

import datetime
from collections import Counter

from llmemf import text_format
from llmemf.pages.page import Page
from sweeps.core.descriptions import caveats_of, reference_notes
from sweeps.core.summary import failed_trials
from sweeps.reporting import commands
from sweeps.reporting.conclusions import Conclusions
from sweeps.reporting.history import SweepHistory
from sweeps.reporting.sections import sections
from sweeps.reporting.spending import hours
from sweeps.reporting.standing import seconds_left
from sweeps.state.confirmation import confirmed
from sweeps.state.trial_records import TrialRecord

FINE = 120
"""From so many trials on, dots and lines are drawn finer."""


def report_page(found: Conclusions, made: datetime.datetime | None = None) -> Page:
    """The page of a sweep; what there is nothing to say of is left out.

    Args:
        made: when, as its foot says; now by default.
    """
    history = found.history
    status = _status(history, found.is_live)
    return Page(
        kind="Sweep report",
        title=history.record.name,
        lead=_lead(history),
        sections=sections(found),
        footer=f"Made {made or datetime.datetime.now():%Y-%m-%d %H:%M} from the sweep's event log. Numbers are those of "
        "leaderboard.csv and MLflow.",
        warnings=[status] if status else [],
        tiles=_tiles(found),
        notes=_notes(found),
        labels={number: _label(trial.record) for number, trial in history.trials.items()},
        is_fine=len(history.trials) >= FINE,
    )


def _lead(history: SweepHistory) -> str:
    """What was run, in two sentences."""
    record = history.record
    how = {
        "grid": "a grid",
        "random": "random draws",
        "auto": "proposed by a model of settings and epochs",
        "optuna": "grid points, then Optuna",
    }[record.search]
    if record.search == "optuna" and not record.grid_points:
        how = "Optuna"
    rungs = history.rungs
    cuts = f"ASHA cuts after epoch{'s' * (len(rungs) > 1)} {', '.join(map(str, rungs))}"
    return (
        f"{text_format.plural(history.planned, 'trial')} of {record.model} on {record.scenario}: {how}; at most "
        f"{text_format.plural(history.epochs, 'epoch')}, {cuts if rungs else 'no trial is cut early'}. {_counts(history)}"
    )


def _counts(history: SweepHistory) -> str:
    """`8 completed, 4 pruned, 1 failed.`"""
    count = Counter(record.outcome for record in history.records)
    count["not started"] = history.planned - len(history.records)
    names = ("completed", "pruned", "failed", "running", "interrupted", "pending", "not started")
    parts = [f"{count[name]:,} {name}" for name in names if count[name]]
    parts += [f"{len(history.repeats)} again with new seeds"] if history.repeats else []
    return f"{', '.join(parts)}." if parts else "No trial has started."


def _status(history: SweepHistory, is_live: bool) -> str:
    if history.state == "running" and is_live:
        return f"This sweep is still running, and this page follows it ({history.state_note})."
    if history.state == "running":
        return f"This sweep is still running ({history.state_note}). What you see is its state when this was made."
    if history.state == "interrupted":
        return f"This sweep was interrupted{': ' + history.state_note if history.state_note else ''}."
    if not history.records:
        return "No trial has started yet."
    if history.state == "incomplete":
        return f"{failed_trials(history.records)}; run them again: {commands.resume(history.record, '--retry-failed')}"
    return "No trial has a value that counts." if history.state == "failed" or history.best is None else ""


def _notes(found: Conclusions) -> list[str]:
    history, record, notes = found.history, found.history.record, []
    if record.requested != record.scenario:
        notes.append(
            f"There was no data for {record.requested}: the embedded {record.scenario} stood in, and nothing here is "
            f"about {record.requested}."
        )
    if history.best is not None:
        notes += reference_notes(record, history.best.record, history.fixed.get("monitor", "val_mrr"))
    best = history.best.record.config if history.best is not None else {}
    settings = {**history.fixed, **best}
    notes += caveats_of(record.scenario, settings, found.objectives, found.encoders, len(history.tests))
    if valid_cases := history.fixed.get("valid_cases"):
        notes.append(f"Every epoch ranked a fixed sample of {valid_cases:,} validation cases.")
    if history.fixed.get("selection") == "per_domain":
        notes.append("Each domain has the weights of its own best epoch (selection = per_domain).")
    if history.group:
        notes.append(f"This sweep is a part of the {history.group}, which has the conclusions.")
    codes = {opening.get("code") for opening in history.openings}
    if len(codes) > 1:
        notes.append(f"It was continued with other code: {len(codes)} versions took part.")
    return notes


def _tiles(found: Conclusions) -> list[tuple[str, str, str]]:
    history, sure, spending = found.history, found.certainty, found.spending
    if not history.records:
        return []
    tiles, best, test = [], history.best, history.test
    if best is not None:
        note = f"{best.name}, epoch {best.record.best_epoch} of {best.record.epoch}"
        note += f"; 95 % interval over cases +/- {1.96 * sure.own_error:.4f}" if sure.own_error else ""
        over_seeds = confirmed(history.records)
        if over_seeds:
            note += f"; mean {over_seeds[0].mean:.4f} over {text_format.plural(len(over_seeds[0].values), 'seed')}"
        name, sign = ("Validation loss", -1) if history.monitors_loss else ("Validation MRR", 1)
        tiles.append((name, f"{sign * best.objective:.4f}", note))
    if history.state == "running":
        tiles += _running_tiles(history)
    if "test/mrr" in test:
        times = len(history.tests)
        note = "tested once" if times == 1 else f"tested {times} times"
        tiles.append(("Test MRR", f"{test['test/mrr']:.4f}", note))
    elif best is not None:
        tiles.append(("Test MRR", "-", "the sweep has not been tested"))
    tiles.append(("Wall time", text_format.duration(history.seconds), "interruptions left out"))
    note = f"{hours(spending.total.cpu_seconds)} of CPUs" if spending.uses_gpus else "no GPU was used"
    tiles.append((f"{spending.unit}-hours", f"{spending.spent / 3600:.2g}", note))
    if spending.saved_epochs:
        share = spending.saved / (spending.saved + spending.spent)
        note = f"an estimate: {spending.saved_epochs:,.0f} epochs not trained"
        tiles.append(("Saved by pruning", text_format.percent(share), note))
    return tiles


def _running_tiles(history: SweepHistory) -> list[tuple[str, str, str]]:
    """How far a running sweep is, what runs, and when it will have ended."""
    ended = sum(record.ended for record in history.records)
    known = [*history.records, *(repeat.record for repeat in history.repeats)]
    running = [record for record in known if record.outcome == "running"]
    shown = ", ".join(f"{record.name} {record.epoch}/{record.epochs}" for record in running[:6])
    left = seconds_left(history)
    text = "known when a trial has ended" if left is None else "from the mean time of trials"
    return [
        ("Trials", f"{ended} / {history.planned}", "ended"),
        ("Running", str(len(running)), f"epoch of {shown}{' ...' * (len(running) > 6)}" if running else "none now"),
        ("Time left", "-" if left is None else text_format.duration(left), text),
    ]


def _label(record: TrialRecord) -> list[str]:
    value = "-" if record.objective is None else f"{record.objective:.4f}"
    epoch = f"{record.outcome}, epoch {record.best_epoch} of {record.epoch}"
    return [record.name, value, epoch, text_format.settings(record.varied)]
