"""Histories in, the top items of a domain out: with the ids, titles and words of the outside world.

A request is what JSON can say, since servers hand over just that:

    {"history": ["B00003CY51", "0767811070"], "domain": "book", "k": 10, "exclude_history": true}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmemf.batches import Batch, DeviceSequences
from llmemf.config import unknown_keys
from llmemf.errors import InputError, nearest
from llmemf.export.folder import ExportedModel
from llmemf.scenarios.sequences import Sequences

REQUEST_KEYS = ("history", "domain", "k", "exclude_history")
DEFAULT_K = 10
POPULARITY = "popularity"
"""The fallback of an answer that the model itself cannot give."""
BATCH_SCORES = 2**24
"""Scores that are computed at once: histories times items of a domain."""
BATCH_HISTORIES = 256
KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}


class _Question(NamedTuple):
    """A request that was understood: the domain's number, and the history as global ids and as ids that nobody knows."""

    domain: int
    k: int
    known: list[int]
    unknown: list[str]
    left_out: list[int]


class Recommendations:
    """Answers requests with an exported model.

    Args:
        model: a loaded folder.
    """

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.ranges = (range(model.num_x), range(model.num_x, model.num_items))
        """Global ids of X and of Y."""

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

    @cached_property
    def _names(self) -> tuple[np.ndarray, np.ndarray]:
        """External ids and titles in global order."""
        return self.model.items.external_id.to_numpy(), self.model.items.title.to_numpy()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request; see `answers`.

        Raises:
            InputError: it cannot be answered; one sentence says why.
        """
        found = self.answers([request])[0]
        if "error" in found:
            raise InputError(found["error"])
        return found

    def answers(self, requests: Sequence[Any]) -> list[dict[str, Any]]:
        """Answer requests, those of a domain together.

        Args:
            requests: of each, `history`: item ids, oldest first, of both domains in the order in which they were taken; an id
                that stands in both domains is written `domain:id`. `domain`: whose items are wanted. `k`: how many, 10 by
                default. `exclude_history`: whether items of the history are left out, true by default.

        Returns:
            One answer per request. `domain`; `items`: `rank`, `id`, `title`, `score` of each, best first, equal scores in the
            order of the item table; `known_items`: how many of the history the model knows; `unknown_items`: those that it
            skipped. Items that the model gives no score at all are left out, so that there may be fewer than `k`. Where
            the model can say nothing (no item of the history is known, or none that speaks about this domain), the items are
            the domain's most popular ones in training, their scores are counts, and `fallback` is "popularity". A request
            that cannot be answered has `error` alone: a sentence that says why, and repeats no other request.
        """
        answers: list[dict[str, Any]] = [{}] * len(requests)
        waiting: tuple[dict[int, _Question], ...] = ({}, {})
        for place, request in enumerate(requests):
            try:
                question = self._understood(request)
            except InputError as error:
                answers[place] = {"error": str(error)}
            else:
                waiting[question.domain][place] = question
        for domain, questions in enumerate(waiting):
            size = max(1, min(BATCH_HISTORIES, BATCH_SCORES // len(self.ranges[domain])))
            # Histories of about one length fill a batch without padding; those of nobody known need no model.
            places = sorted(questions, key=lambda place: len(questions[place].known))
            for start in range(0, len(places), size):
                batch = {place: questions[place] for place in places[start : start + size]}
                known = {place: question for place, question in batch.items() if question.known}
                found: dict[int, tuple[np.ndarray, np.ndarray] | None] = {}
                if known:
                    scores = self.scores([question.known for question in known.values()], domain)
                    found = dict(zip(known, _best(scores, list(known.values()))))
                for place, question in batch.items():
                    best = found.get(place)
                    answers[place] = self._popular(question) if best is None else self._answer(question, *best)
        return answers

    def scores(self, histories: Sequence[Sequence[int]], domain: int) -> Tensor:
        """(B, n) scores of all items of a domain for users known by these histories (global ids) alone."""
        with torch.inference_mode():
            found = self.model.models[domain].score_all(self._batch(histories), domain).cpu()
        # A tensor of its own, outside of inference mode, which may be written to.
        return found.clone()

    def _popular(self, question: _Question) -> dict[str, Any]:
        """The most popular items of the domain instead of the model's, and marked as such."""
        counts, own = self.model.counts, self.ranges[question.domain]
        if counts is None:
            problem = "can say nothing from this history" if question.known else "knows no item of this history"
            return {"error": f"the model {problem}, and its folder does not say what is popular: export it again"}
        best = _best(torch.from_numpy(counts[own.start : own.stop].astype(np.float64))[None], [question])[0]
        assert best is not None, "counts are finite, and `k` leaves room for them"
        return {**self._answer(question, *best), "fallback": POPULARITY}

    def _answer(self, question: _Question, places: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        ids, titles = self._names
        numbers = self.ranges[question.domain].start + places
        items = [
            {"rank": rank, "id": ids[number], "title": titles[number], "score": score}
            for rank, (number, score) in enumerate(zip(numbers, scores.tolist()), start=1)
        ]
        return {
            "domain": self.model.domains[question.domain],
            "items": items,
            "known_items": len(question.known),
            "unknown_items": question.unknown,
        }

    def _batch(self, histories: Sequence[Sequence[int]]) -> Batch:
        """The histories as evaluation shows them: before a held-out item, which no model reads."""
        model = self.model
        sequences = DeviceSequences(
            # The user behind the last one is the one without training sequences.
            Sequences.from_rows(
                [model.manifest["num_users"]] * len(histories), [[*history, 0] for history in histories]
            ),
            num_x=model.num_x,
            num_items=model.num_items,
            max_length=model.config.max_length,
            held_out=True,
            layout=getattr(model.config, "layout", "compact"),
            device=model.device,
        )
        return sequences.batch(torch.arange(len(histories), device=model.device))

    def _understood(self, request: Any) -> _Question:
        """A request in the model's own numbers.

        Raises:
            InputError: it is not understood, or asks for more items than there are.
        """
        history, domain, k, exclude = self._checked(request)
        numbers = {name: self._find(name) for name in history}
        known = [number for name in history if (number := numbers[name]) is not None]
        unknown = [name for name in history if numbers[name] is None]
        own = self.ranges[domain]
        left_out = sorted({number - own.start for number in known if number in own}) if exclude else []
        if k > len(own) - len(left_out):
            beside = f" of which {len(left_out)} stand in the history" if left_out else ""
            raise InputError(
                f"k = {k} is too large: domain {self.model.domains[domain]!r} has {len(own):,} items{beside}"
            )
        return _Question(domain, k, known, unknown, left_out)

    def _checked(self, request: Any) -> tuple[list[str], int, int, bool]:
        if not isinstance(request, Mapping):
            raise InputError(f"a request is an object with {', '.join(REQUEST_KEYS)}; this is {_kind(request)}")
        if problems := unknown_keys(request, REQUEST_KEYS, "request"):
            raise InputError(problems[0])
        given = {"k": DEFAULT_K, "exclude_history": True} | {
            key: value for key, value in request.items() if value is not None
        }
        if missing := [key for key in REQUEST_KEYS if key not in given]:
            raise InputError(f"{missing[0]} is missing from the request")
        history, domain, k, exclude = (given[key] for key in REQUEST_KEYS)
        if not isinstance(history, list | tuple):
            raise InputError(f"history must be a list of item ids; this is {_kind(history)}")
        for place, name in enumerate(history):
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise InputError(f"history[{place}] = {name!r} is no item id: ids are strings")
        if domain not in self.model.domains:
            raise InputError(f"unknown domain {domain!r}: {nearest(str(domain), self.model.domains)}")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k = {k!r}: a whole number from 1 on is expected")
        if not isinstance(exclude, bool):
            raise InputError(f"exclude_history = {exclude!r}: true or false is expected")
        return [str(name) for name in history], self.model.domains.index(domain), k, exclude

    def _find(self, name: str) -> int | None:
        """The global id of an external id, of one that is written `domain:id`, or None where nobody knows it."""
        numbers = self._numbers.get(name, [])
        if len(numbers) > 1:
            both = " or ".join(f"{domain}:{name}" for domain in self.model.domains)
            raise InputError(f"item id {name!r} stands for {len(numbers)} items: write {both}")
        if numbers:
            return numbers[0]
        prefix, _, rest = name.partition(":")
        if prefix not in self.model.domains:
            return None
        own = self.ranges[self.model.domains.index(prefix)]
        return next((number for number in self._numbers.get(rest, []) if number in own), None)


def _best(scores: Tensor, questions: list[_Question]) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """The places (local ids) with the highest of (B, n) scores and these, best first; None where a row has no score."""
    for row, question in zip(scores, questions):
        row[question.left_out] = -torch.inf
    borders = scores.topk(max(question.k for question in questions), dim=1).values.numpy()
    found: list[tuple[np.ndarray, np.ndarray] | None] = []
    for row, border, question in zip(scores.numpy(), borders, questions):
        # Equal scores stand in the order of the item table, which `topk` does not promise.
        above = np.flatnonzero(row > border[question.k - 1])
        equal = np.flatnonzero(row == border[question.k - 1])[: question.k - len(above)]
        places = np.concatenate([above[np.argsort(-row[above], kind="stable")], equal])
        places = places[np.isfinite(row[places])]
        found.append((places, row[places]) if len(places) else None)
    return found


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "nothing" if value is None else f"a {type(value).__name__}")
