"""Where the numbers come from: data, features, machine, code, versions, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from llmemf import text_format

if TYPE_CHECKING:
    from sweeps.report.content import Report
    from sweeps.report.gather import ReportData
    from sweeps.state.sweep_record import SweepRecord


def facts(report: Report) -> list[tuple[str, str]]:
    """Data, hardware, code, features, versions."""
    findings, record, tags = report.findings, report.findings.record, report.tracked.tags
    last = findings.openings[-1] if findings.openings else {}
    versions = {"Python": last.get("python", "unknown"), **last.get("versions", {})}
    features = ", ".join(
        f"{kind} by {name}" + (f" ({tags[f'{kind}_features'][:12]})" if f"{kind}_features" in tags else "")
        for kind, name in report.encoders.items()
    )
    unknown = "unknown: " + report.tracked.problem if report.tracked.problem else "none (ids only)"
    found = [
        ("sweep", f"{record.name}, started {record.created[:16].replace('T', ' ')}"),
        ("data", f"{record.scenario}, fingerprint {record.fingerprint or 'not known yet'}"),
        ("its sizes", data_facts(record)),
        ("features", features or unknown),
    ]
    for name in ("candidates_valid", "candidates_test"):
        if name in tags:
            found.append((name.replace("_", " "), tags[name]))
    hosts = list(dict.fromkeys(str(opening.get("host")) for opening in findings.openings))
    machines = list(dict.fromkeys(opening["machine"] for opening in findings.openings if "machine" in opening))
    resources = list(dict.fromkeys(str(opening.get("resources")) for opening in findings.openings))
    found += [("hardware", "; ".join(machines))] if machines else []
    found += [
        ("driver on", ", ".join(hosts) or "-"),
        ("resources", "; ".join(resources) or "-"),
        ("code", ", ".join(dict.fromkeys(str(opening.get("code")) for opening in findings.openings)) or "-"),
        ("versions", ", ".join(f"{name} {text}" for name, text in versions.items())),
        ("seed", str(record.seed)),
        ("training", " and ".join(f"{name} softmax" for name in report.objectives) or "-"),
        ("sessions", f"{len(findings.openings)} (started, then continued)" if len(findings.openings) > 1 else "1"),
        ("folder", str(record.folder)),
        ("MLflow", f"{record.tracking_uri}" + (f", run {report.tracked.run}" if report.tracked.run else
                                               f" ({report.tracked.problem})")),
    ]  # fmt: skip
    return found


def shared_settings(findings: ReportData) -> list[tuple[str, str]]:
    """Settings that all trials share, defaults included."""
    searched = {key for record in findings.records for key in record.config}
    return [(k, "-" if v is None else text_format.number(v)) for k, v in findings.fixed.items() if k not in searched]


def data_facts(record: SweepRecord) -> str:
    """Sizes of the data, as far as it is still where the sweep found it."""
    path = Path(record.data_root) / record.scenario / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        if record.fingerprint and manifest["fingerprint"] != record.fingerprint:
            return f"the data in {path.parent} has changed since (fingerprint {manifest['fingerprint'][:12]})"
        sizes = manifest["num_x"], manifest["num_items"] - manifest["num_x"]
        items = " + ".join(f"{size:,} {name}" for size, name in zip(sizes, manifest["domains"]))
        counts = manifest["sequences"]
        return (
            f"{items} items, {manifest['num_users']:,} users, {counts['train']:,} training sequences, "
            f"{counts['valid']:,} validation and {counts['test']:,} test cases"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return f"not in {path.parent} any more"
