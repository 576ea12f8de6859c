"""Settings and options that earlier versions had: files of then are still read, where they hold what is done without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmemf.errors import InputError

REMOVED: dict[str, tuple[Any, ...]] = {
    "align_normalisation": ("source",),
    "compile": (False, True),
    "cuda_graphs": (False, "auto", "no"),
    "fold_in_share": (0.5,),
    "group_encoders": (False, "auto", "no"),
    "hidden_dim": (None,),
    "init": ("he",),
    "item_bias": (True,),
    "iterations": (1,),
    "l2_emb": (0.0,),
    "negative_sampling": ("shared", "unseen"),
    "neighbours_of": ("history",),
    "norm": ("query",),
    "objective_kernel": (False, "auto", "plain"),
    "pair_l2": (0.0,),
    "positives": ("all",),
    "sasrec.positions": ("from_start",),
    "stack": (1,),
    "state_dropout": (False,),
    "tri_cdr.negatives": ("unseen",),
}
"""Key -> the values with which nothing happened that happens no longer: dropped where a file of a run holds them. A key of one
model that others still have is written `MODEL.KEY`."""
REMOVED_VALUES = {"objective_precision": ("auto",)}
"""Values that are gone of settings that still exist: dropped from files, so that the default takes their place."""
INSTEAD = {
    "l2_emb": "l2_mode = embedding_rows holds the item table small",
    "objective_kernel": "objective_precision = fp16 is what is left of it",
    "stack": "a process trains one trial at a time",
}


def remedy(key: str) -> str:
    """What to do about a removed setting."""
    return f"leave it out: {INSTEAD.get(key, 'no other choice is left')}"


def without_removed(values: Mapping[str, Any], where: str, model: str = "") -> dict[str, Any]:
    """Values out of a file that an earlier version wrote, without settings that no longer exist.

    Args:
        model: the system that they are of, where they do not name it.

    Raises:
        InputError: a removed setting has a value that made a difference.
    """
    kept, model = {}, values.get("model", model)
    for key, value in values.items():
        inert = REMOVED.get(f"{model}.{key}", REMOVED.get(key))
        dropped = REMOVED_VALUES.get(key, ()) if inert is None else inert
        # 1 is True and 0 is False for Python, not here.
        if any(value == one and type(value) is type(one) for one in dropped):
            continue
        if inert is not None:
            raise InputError(f"{where}: {key} = {value!r} was removed: {remedy(key)}")
        kept[key] = value
    return kept
