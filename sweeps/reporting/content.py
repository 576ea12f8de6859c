"""Everything that a report says, as text, tables and charts; the page and its Markdown twin only lay it out."""

from __future__ import annotations

import datetime
from collections import Counter
from types import SimpleNamespace
from typing import Any

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.ranking_names import METRICS, ranking_rows
from sweeps.core.descriptions import caveats_of, reference_notes
from sweeps.core.summary import failed_trials
from sweeps.reporting import bar_charts, commands, trial_charts
from sweeps.reporting.advice import advise
from sweeps.reporting.agreement import agreements
from sweeps.reporting.breakdown import Ranked, break_down
from sweeps.reporting.certainty import Certainty, certainty
from sweeps.reporting.history import SweepHistory, TrialHistory
from sweeps.reporting.importance import Importances, importances
from sweeps.reporting.parameters import simplex_pair
from sweeps.reporting.provenance import facts, shared_settings
from sweeps.reporting.spending import Spending, hours, spend
from sweeps.reporting.standing import seconds_left
from sweeps.reporting.stopped import stopping_section
from sweeps.reporting.tracked import Tracked
from sweeps.reporting.trial_table import trial_table
from sweeps.state.confirmation import confirmed

METRIC_HEADINGS = ["split", "domain", "ranked among", *(name.upper().replace("_", "@") for name in METRICS)]
FINE = 120
"""From so many trials on, dots and lines are drawn finer."""
WAITS = "The importance of settings is computed when the sweep has ended."
NOT_LIVE = "The cases are ranked when the sweep has ended, by the command `report`."
FAILURES = {"error": "its own error", "lost": "process or node lost", "memory": "out of memory", "disk": "disk full"}


def make_report_data(
    history: SweepHistory,
    tracked: Tracked,
    ranked: Ranked | None,
    made: datetime.datetime | None = None,
    *,
    is_live: bool = False,
) -> SimpleNamespace:
    """Draw the conclusions: the values of both templates; what is None, empty or "" is left out.

    Args:
        ranked: ranks of the leading trials; None where the breakdown is left out.
        is_live: whether it is drawn again and again beside running trials, so that what takes seconds waits for their end.
    """
    best, spending = history.best, spend([*history.trials.values(), *history.repeats])
    waits = is_live and history.state == "running"
    found = Importances(note=WAITS) if waits else importances(history.valued, history.parameters)
    sure = certainty(history, ranked)
    encoders = tracked.encoders or (ranked.features if ranked else {})
    objectives = _objectives(history, tracked)
    breakdown = None
    if ranked and ranked.scenario and best and best.name in ranked.ranks:
        cases = int(history.fixed.get("valid_cases") or 0)
        breakdown = break_down(best.name, ranked.ranks[best.name], ranked.scenario, valid_cases=cases)
    failed = [record for record in [*history.records, *(repeat.record for repeat in history.repeats)] if record.error]
    return SimpleNamespace(
        title=history.record.name,
        made=made or datetime.datetime.now(),
        lead=_lead(history),
        status=_status(history, is_live),
        # Name, number, and what belongs to it.
        tiles=_tiles(history, sure, spending),
        notes=_notes(history, objectives, encoders),
        best=_best_trial(history, sure),
        trials=trial_table(history, spending),
        curves=trial_charts.curves(history),
        best_so_far=trial_charts.best_so_far(history),
        losses=trial_charts.losses(history),
        outcomes={trial.record.outcome for trial in history.trials.values() if trial.curve},
        importances=found,
        setting_charts=_setting_charts(history, found),
        spending=spending,
        saving=_saving(spending),
        stopping=stopping_section(history),
        spending_stack=bar_charts.hours_stack(spending),
        spending_rows=_spending_rows(spending) if history.records else [],
        failures=[
            [record.name, FAILURES.get(record.kind, record.kind), record.error, text_format.settings(record.varied)]
            for record in failed
        ],
        errors_folder=history.record.folder / "errors",
        # Domain, sentence, chart.
        agreements=agreements(history),
        breakdown=breakdown,
        breakdown_problem=ranked.problem if ranked else NOT_LIVE if is_live else "Left out (--no-breakdown).",
        breakdown_charts=bar_charts.group_charts(breakdown) if breakdown else {},
        facts=facts(history, tracked, encoders, objectives),
        shared_settings=shared_settings(history),
        advice=advise(history, found, sure),
        metric_headings=METRIC_HEADINGS,
        is_fine=len(history.trials) >= FINE,
        is_running=history.state == "running",
        labels={number: _label(trial.record) for number, trial in history.trials.items()},
    )


def _objectives(history: SweepHistory, tracked: Tracked) -> list[str]:
    """Training objectives among the trials, as the runs' tag says, or the settings."""
    tag, fixed = tracked.tags.get("objective"), history.fixed.get("objective")
    return tag.split("+") if tag else [str(fixed)] if fixed else []


def _lead(history: SweepHistory) -> str:
    """What was run, in two sentences."""
    record = history.record
    how = {
        "grid": "a grid",
        "random": "random draws",
        "auto": "a model of settings and epochs",
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


def _notes(history: SweepHistory, objectives: list[str], encoders: dict[str, str]) -> list[str]:
    record, notes = history.record, []
    if record.requested != record.scenario:
        notes.append(
            f"There was no data for {record.requested}: the embedded {record.scenario} stood in, and nothing here is "
            f"about {record.requested}."
        )
    if history.best is not None:
        notes += reference_notes(record, history.best.record, history.fixed.get("monitor", "val_mrr"))
    best = history.best.record.config if history.best is not None else {}
    notes += caveats_of(record.scenario, {**history.fixed, **best}, objectives, encoders, len(history.tests))
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


def _tiles(history: SweepHistory, sure: Certainty, spending: Spending) -> list[tuple[str, str, str]]:
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


def _best_trial(history: SweepHistory, sure: Certainty) -> dict[str, Any] | None:
    """How good and how sure it is, its settings as YAML lines, and the command that trains it again ("" without one)."""
    best, record = history.best, history.record
    if best is None:
        return None
    settings = {**best.record.config, **best.record.varied}
    lines = "\n".join(f"{key}: {_yaml(value)}" for key, value in settings.items())
    path = record.folder / "best.yaml"
    command = command_line("train", record.scenario, "--config", path, "--output", "FOLDER") if path.exists() else ""
    sentence = sure.sentence if len(history.valued) > 1 else ""
    return {"sentence": sentence, "metrics": _metric_rows(best, history), "settings": lines, "command": command}


def _yaml(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _metric_rows(best: TrialHistory, history: SweepHistory) -> list[list[str]]:
    """Split, domain, ranking and metrics of the best trial."""
    known = {**best.record.metrics, **history.test}
    return [
        [said, domain, among, *cells]
        for split, said in (("val", "validation"), ("test", "test"))
        for domain in history.domains
        for among, cells in ranking_rows(known, split, domain, METRICS)
    ]


def _setting_charts(history: SweepHistory, found: Importances) -> dict[str, Any] | None:
    """What the searched settings did: key -> slice, the map of a simplex, parallel coordinates."""
    if not history.valued or not history.parameters:
        return None
    pair = simplex_pair(history.parameters)
    return {
        "importances": bar_charts.importance_bars(found),
        "slices": {parameter.key: trial_charts.slice_of(history, parameter) for parameter in history.parameters},
        "simplex": trial_charts.simplex(history, pair) if pair else None,
        "shares": f"{pair[0].key}, {pair[1].key} and the rest" if pair else "",
        "parallel": trial_charts.parallel(history),
    }


def _saving(spending: Spending) -> str:
    """How the saving was estimated, "" where nothing was pruned."""
    if not spending.saved_epochs:
        return ""
    return (
        f"Pruning saved about {hours(spending.saved)} of {spending.unit} time. This is an estimate: the "
        f"{spending.saved_epochs:,.0f} epochs that pruned trials did not train (up to the {spending.full_epochs:.1f} of a "
        "completed one), at each trial's own time per epoch."
    )


def _spending_rows(spending: Spending) -> list[list[str]]:
    total, rows = spending.total, []
    for name, share in {**spending.by_outcome, "all": total}.items():
        row = [name, f"{share.trials:,}", f"{share.epochs:,}", text_format.duration(share.place_seconds)]
        row.append(hours(share.cpu_seconds, total.cpu_seconds))
        rows.append([*row, *([hours(share.gpu_seconds, total.gpu_seconds)] if spending.uses_gpus else [])])
    return rows


def _label(record: Any) -> list[str]:
    value = "-" if record.objective is None else f"{record.objective:.4f}"
    epoch = f"{record.outcome}, epoch {record.best_epoch} of {record.epoch}"
    return [record.name, value, epoch, text_format.settings(record.varied)]
