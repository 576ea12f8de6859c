"""The sections of a sweep's report, each of what follows from the sweep; None where there is nothing to show."""

from __future__ import annotations

from typing import Any

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.pages.page import Part, Section
from llmemf.ranking_names import METRICS, ranking_rows
from llmemf.text_format import percent
from sweeps.reporting import bar_charts, trial_charts
from sweeps.reporting.breakdown import Breakdown
from sweeps.reporting.conclusions import Conclusions
from sweeps.reporting.importance import Importances
from sweeps.reporting.parameters import simplex_pair
from sweeps.reporting.provenance import facts, shared_settings
from sweeps.reporting.spending import Spending, hours
from sweeps.reporting.stopped import stopping_section
from sweeps.reporting.trial_table import trial_tables

METRIC_HEADINGS = ["split", "domain", "ranked among", *(name.upper().replace("_", "@") for name in METRICS)]
FAILURES = {"error": "its own error", "lost": "process or node lost", "memory": "out of memory", "disk": "disk full"}
NOT_LIVE = "The cases are ranked when the sweep has ended, by the command `report`."
SHOWN_FAILURES = 20
FIFTHS = ([f"d q{fifth}" for fifth in range(5)], "from the worst fifth to the best")
BREAKDOWN = ["by", "domain", "group", "cases", "MRR", "95 %", "HR@10", "MRR (all items)"]


def sections(found: Conclusions) -> list[Section]:
    """Those that have something to show, in their order."""
    makers = (
        _best, _trials, _curves, _settings, _cost, stopping_section, _failures, _rankings, _groups, _made, _next,
    )  # fmt: skip
    return [section for maker in makers if (section := maker(found))]


def _outcomes(found: Conclusions) -> set[str]:
    return {trial.record.outcome for trial in found.history.trials.values() if trial.curve}


def _best(found: Conclusions) -> Section | None:
    """How good and how sure the best trial is, its settings as YAML lines, and the command that trains it again."""
    history, record, best = found.history, found.history.record, found.history.best
    if best is None:
        return None
    known = {**best.record.metrics, **history.test}
    rows = [
        [said, domain, among, *cells]
        for split, said in (("val", "validation"), ("test", "test"))
        for domain in history.domains
        for among, cells in ranking_rows(known, split, domain, METRICS)
    ]
    settings, columns = {**best.record.config, **best.record.varied}, list[tuple[str, list[Part]]]()
    if settings:
        lines = "\n".join(f"{key}: {_yaml(value)}" for key, value in settings.items())
        columns.append(("Its settings", [("code", lines, "yaml")]))
    if (path := record.folder / "best.yaml").exists():
        command = command_line("train", record.scenario, "--config", path, "--output", "FOLDER")
        columns.append(("Train it again", [("code", command)]))
    table = ("table", rows, METRIC_HEADINGS, range(3))
    return Section("Best trial", [("text", found.sure), table, ("beside", columns, "pair")], "best")


def _yaml(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _trials(found: Conclusions) -> Section | None:
    if not found.history.records:
        return None
    board, short = trial_tables(found.history, found.spending)
    lead = "Validation metrics of each trial's best epoch. epochs: best/run."
    more = "The best come first; all of them, with all metrics, are in leaderboard.csv."
    return Section("All trials", [("text", lead), board], "trials", twin=[short, ("text", more)])


def _curves(found: Conclusions) -> Section | None:
    history, outcomes = found.history, _outcomes(found)
    chart = trial_charts.curves(history)
    if chart is None:
        return None
    marks = [(["ln best"], "best"), (["ln"], "completed")]
    marks += [(["ln p", "d p"], "cut by ASHA at a rung")] if "pruned" in outcomes else []
    marks += [(["ln p", "d f"], "failed")] if "failed" in outcomes else []
    further = {
        "Best so far, trial by trial": trial_charts.best_so_far(history),
        "Training loss": trial_charts.losses(history),
    }
    columns = [(title, [("plot", plot)]) for title, plot in further.items() if plot]
    parts = [("plot", chart), ("key", marks), ("beside", columns, "two")]
    return Section("Learning curves", parts, "curves")


def _settings(found: Conclusions) -> Section | None:
    """What the searched settings did: importance, slices, the map of a simplex, parallel coordinates."""
    history, importances = found.history, found.importances
    if not history.valued or not history.parameters:
        return None
    how = ""
    if importances.items:
        how = (
            f"Importance by PED-ANOVA: which settings tell the best {percent(importances.top)} of {importances.trials} trials from "
            "all. Line: 90 % interval over resampled trials. Dotted: what chance alone stays below; grey bars do not pass it."
        )
    marks = [(["d best"], "best"), (["d c"], "completed")]
    marks += [(["d p"], "pruned: last value before the cut")] if "pruned" in _outcomes(found) else []
    slices = [
        (parameter.key, [("plot", trial_charts.slice_of(history, parameter))]) for parameter in history.parameters
    ]
    maps: list[tuple[str, list[Part]]] = []
    if pair := simplex_pair(history.parameters):
        shares = f"{pair[0].key}, {pair[1].key} and the rest"
        maps.append(
            (shares, [("plot", trial_charts.simplex(history, pair)), ("key", [FIFTHS, ([], "square: pruned")])])
        )
    if lines := trial_charts.parallel(history):
        maps.append(("Every trial as a line", [("wide", lines), ("key", [FIFTHS])]))
    note = ("text", importances.note, "quiet hint")
    parts = [
        ("text", how),
        ("bars", bar_charts.importance_bars(importances)),
        note,
        ("heading", "Objective against each setting"),
        ("key", marks),
        ("beside", slices, "grid"),
        ("beside", maps, "map"),
    ]
    return Section("What matters", parts, "settings", twin=[_importance_table(importances), note])


def _importance_table(found: Importances) -> Part:
    headings = ["setting", "importance (PED-ANOVA)", "90 % interval", "chance stays below"]
    rows = [
        [item.key, percent(item.share), f"{percent(item.low)} to {percent(item.high)}", percent(item.chance)]
        for item in found.items
    ]
    return "table", rows, headings


def _cost(found: Conclusions) -> Section | None:
    spending = found.spending
    if not found.history.records:
        return None
    total, rows, gpus = spending.total, [], ["GPU"] if spending.uses_gpus else []
    for name, share in {**spending.by_outcome, "all": total}.items():
        row = [name, f"{share.trials:,}", f"{share.epochs:,}", text_format.duration(share.place_seconds)]
        row.append(hours(share.cpu_seconds, total.cpu_seconds))
        rows.append([*row, *([hours(share.gpu_seconds, total.gpu_seconds)] if gpus else [])])
    bars = bar_charts.hours_stack(spending)
    parts = [
        ("text", _saving(spending)),
        ("stack", bars, f"{spending.unit}-hours"),
        ("table", rows, ["outcome", "trials", "epochs", "time of trials", "CPU", *gpus]),
    ]
    return Section("What it cost", parts, "cost", "Cost")


def _saving(spending: Spending) -> str:
    """How the saving was estimated."""
    if not spending.saved_epochs:
        return ""
    return (
        f"Pruning saved about {hours(spending.saved)} of {spending.unit} time. This is an estimate: the "
        f"{spending.saved_epochs:,.0f} epochs that pruned trials did not train (up to the {spending.full_epochs:.1f} of a "
        "completed one), at each trial's own time per epoch."
    )


def _failures(found: Conclusions) -> Section | None:
    history = found.history
    failed = [record for record in [*history.records, *(repeat.record for repeat in history.repeats)] if record.error]
    if not failed:
        return None
    rows = [
        [record.name, FAILURES.get(record.kind, record.kind), record.error, text_format.settings(record.varied)]
        for record in failed[:SHOWN_FAILURES]
    ]
    more = f"{len(failed) - len(rows)} more in the leaderboard. " if len(failed) > len(rows) else ""
    traces = f"{more}Full traces: {history.record.folder / 'errors'}"
    table = ("table", rows, ["trial", "kind", "reason", "settings"], range(4))
    return Section("Failures", [table, ("text", traces, "quiet")], "failures")


def _rankings(found: Conclusions) -> Section | None:
    """Stored candidates against all items: do both rank the trials alike? None for a single trial."""
    from scipy.stats import spearmanr

    history, columns = found.history, list[tuple[str, list[Part]]]()
    for domain in history.domains:
        names = f"val/{domain}/mrr", f"val_full/{domain}/mrr"
        metrics = {trial.record.number: trial.record.metrics for trial in history.valued}
        points = {n: (known[names[0]], known[names[1]]) for n, known in metrics.items() if known.keys() >= {*names}}
        if not points or len(metrics) < 2:
            continue
        if all(sampled == full for sampled, full in points.values()):
            same = "Both are the same numbers: the stored candidates are all items of the domain."
            columns.append((domain, [("text", same, "quiet")]))
            continue
        sentence = "Too few trials to compare their orders."
        sampled, full = (list(values) for values in zip(*points.values(), strict=True))
        if len(points) > 2 and len(set(sampled)) > 1 and len(set(full)) > 1:
            correlation = float(spearmanr(sampled, full).statistic)
            sentence = f"Spearman's rank correlation over {len(points)} trials: {correlation:.2f}."
        columns.append((domain, [("text", sentence, "quiet"), ("plot", trial_charts.scatter(history, domain, points))]))
    if not columns:
        return None
    lead = (
        "Published tables rank the target among sampled candidates. Would the whole catalogue order the trials alike?"
    )
    parts = [("text", lead), ("beside", columns, "two")]
    return Section("Stored candidates against all items", parts, "rankings", "Both rankings")


def _groups(found: Conclusions) -> Section | None:
    breakdown = found.breakdown
    if breakdown is None:
        without = NOT_LIVE if found.is_live else "Left out (--no-breakdown)."
        problem = ("text", found.ranked.problem if found.ranked else without, "quiet")
        return Section("For whom it works", [problem], "groups", "For whom") if found.history.best else None
    lead = (
        f"MRR of {breakdown.trial} among stored candidates on {breakdown.cases:,} validation cases, with 95 % intervals over "
        "cases."
    )
    if breakdown.sampled:
        lead += " The search itself saw only a sample of them, so the numbers differ from the leaderboard's."
    marks = [
        ([f"d {kind}"], f"{group.domain}: {group.mrr:.4f} +/- {group.half_width:.4f}, {group.cases:,} cases")
        for kind, group in zip(("first", "second"), breakdown.by["domain"], strict=False)
    ]
    charts = bar_charts.group_charts(breakdown)
    grid = [(f"By {title}", [("intervals", rows)]) for title, rows in charts.items()]
    parts = [("text", lead), ("key", marks), ("beside", grid, "grid")]
    return Section("For whom it works", parts, "groups", "For whom", twin=[("text", lead), _breakdown_table(breakdown)])


def _breakdown_table(breakdown: Breakdown) -> Part:
    rows = [
        [title, it.domain, it.label, f"{it.cases:,}", f"{it.mrr:.4f}", f"+/- {it.half_width:.4f}" if it.half_width else "-", f"{it.hr_10:.4f}",
         f"{it.mrr_full:.4f}"]
        for title, groups in breakdown.by.items()
        for it in groups
    ]  # fmt: skip
    return "table", rows, BREAKDOWN, range(3)


def _made(found: Conclusions) -> Section:
    shared = ("folded", shared_settings(found.history), "Settings of all trials")
    return Section("How it was made", [("facts", facts(found)), shared], "made", "Data and code")


def _next(found: Conclusions) -> Section | None:
    nothing = "Nothing stands out: no edge was reached, no rule found anything."
    if not found.advice and (not found.history.records or found.history.state == "running"):
        return None
    parts = [("steps", found.advice), ("text", "" if found.advice else nothing, "quiet")]
    return Section("What to try next", parts, "next", "What next")
