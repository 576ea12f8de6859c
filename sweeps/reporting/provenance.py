"""Where the numbers come from: data, features, machine, code, versions, settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmemf import text_format
from llmemf.errors import InputError
from llmemf.scenarios.manifest import read_manifest
from sweeps.reporting.conclusions import Conclusions
from sweeps.reporting.history import SweepHistory
from sweeps.state.sweep_record import SweepRecord


def facts(found: Conclusions) -> list[tuple[str, str]]:
    """Data, hardware, code, features, versions."""
    history, tracked = found.history, found.tracked
    record, tags, openings = history.record, tracked.tags, history.openings
    last = openings[-1] if openings else {}
    versions = {"Python": last.get("python", "unknown"), **last.get("versions", {})}
    features = ", ".join(
        f"{kind} by {name}" + (f" ({tags[f'{kind}_features'][:12]})" if f"{kind}_features" in tags else "")
        for kind, name in found.encoders.items()
    )
    no_features = f"unknown: {tracked.problem}" if tracked.problem else "none (ids only)"
    machines = _each(opening["machine"] for opening in openings if "machine" in opening)
    run = f", run {tracked.run}" if tracked.run else f" ({tracked.problem})"
    address = record.tracking_uri.rstrip("/")
    where = address + tracked.page if address.startswith("http") and tracked.page else f"{record.tracking_uri}{run}"
    return [
        ("sweep", f"{record.name}, started {record.created[:16].replace('T', ' ')}"),
        ("data", f"{record.scenario}, fingerprint {record.fingerprint or 'not known yet'}"),
        ("its sizes", data_sizes(record)),
        ("features", features or no_features),
        *((name.replace("_", " "), tags[name]) for name in ("candidates_valid", "candidates_test") if name in tags),
        *([("hardware", "; ".join(machines))] if machines else []),
        ("driver on", ", ".join(_each(opening.get("host") for opening in openings)) or "-"),
        ("resources", "; ".join(_each(opening.get("resources") for opening in openings)) or "-"),
        ("code", ", ".join(_each(opening.get("code") for opening in openings)) or "-"),
        ("versions", ", ".join(f"{name} {text}" for name, text in versions.items())),
        ("seed", str(record.seed)),
        ("training", " and ".join(f"{name} softmax" for name in found.objectives) or "-"),
        ("sessions", f"{len(openings)} (started, then continued)" if len(openings) > 1 else "1"),
        ("folder", str(record.folder)),
        ("MLflow", where),
    ]


def _each(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def shared_settings(history: SweepHistory) -> list[tuple[str, str]]:
    """Settings that all trials share, defaults included."""
    searched = {key for record in history.records for key in record.config}
    return [(k, "-" if v is None else text_format.number(v)) for k, v in history.fixed.items() if k not in searched]


def data_sizes(record: SweepRecord) -> str:
    """Sizes of the data, as far as it is still where the sweep found it."""
    folder = Path(record.data_root) / record.scenario
    try:
        manifest = read_manifest(folder)
    except InputError:
        return f"not in {folder} any more"
    if record.fingerprint and manifest.fingerprint != record.fingerprint:
        return f"the data in {folder} has changed since (fingerprint {manifest.fingerprint[:12]})"
    sizes = manifest.num_x, manifest.num_items - manifest.num_x
    items = " + ".join(f"{size:,} {name}" for size, name in zip(sizes, manifest.domains))
    counts = (manifest.sequences.get(split, 0) for split in ("train", "valid", "test"))
    train, valid, test = (f"{count:,}" for count in counts)
    return f"{items} items, {manifest.num_users:,} users, {train} training sequences, {valid} validation and {test} test cases"
