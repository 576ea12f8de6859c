"""What a target is ranked among, and how it is called: for those who rank and for those who only show ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

METRICS = ("mrr", "ndcg_5", "ndcg_10", "hr_1", "hr_5", "hr_10")
PREFIXES = {"valid": "val", "test": "test"}
"""Split -> how the names of its logged numbers begin."""
RANKINGS = {
    "sampled": ("", "stored candidates"),
    "full": ("_full", "all items"),
    "unseen": ("_unseen", "items not in the history"),
}
"""Name -> how the prefix of its metrics ends (`val`, `val_full`, `val_unseen`), and its name in tables. All three are of the
target's domain; the last two are the whole domain with and without the user's own history."""


def ranking_rows(
    values: Mapping[str, float], split: str, domain: str, metrics: Sequence[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """What targets of a domain were ranked among, and the metrics as text; rankings that are the same share a row (`a = b`).

    In a small domain the stored candidates are all its items.

    Args:
        values: by name, as `ranking.summarise` gives them.
        split: `val` or `test`.
    """
    rows: dict[tuple[str, ...], str] = {}
    for ending, among in RANKINGS.values():
        found = [values.get(f"{split}{ending}/{domain}/{metric}") for metric in metrics]
        if any(value is not None for value in found):
            cells = tuple("-" if value is None else f"{value:.4f}" for value in found)
            rows[cells] = f"{rows[cells]} = {among}" if cells in rows else among
    return [(among, cells) for cells, among in rows.items()]
