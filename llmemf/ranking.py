"""From scores to ranks to metrics: one target among stored candidates (C2DSR's protocol), among all items of its domain, and
among those of them that its history lacks.

All ranks of a case come from the same scores. Ranks are computed in fp32 (or finer, where the model scores finer).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from llmemf.batches import DeviceSequences
from llmemf.models.recommender import Recommender
from llmemf.ranking_names import METRICS, RANKINGS

Ties = Literal["mean", "optimistic", "pessimistic"]
SHOWN_ITEMS = 10
"""Length of the lists whose variety `side_metrics` counts."""


def target_ranks(
    target_scores: Tensor, scores: Tensor, counted: Tensor | None = None, *, ties: Ties = "mean"
) -> Tensor:
    """(B,) rank of each target among other items; 1 is best.

    Args:
        target_scores: (B,).
        scores: (B, C) scores of the other items.
        counted: (B, C) bool, False where an entry does not count (padding, or the target itself).
        ties: `mean` places the target in the middle of equal scores (1 + greater + equal / 2), `optimistic` before all
            of them (literal C2DSR: a constant scorer gets rank 1), `pessimistic` after all of them.

    Raises:
        FloatingPointError: a score is NaN.
    """
    if torch.isnan(scores).any() or torch.isnan(target_scores).any():
        raise FloatingPointError("a score is NaN: ranks would be meaningless")
    greater, equal = scores > target_scores[:, None], scores == target_scores[:, None]
    if counted is not None:
        greater, equal = greater & counted, equal & counted
    share = {"mean": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[ties]
    return 1 + greater.sum(1) + share * equal.sum(1)


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Mean MRR (uncut), NDCG@5, NDCG@10, HR@1, HR@5, HR@10 of one target per case, as fractions.

    A half rank (from a tie) counts in a cut when it is at most the cut.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    gain = 1 / np.log2(ranks + 1)
    metrics = {"mrr": np.mean(1 / ranks)}
    metrics.update({f"ndcg_{k}": np.mean(gain * (ranks <= k)) for k in (5, 10)})
    metrics.update({f"hr_{k}": np.mean(ranks <= k) for k in (1, 5, 10)})
    return {name: float(value) for name, value in metrics.items()}


def rank_cases(
    model: Recommender,
    sequences: DeviceSequences,
    candidates: np.ndarray,
    *,
    batch_size: int,
    ties: Ties = "mean",
    cases: np.ndarray | None = None,
    lists: bool = False,
) -> dict[str, np.ndarray]:
    """Rank the target of every case, on its stored candidates and on all items of its domain.

    Args:
        model: scored in evaluation mode and left in the mode it came in.
        sequences: a held-out split on the device.
        candidates: (cases, C) int32 global ids, -1 padded.
        batch_size: cases scored at once.
        cases: indices of the cases to rank; all of them by default.
        lists: whether to keep the first items of every case.

    Returns:
        Arrays by case, sorted by domain: `case`, `domain` (0 or 1), `sampled`, `full` and `unseen` (ranks), `nll` (negative
        log-softmax of the target among its domain; uniform where all scores of a case are -inf); with `lists` also `target`
        and `top`, (cases, 10) global ids of the first items that the history lacks, best first, -1 where there are fewer.

    Raises:
        FloatingPointError: a score is NaN.
    """
    assert sequences.targets is not None, "held-out sequences have targets"
    targets = sequences.targets.cpu().numpy()
    cases = np.arange(len(targets)) if cases is None else np.asarray(cases)
    kinds = {"case": np.int64, "domain": np.int64, **dict.fromkeys((*RANKINGS, "nll"), np.float64)}
    found: dict[str, list[np.ndarray]] = {name: [np.zeros(0, kind)] for name, kind in kinds.items()}
    if lists:
        found |= {"target": [np.zeros(0, np.int64)], "top": [np.zeros((0, SHOWN_ITEMS), np.int64)]}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for domain in (0, 1):
                of_domain = cases[(targets[cases] >= model.num_x) == bool(domain)]
                for start in range(0, len(of_domain), batch_size):
                    index = of_domain[start : start + batch_size]
                    ranks = _rank_batch(model, sequences, candidates[index], index, domain, ties, lists)
                    for name, values in zip(found, (index, np.full(len(index), domain), *ranks)):
                        found[name].append(values)
    finally:
        model.train(was_training)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _rank_batch(
    model: Recommender,
    sequences: DeviceSequences,
    candidates: np.ndarray,
    index: np.ndarray,
    domain: int,
    ties: Ties,
    lists: bool,
) -> tuple[np.ndarray, ...]:
    """(B,) ranks in the order of `RANKINGS`, and negative log-probability of the cases at `index` (B,); target and first items."""
    batch = sequences.batch(torch.from_numpy(index).to(sequences.device))
    scores = model.score_all(batch, domain)
    offset = model.num_x if domain else 0
    assert batch.targets is not None
    own = (batch.targets - offset)[:, None]
    target_scores = scores.gather(1, own).squeeze(1)
    stored = torch.from_numpy(candidates.astype(np.int64)).to(scores.device)
    counted = stored >= 0
    stored_scores = scores.gather(1, (stored - offset).clamp(min=0))
    sampled = target_ranks(target_scores, stored_scores, counted, ties=ties)
    # Among all items the target meets itself once, as an equal score.
    others = torch.ones_like(scores, dtype=torch.bool).scatter_(1, own, False)
    full = target_ranks(target_scores, scores, others, ties=ties)
    # Items of the history that stand before the target, or beside it, no longer do; the target itself is no other item.
    history = sequences.histories(index).to(scores.device) - offset
    counted = (history >= 0) & (history < scores.shape[1]) & (history != own)
    own_history = scores.gather(1, history.clamp(0, scores.shape[1] - 1))
    unseen = full - (target_ranks(target_scores, own_history, counted, ties=ties) - 1)
    total = scores.float().logsumexp(1)
    nll = torch.where(total > -torch.inf, total - target_scores, math.log(scores.shape[1]))
    ranks = tuple(value.double().cpu().numpy() for value in (sampled, full, unseen, nll))
    if not lists:
        return ranks
    inside = (history >= 0) & (history < scores.shape[1])
    met = torch.where(inside, -torch.inf, torch.inf).to(scores.dtype)
    left = scores.scatter_reduce(1, history.clamp(0, scores.shape[1] - 1), met, "amin")
    best, items = left.topk(min(SHOWN_ITEMS, scores.shape[1]), 1)
    top = torch.full((len(index), SHOWN_ITEMS), -1, dtype=torch.int64)
    top[:, : items.shape[1]] = torch.where(best > -torch.inf, items + offset, -1)
    return (*ranks, batch.targets.cpu().numpy(), top.numpy())


def summarise(ranks: dict[str, np.ndarray], domains: tuple[str, str], prefix: str) -> dict[str, float]:
    """Metrics of all rankings per domain, and their means over the domains.

    Returns:
        `{prefix}/{domain}/{metric}` on stored candidates, `{prefix}_full/...` on the full catalogue, `{prefix}_unseen/...` on
        what of it the history lacks, `{prefix}/mrr` and its like (mean of both domains), `{prefix}/loss`. A domain without a
        case is left out; so are, from the loss as in training, targets that the model gives no probability at all.
    """
    result: dict[str, float] = {}
    for kind, (ending, _) in RANKINGS.items():
        if kind not in ranks:  # stored by a version that did not have it
            continue
        name, means = prefix + ending, []
        for code, domain in enumerate(domains):
            of_domain = ranks["domain"] == code
            if not of_domain.any():
                continue
            metrics = rank_metrics(ranks[kind][of_domain])
            result.update({f"{name}/{domain}/{metric}": metrics[metric] for metric in METRICS})
            means.append(metrics["mrr"])
        result[f"{name}/mrr"] = float(np.mean(means))
    result[f"{prefix}/loss"] = float(np.mean(ranks["nll"][ranks["nll"] < np.inf]))
    return result


def side_metrics(
    ranks: dict[str, np.ndarray], domains: tuple[str, str], items: tuple[int, int], prefix: str
) -> dict[str, float]:
    """What a mean over cases hides: whether a model is good for common items alone, and whether it shows any others.

    Args:
        ranks: as `rank_cases` gives them with `lists`.
        items: number of items of each domain.

    Returns:
        `{prefix}/{domain}/mrr_per_item`: the MRR on stored candidates in which every target item counts alike, however many
        cases have it (the mean over items of the mean of its cases); `{prefix}/{domain}/coverage_10`: share of the domain's
        items that stand in the first ten of any case.
    """
    result: dict[str, float] = {}
    for code, domain in enumerate(domains):
        of_domain = ranks["domain"] == code
        if not of_domain.any():
            continue
        _, item, count = np.unique(ranks["target"][of_domain], return_inverse=True, return_counts=True)
        per_item = np.bincount(item, weights=1 / ranks["sampled"][of_domain]) / count
        top = ranks["top"][of_domain]
        result[f"{prefix}/{domain}/mrr_per_item"] = float(per_item.mean())
        result[f"{prefix}/{domain}/coverage_10"] = len(np.unique(top[top >= 0])) / items[code]
    return result
