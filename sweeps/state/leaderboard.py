"""The results of a sweep as files: all trials in order, and the best configuration."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import yaml

from llmemf import text_format
from sweeps.state.confirmation import confirmed
from sweeps.state.trial_records import TrialRecord, ranked

SHOWN_METRICS = ("mrr", "ndcg_10")
OVER_SEEDS = ("seeds", "mean", "sd", "chance_of_best")
"""Columns of confirmed trials."""


def rows(records: list[TrialRecord]) -> list[dict[str, Any]]:
    """One flat row per trial, best first: every setting and every validation metric of its best epoch.

    Repeats stand in the row of the trial that they repeat, as mean and standard deviation over seeds.
    """
    searched = ranked(records)
    over_seeds = {
        item.record.number: (len(item.values), item.mean, item.deviation, item.best) for item in confirmed(records)
    }
    keys = list(dict.fromkeys(key for record in records if not record.repeats for key in record.varied))
    metrics = sorted({name for record in searched for name in record.metrics})
    result = []
    for place, record in enumerate(searched, start=1):
        row = {
            "rank": place,
            "trial": record.name,
            "outcome": record.outcome,
            "objective": record.objective,
            **(dict(zip(OVER_SEEDS, over_seeds.get(record.number, (None,) * 4))) if over_seeds else {}),
            "best_epoch": record.best_epoch,
            "epochs_run": record.epoch,
            "seconds": round(record.seconds, 1),
        }
        row |= {key: text_format.number(v) if isinstance(v := record.varied.get(key), list) else v for key in keys}
        row |= {name: record.metrics.get(name) for name in metrics}
        result.append({**row, "error": record.error})
    return result


def as_csv(records: list[TrialRecord]) -> str:
    """The leaderboard as CSV, one line per trial."""
    lines = rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["rank"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def shortened(page: str, limit: int = 5000) -> str:
    """The beginning of a page, whole lines only, without its title: the description of the sweep's run in MLflow."""
    lines, length = [], 0
    for line in page.splitlines()[2:]:
        length += len(line) + 1
        if length > limit:
            break
        lines.append(line)
    return "\n".join(lines)


def best_yaml(config: Mapping[str, Any], facts: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The resolved settings of the best trial under a header that says where they come from."""
    header = [f"# {name}: {value}" for name, value in facts.items()]
    header += [f"# {name} = {value:.4f}" for name, value in metrics.items()]
    return "\n".join(header) + "\n" + yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None)
