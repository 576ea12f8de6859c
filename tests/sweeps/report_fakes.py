"""Sweeps on the disk that nobody ran: journals written by hand, for the report to read."""

from __future__ import annotations

import json
import math
import random
import socket
from pathlib import Path
from typing import Any

from sweeps.state.sweep_record import SweepRecord

START = 1_800_000_000_000
SPACE = {"lr": [1e-4, 1e-3, 1e-2], "alpha, beta": {"simplex": 0.1}, "lambda1": [0.1, 0.3, 1.0]}
DOMAINS = ("movie", "book")


def metrics(value: float, full: float | None = None) -> dict[str, float]:
    """Validation metrics of one epoch whose mean MRR is `value`."""
    found = {"val/mrr": value, "val/loss": 5 - value}
    for domain, factor in zip(DOMAINS, (1.2, 0.8)):
        found |= {f"val/{domain}/mrr": value * factor, f"val/{domain}/ndcg_10": value * factor * 0.9}
        found[f"val_full/{domain}/mrr"] = value * factor * 0.5 if full is None else full * factor
    return found


def trial(values: list[float], end: str = "completed", **more: Any) -> dict[str, Any]:
    """One trial: its value after each epoch and how it ended; `settings`, `error`, `kind`, `seconds` (per epoch), `full`."""
    return {"values": values, "end": end, **more}


def make_sweep(
    storage: Path,
    trials: list[dict[str, Any]],
    /,
    *,
    name: str = "s1",
    status: str = "completed",
    epochs: int = 6,
    tests: dict[int, dict[str, float]] | None = None,
    opened: dict[str, Any] | None = None,
    **record: Any,
) -> SweepRecord:
    """Write `sweep.yaml` and `journal.jsonl` as a sweep would have left them."""
    fixed = {"epochs": epochs, **record.pop("fixed", {})}
    values = {"space": SPACE, "trials": max(1, len(trials)), "search": "optuna", "grid_points": 2, "grace_period": 2}
    values |= {"created": "2026-11-21T08:00:00.000000", **record}
    found = SweepRecord(
        name=name, requested="sample", scenario="sample", data_root=str(storage / "data"), storage=str(storage),
        tracking_uri=f"sqlite:///{storage / 'mlflow.db'}", fingerprint="f" * 64, fixed=fixed,
        status=status, **values,
    )  # fmt: skip
    found.folder.mkdir(parents=True)
    found.save()
    events: list[dict[str, Any]] = [
        {"event": "opened", "host": socket.gethostname(), "pid": 0, "python": "3.11", "code": "c0de", "trials": len(trials),
         "fingerprint": "f" * 64, "resources": "2 at once, 1 CPU each", **(opened or {})}
    ]  # fmt: skip
    for number, spec in enumerate(trials, start=1):
        settings = spec.get("settings") or {"lr": 1e-4 * 1.5**number, "alpha": 0.1 * (number % 7), "beta": 0.2}
        events.append({"event": "proposed", "trial": number, "settings": settings, "choice": settings, "epochs": epochs,
                       "params": {}})  # fmt: skip
        if spec["end"] != "pending":
            events.append({"event": "started", "trial": number})
        best, best_epoch, each = -math.inf, 0, spec.get("seconds", 2.0)
        for epoch, value in enumerate(spec["values"], start=1):
            if value > best:
                best, best_epoch = value, epoch
            last = epoch == len(spec["values"]) and spec["end"] in ("completed", "pruned")
            result = {
                "epoch": epoch, "objective": best, "best_epoch": best_epoch, "stopped_early": last and epoch < epochs and
                spec["end"] == "completed", "seconds_train": each * 0.75, "seconds_valid": each * 0.25,
                **metrics(value, spec.get("full")),
            }  # fmt: skip
            events.append({"event": "epoch", "trial": number, "result": result, "end": spec["end"] if last else "",
                           "seconds": 10 + each * epoch})  # fmt: skip
        if spec["end"] == "failed":
            events.append({"event": "failed", "trial": number, "kind": spec.get("kind", "error"),
                           "error": spec.get("error", "NonFiniteLoss: it diverged"), "seconds": 12.0})  # fmt: skip
    for number, found_metrics in (tests or {}).items():
        events.append({"event": "tested", "trial": number, "metrics": found_metrics})
    if status != "running":
        events.append({"event": "stopped", "reason": status})
    lines = [json.dumps({"event": e["event"], "time": START + 1000 * i, **e}) for i, e in enumerate(events)]
    (found.folder / "journal.jsonl").write_text("\n".join(lines) + "\n" if trials or status != "planned" else "")
    return found


def rising(top: float, epochs: int = 6) -> list[float]:
    """A learning curve without noise."""
    return [top * (1 - 0.5**epoch) for epoch in range(1, epochs + 1)]


def many(count: int, *, epochs: int = 27, seed: int = 0) -> list[dict[str, Any]]:
    """Trials of which lr matters much, alpha a little, and lambda1 not at all; pruned as successive halving would."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        alpha = rng.random()
        settings = {
            "lr": float(f"{10 ** rng.uniform(-4, -2):.4g}"), "alpha": round(alpha, 4),
            "beta": round(rng.random() * (1 - alpha), 4), "lambda1": round(rng.uniform(0.1, 1), 4),
        }  # fmt: skip
        top = 0.08 - 0.03 * abs(math.log10(settings["lr"]) + 3) - 0.01 * abs(alpha - 0.4) + rng.gauss(0, 0.002)
        values = [top * (1 - 0.8**epoch) + rng.gauss(0, 0.0005) for epoch in range(1, epochs + 1)]
        if number % 50 == 49:
            found.append(trial(values[:1], "failed", settings=settings, error="NonFiniteLoss: <b>&nan</b> \U0001f4a5"))
        elif top < 0.07:
            found.append(trial(values[: 3 if top < 0.06 else 9], "pruned", settings=settings))
        else:
            found.append(trial(values, settings=settings))
    return found
