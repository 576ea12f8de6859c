"""What a target is ranked among, and how it is called: for those who rank and for those who only show ranks."""

from __future__ import annotations

RANKINGS = {
    "sampled": ("", "stored candidates"),
    "full": ("_full", "all items"),
    "unseen": ("_unseen", "items not in the history"),
}
"""Name -> how the prefix of its metrics ends (`val`, `val_full`, `val_unseen`), and its name in tables. All three are of the
target's domain; the last two are the whole domain with and without the user's own history."""
