"""What a report says, as plain text and rows; the page and its Markdown twin both show these."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from llmemf import text_format
from llmemf.ranking import METRICS
from sweeps.core.summary import caveats_of
from sweeps.report.advice import Advice, advise
from sweeps.report.breakdown import Breakdown, Ranked, break_down
from sweeps.report.certainty import Certainty, certainty
from sweeps.report.gather import ReportData
from sweeps.report.importance import Importances, importances
from sweeps.report.tracked import Tracked

SKIPPED = "Left out (--no-breakdown)."


@dataclass
class Report:
    """All that the page shows.

    Attributes:
        breakdown: of the best trial, None with `breakdown_problem` as the reason.
        made: when.
    """

    findings: ReportData
    importances: Importances
    certainty: Certainty
    advice: list[Advice]
    tracked: Tracked
    breakdown: Breakdown | None = None
    breakdown_problem: str = ""
    encoders: dict[str, str] = field(default_factory=dict)
    made: datetime.datetime = field(default_factory=datetime.datetime.now)

    @property
    def title(self) -> str:
        return self.findings.record.name

    @property
    def objectives(self) -> list[str]:
        """Training objectives among the trials, as the runs' tag says, or the settings."""
        tag = self.tracked.tags.get("objective")
        fixed = self.findings.fixed.get("objective")
        return tag.split("+") if tag else [str(fixed)] if fixed else []

    @property
    def caveats(self) -> list[str]:
        """What a reader of the numbers must know."""
        findings = self.findings
        record = findings.record
        notes = []
        if record.requested != record.scenario:
            notes.append(
                f"There was no data for {record.requested}: the embedded {record.scenario} stood in, and nothing here "
                f"is about {record.requested}."
            )
        notes += caveats_of(record.scenario, self.objectives, self.encoders, len(findings.tests))
        valid_cases = findings.fixed.get("valid_cases")
        if valid_cases:
            notes.append(f"Every epoch ranked a fixed sample of {valid_cases:,} validation cases.")
        if findings.fixed.get("selection") == "per_domain":
            notes.append("Each domain has the weights of its own best epoch (selection = per_domain).")
        if findings.group:
            notes.append(f"This sweep is a part of the {findings.group}, which has the conclusions.")
        codes = {opening.get("code") for opening in findings.openings}
        if len(codes) > 1:
            notes.append(f"It was continued with other code: {len(codes)} versions took part.")
        return notes


def make_report(
    findings: ReportData, tracked: Tracked, ranked: Ranked | None, made: datetime.datetime | None = None
) -> Report:
    """Draw the conclusions.

    Args:
        ranked: ranks of the leading trials; None where the breakdown is left out.
    """
    found = importances(findings.valued, findings.parameters)
    sure = certainty(findings, ranked)
    best, breakdown, problem = findings.best, None, SKIPPED if ranked is None else ranked.problem
    if ranked is not None and best is not None and best.name in ranked.ranks:
        cases = int(findings.fixed.get("valid_cases") or 0)
        breakdown = break_down(best.name, ranked.ranks[best.name], ranked.scenario, valid_cases=cases)
    encoders = tracked.encoders or (ranked.features if ranked else {})
    return Report(
        findings, found, sure, advise(findings, found, sure), tracked, breakdown, problem, encoders,
        made or datetime.datetime.now(),
    )  # fmt: skip


def value(number: float | None, digits: int = 4) -> str:
    return "-" if number is None else f"{number:.{digits}f}"


def hours(seconds: float) -> str:
    """With two significant digits: `4.1 min`, `0.12 h`, `3.4 h`, `120 h`, `-` for nothing."""
    found = seconds / 3600
    if 0 < found < 0.1:
        return f"{seconds / 60:.2g} min"
    return "-" if found == 0 else f"{found:.2g} h" if found < 99.5 else f"{found:,.0f} h"


def lead(report: Report) -> str:
    """What was run, in two sentences."""
    findings, record = report.findings, report.findings.record
    how = {"grid": "a grid", "random": "random draws", "optuna": "grid points, then Optuna"}[record.search]
    if record.search == "optuna" and not record.grid_points:
        how = "Optuna"
    stops = f"ASHA cuts after {_epochs(findings.rungs)}" if findings.rungs else "no trial is cut early"
    return (
        f"{text_format.plural(findings.planned, 'trial')} of {record.model} on {record.scenario}: {how}; at most "
        f"{text_format.plural(findings.epochs, 'epoch')}, {stops}. {counts(findings)}"
    )


def _epochs(rungs: list[int]) -> str:
    return f"epoch{'s' * (len(rungs) > 1)} {', '.join(map(str, rungs))}"


def counts(findings: ReportData) -> str:
    """`8 completed, 4 pruned, 1 failed.`"""
    count = Counter(record.outcome for record in findings.records)
    names = ("completed", "pruned", "failed", "running", "interrupted", "pending")
    parts = [f"{count[name]:,} {name}" for name in names if count[name]]
    waiting = findings.planned - len(findings.records)
    parts += [f"{waiting:,} not started"] if waiting else []
    return f"{', '.join(parts)}." if parts else "No trial has started."


def status(findings: ReportData) -> str:
    """How the sweep stands, "" where it has ended."""
    if findings.state == "running":
        return f"This sweep is still running ({findings.state_note}). What you see is its state when this was made."
    if findings.state == "interrupted":
        return f"This sweep was interrupted{': ' + findings.state_note if findings.state_note else ''}."
    if not findings.records:
        return "No trial has started yet."
    if findings.state == "failed" or findings.best is None:
        return "No trial has a value that counts."
    return ""


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """The headline: name, number, what is to be said of it."""
    findings, best = report.findings, report.findings.best
    found = []
    if best is not None:
        error = report.certainty.own_error
        note = f"{best.name}, epoch {best.record.best_epoch} of {best.record.epoch}"
        note += f"; 95 % interval over cases +/- {1.96 * error:.4f}" if error else ""
        name = "Validation loss" if findings.fixed.get("monitor") == "val_loss" else "Validation MRR"
        shown = -best.record.objective if findings.fixed.get("monitor") == "val_loss" else best.record.objective
        found.append((name, value(shown), note))
    test = findings.test
    if "test/mrr" in test:
        looks = len(findings.tests)
        found.append(
            ("Test MRR", value(test["test/mrr"]), "looked at once" if looks == 1 else f"looked at {looks} times")
        )
    elif best is not None:
        found.append(("Test MRR", "-", "the sweep has not looked at the test split"))
    spending = findings.spending
    total = spending.total
    found.append(("Wall time", text_format.duration(findings.seconds), "interruptions left out"))
    if spending.uses_gpus:
        found.append(("GPU-hours", f"{total.gpu_seconds / 3600:.2g}", f"{hours(total.cpu_seconds)} of CPUs"))
    else:
        found.append(("CPU-hours", f"{total.cpu_seconds / 3600:.2g}", "no GPU was used"))
    if spending.saved_epochs:
        saved, spent = saved_seconds(report)
        note = f"an estimate: {spending.saved_epochs:,.0f} epochs not trained"
        found.append(("Saved by pruning", f"{100 * saved / (saved + spent):.0f} %", note))
    return found


def saved_seconds(report: Report) -> tuple[float, float]:
    """Seconds saved by pruning (estimated) and seconds spent, of GPUs where they were used, else of CPUs."""
    spending = report.findings.spending
    if spending.uses_gpus:
        return spending.saved_gpu_seconds, spending.total.gpu_seconds
    return spending.saved_cpu_seconds, spending.total.cpu_seconds


def saving_sentence(report: Report) -> str:
    """How the saving was estimated, "" where nothing was pruned."""
    spending = report.findings.spending
    if not spending.saved_epochs:
        return ""
    kind = "GPU" if spending.uses_gpus else "CPU"
    saved, _ = saved_seconds(report)
    return (
        f"Pruning saved about {hours(saved)} of {kind} time. This is an estimate: the {spending.saved_epochs:,.0f} epochs "
        f"that pruned trials did not train (up to the {spending.full_epochs:.1f} of a completed one), at each trial's own "
        "time per epoch."
    )


def metric_rows(report: Report) -> list[list[str]]:
    """Metrics of the best trial: split, ranking, domain, MRR, NDCG@5, NDCG@10, HR@1, HR@5, HR@10."""
    findings = report.findings
    if findings.best is None:
        return []
    known = {**findings.best.record.metrics, **findings.test}
    rows = []
    splits = (("val", "validation"), ("test", "test"))
    for split, said in splits:
        for suffix, among in (("", "stored candidates"), ("_full", "all items")):
            for domain in findings.domains:
                values = [known.get(f"{split}{suffix}/{domain}/{name}") for name in METRICS]
                if any(number is not None for number in values):
                    rows.append([said, domain, among, *map(value, values)])
    return rows


METRIC_HEADS = ["split", "domain", "ranked among", *(name.upper().replace("_", "@") for name in METRICS)]


def best_lines(report: Report) -> str:
    """The searched settings of the best trial, as YAML lines; "" without one."""
    best = report.findings.best
    if best is None:
        return ""
    settings = {**best.record.config, **best.record.varied}
    return "\n".join(f"{key}: {_yaml(item)}" for key, item in settings.items())


def _yaml(item: Any) -> str:
    return "[" + ", ".join(map(str, item)) + "]" if isinstance(item, list | tuple) else str(item)


def train_command(report: Report) -> str:
    """The line that trains the best configuration again, "" where its file is not there."""
    record = report.findings.record
    path = record.folder / "best.yaml"
    return f"llmemf train {record.scenario} --config {path} --output FOLDER" if path.exists() else ""


def failures(findings: ReportData) -> list[tuple[str, str, str, str]]:
    """Trial, kind, reason and settings of what failed."""
    kinds = {"error": "its own error", "lost": "process or node lost", "memory": "out of memory", "disk": "disk full"}
    failed = [record for record in findings.records if record.outcome == "failed"]
    return [(r.name, kinds.get(r.kind, r.kind), r.error, text_format.settings(r.varied)) for r in failed]


def spending_rows(findings: ReportData) -> list[list[str]]:
    """Outcome, trials, epochs, time, CPU-hours, GPU-hours."""
    spending = findings.spending
    shares = [*spending.by_outcome.items(), ("all", spending.total)]
    return [
        [name, f"{s.trials:,}", f"{s.epochs:,}", text_format.duration(s.place_seconds), hours(s.cpu_seconds), hours(s.gpu_seconds)]
        for name, s in shares
    ]  # fmt: skip
