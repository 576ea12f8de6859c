"""A history in, the top items of a domain out: with the ids, titles and words of the outside world.

A request is what JSON can say, since servers hand over just that:

    {"history": ["B00003CY51", "0767811070"], "domain": "book", "k": 10, "exclude_history": true}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmemf.batches import Batch, DeviceSequences
from llmemf.config import unknown_keys
from llmemf.errors import InputError, nearest
from llmemf.export.folder import ExportedModel
from llmemf.scenarios.scenario import Sequences

REQUEST_KEYS = ("history", "domain", "k", "exclude_history")
DEFAULT_K = 10


class Recommendations:
    """Answers requests with an exported model.

    Args:
        model: a loaded folder.
    """

    def __init__(self, model: ExportedModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Recommendations:
        """Load a folder.

        Raises:
            InputError: as `ExportedModel.load`.
        """
        return cls(ExportedModel.load(folder, device=device))

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """External id -> global ids; an id may stand in both domains."""
        found = defaultdict(list)
        for number, name in enumerate(self.model.items.external_id):
            found[name].append(number)
        return found

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Args:
            request: `history`: item ids, oldest first, of both domains in the order in which they were taken; an id that
                stands in both domains is written `domain:id`. `domain`: whose items are wanted. `k`: how many, 10 by
                default. `exclude_history`: whether items of the history are left out, true by default.

        Returns:
            `domain`; `items`: `rank`, `id`, `title`, `score` of each, best first, equal scores in the order of the item
            table; `known_items`: how many of the history the model knows; `unknown_items`: those that it skipped. Items
            that the model gives no score at all are left out, so that there may be fewer than `k`.

        Raises:
            InputError: the request is not understood; one sentence says why.
        """
        history, domain, k, exclude = self._checked(request)
        known, unknown = [], []
        for name in history:
            number = self._find(name)
            known.append(number) if number is not None else unknown.append(name)
        if not known:
            raise InputError(f"the model knows none of the {len(history)} items of the history ({_some(unknown)})")
        low, high = (self.model.num_x, self.model.num_items) if domain else (0, self.model.num_x)
        left_out = sorted({number - low for number in known if low <= number < high}) if exclude else []
        name = self.model.domains[domain]
        if k > high - low - len(left_out):
            beside = f" of which {len(left_out)} stand in the history" if left_out else ""
            raise InputError(f"k = {k} is too large: domain {name!r} has {high - low:,} items{beside}")
        scores = self.scores(known, domain)
        scores[left_out] = -np.inf
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[np.isfinite(scores[order])]
        if not len(order):
            raise InputError(f"the model can say nothing about domain {name!r} from this history: give it other items")
        rows = self.model.items.iloc[low + order]
        items = [
            {"rank": rank, "id": item, "title": title, "score": float(scores[place])}
            for rank, (item, title, place) in enumerate(zip(rows.external_id, rows.title, order), start=1)
        ]
        return {"domain": name, "items": items, "known_items": len(known), "unknown_items": unknown}

    def scores(self, history: list[int], domain: int) -> np.ndarray:
        """(n,) scores of all items of a domain for a user known by this history (global ids) alone."""
        with torch.inference_mode():
            return self.model.models[domain].score_all(self._batch(history), domain)[0].double().cpu().numpy()

    def _batch(self, history: list[int]) -> Batch:
        """The history as evaluation shows one: before a held-out item, which no model reads."""
        model = self.model
        sequences = DeviceSequences(
            Sequences.from_rows([model.unknown_user], [[*history, 0]]),
            num_x=model.num_x,
            num_items=model.num_items,
            max_length=model.config.max_length,
            held_out=True,
            layout=getattr(model.config, "layout", "compact"),
            device=model.device,
        )
        return sequences.batch(torch.zeros(1, dtype=torch.long, device=model.device))

    def _checked(self, request: Mapping[str, Any]) -> tuple[list[str], int, int, bool]:
        if not isinstance(request, Mapping):
            raise InputError(f"a request is an object with {', '.join(REQUEST_KEYS)}; this is {_kind(request)}")
        if problems := unknown_keys(request, REQUEST_KEYS, "request"):
            raise InputError(problems[0])
        for key in ("history", "domain"):
            if request.get(key) is None:
                raise InputError(f"{key} is missing from the request")
        history, domain = request["history"], request["domain"]
        if not isinstance(history, list | tuple):
            raise InputError(f"history must be a list of item ids; this is {_kind(history)}")
        if not history:
            raise InputError("history is empty: name at least one item")
        for place, name in enumerate(history):
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise InputError(f"history[{place}] = {name!r} is no item id: ids are strings")
        names = self.model.domains
        if domain not in names:
            raise InputError(f"unknown domain {domain!r}: {nearest(str(domain), names)}")
        k = DEFAULT_K if request.get("k") is None else request["k"]
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k = {k!r}: a whole number from 1 on is expected")
        exclude = True if request.get("exclude_history") is None else request["exclude_history"]
        if not isinstance(exclude, bool):
            raise InputError(f"exclude_history = {exclude!r}: true or false is expected")
        return [str(name) for name in history], names.index(domain), k, exclude

    def _find(self, name: str) -> int | None:
        numbers = self._numbers.get(name, [])
        if len(numbers) > 1:
            both = " or ".join(f"{domain}:{name}" for domain in self.model.domains)
            raise InputError(f"item id {name!r} stands for {len(numbers)} items: write {both}")
        if numbers:
            return numbers[0]
        prefix, _, rest = name.partition(":")
        if prefix not in self.model.domains:
            return None
        of_y = prefix == self.model.domains[1]
        return next((n for n in self._numbers.get(rest, []) if (n >= self.model.num_x) == of_y), None)


def _some(names: list[str], count: int = 5) -> str:
    more = f", and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(repr, names[:count])) + more


def _kind(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        dict: "an object",
        list: "a list",
    }
    return names.get(type(value), "nothing" if value is None else f"a {type(value).__name__}")
