"""What chance and simple systems reach on a sweep's validation cases, kept in its folder; the best trial is held against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmemf.io import read_json_object, write_text
from llmemf.text_format import listed

FILE = "references.json"
OBJECTIVE = "val/mrr"
"""Their value beside the objective of trials that monitor it."""


@dataclass(frozen=True)
class References:
    """Name (`chance`, `popularity`, ...) -> metric -> value; empty where none were made."""

    metrics: Mapping[str, Mapping[str, float]]

    @classmethod
    def load(cls, folder: Path) -> References:
        """Those of a sweep.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return cls(read_json_object(folder / FILE, "delete it and resume the sweep, which makes it anew"))
        except FileNotFoundError:
            return cls({})

    def save(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(self.metrics, indent=1) + "\n")

    @property
    def objectives(self) -> dict[str, float]:
        """Name -> mean validation MRR of both domains, the lowest first."""
        found = {name: metrics[OBJECTIVE] for name, metrics in self.metrics.items() if OBJECTIVE in metrics}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    @property
    def line(self) -> str:
        """All of them in one line, "" without any."""
        parts = [f"{name} {value:.4f}" for name, value in self.objectives.items()]
        return f"for comparison: {', '.join(parts)}" if parts else ""

    def warning(self, best: float, model: str = "") -> str:
        """What a best objective of a system that is not above all of them means, "" for one that is."""
        above = [name for name, value in self.objectives.items() if value >= best]
        if not above:
            return ""
        remedy = "longer training, other settings, or another system may be needed"
        if model == "llm_emf":
            remedy += "; it can back off to them: --set neighbour_weight=0,1 --set transition_weight=0,0.3"
        return f"The best trial ({best:.4f}) is not above {listed(above)}, without any training: {remedy}."
