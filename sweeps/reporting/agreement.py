"""Stored candidates against all items, over trials: do both rank the trials alike?"""

from __future__ import annotations

from llmemf.pages.charts import Plot
from sweeps.reporting.history import SweepHistory
from sweeps.reporting.trial_charts import scatter


def agreements(history: SweepHistory) -> list[tuple[str, str, Plot | None]]:
    """Domain, sentence and chart, of each domain whose trials report both rankings; none for a single trial."""
    from scipy.stats import spearmanr

    found: list[tuple[str, str, Plot | None]] = []
    for domain in history.domains:
        names = f"val/{domain}/mrr", f"val_full/{domain}/mrr"
        metrics = {trial.record.number: trial.record.metrics for trial in history.valued}
        points = {n: (known[names[0]], known[names[1]]) for n, known in metrics.items() if known.keys() >= {*names}}
        if not points or len(metrics) < 2:
            continue
        if all(sampled == full for sampled, full in points.values()):
            same = "Both are the same numbers: the stored candidates are all items of the domain."
            found.append((domain, same, None))
            continue
        sentence = "Too few trials to compare their orders."
        sampled, full = (list(values) for values in zip(*points.values(), strict=True))
        if len(points) > 2 and len(set(sampled)) > 1 and len(set(full)) > 1:
            correlation = float(spearmanr(sampled, full).statistic)
            sentence = f"Spearman's rank correlation over {len(points)} trials: {correlation:.2f}."
        found.append((domain, sentence, scatter(history, domain, points)))
    return found
