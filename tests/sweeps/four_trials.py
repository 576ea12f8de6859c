"""Records of four trials that ended in four ways."""

from sweeps.state.trial_records import TrialRecord

DOMAINS = ("movie", "book")


def record(number, outcome, objective, **more):
    metrics = {f"val/{d}/{m}": objective for d in DOMAINS for m in ("mrr", "ndcg_10", "hr_10")} if objective else {}
    settings = {"lr": 3.54e-3, "l2": 5.19e-5, "alpha": 0.224, "beta": 0.423, "lambda1": 0.265, "lambda2": 0.443}
    values = {"outcome": outcome, "epoch": 8, "objective": objective, "best_epoch": 7, "metrics": metrics}
    return TrialRecord(number, settings, 8, **values, **more)


RECORDS = [record(1, "pruned", 0.1), record(2, "completed", 0.3), record(3, "failed", 0.9, error="a | b"), record(4, "interrupted", None)]  # fmt: skip
